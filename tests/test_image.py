"""Promises of `open_image`: every ordinary picture is read as it should look, and nothing else is."""

from __future__ import annotations

import random
import struct
import threading
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, ImageOps

from melodify_lib.errors import ImageError
from melodify_lib.image import MAX_BYTES, MAX_SIDE, open_image

WIDTH, HEIGHT = 64, 48
FORMATS = ("JPEG", "PNG", "WEBP")


def picture(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A smooth picture without symmetry: red to the right, green downwards, a blue corner."""
    y, x = np.mgrid[0:height, 0:width]
    blue = 200.0 * ((x < width / 4) & (y < height / 4))
    pixels = np.stack([x * 255 / width, y * 255 / height, blue], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_with(*chunks: bytes) -> bytes:
    """A good PNG with chunks put in after its header."""
    data = encoded(picture(), "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def jpeg_with(*segments: tuple[int, bytes]) -> bytes:
    """A good JPEG with segments put in after its start marker."""
    data = encoded(picture(), "JPEG")
    return data[:2] + b"".join(struct.pack(">BBH", 255, m, len(b) + 2) + b for m, b in segments) + data[2:]


def error(first: Image.Image, second: Image.Image) -> float:
    assert first.size == second.size
    return float(np.abs(np.asarray(first, float) - np.asarray(second, float)).mean())


# --- ordinary pictures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_picture_comes_back_as_it_was_in_rgb(kind: str) -> None:
    result = open_image(encoded(picture(), kind))
    assert (result.mode, result.size, result.info) == ("RGB", (WIDTH, HEIGHT), {})
    assert type(result) is Image.Image
    assert error(result, picture()) < 4


@pytest.mark.parametrize("kind", ["path", "str", "bytes"])
def test_source_may_be_path_string_or_bytes(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a picture.dat"
    path.write_bytes(encoded(picture(), "PNG"))
    source = {"path": path, "str": str(path), "bytes": path.read_bytes()}[kind]
    assert error(open_image(source), picture()) == 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("options", [{}, {"optimize": True}], ids=["plain", "optimised"])
def test_every_mode_of_png_is_read_as_pillow_shows_it(mode: str, options: dict[str, bool]) -> None:
    if mode == "I;16":
        deep = np.asarray(picture().convert("L")).astype(np.uint16) * 257
        image = Image.fromarray(deep)
        expected = picture().convert("L").convert("RGB")
    else:
        image = picture().convert(mode)
        expected = image.convert("RGB")
    assert error(open_image(encoded(image, "PNG", **options)), expected) <= 1


def test_16_bit_colour_png_is_read() -> None:
    rows = b"".join(b"\0" + struct.pack(">HHH", 0xFFFF, 0x8000, 0) * 32 for _ in range(32))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0))
    transparent = png_chunk(b"tRNS", struct.pack(">HHH", 0xFFFF, 0x8000, 0))
    data = (
        b"\x89PNG\r\n\x1a\n" + header + transparent + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    )
    assert open_image(data).getpixel((5, 5)) == (255, 128, 0)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparent_picture_stands_on_neutral_grey(kind: str) -> None:
    image = picture().convert("RGBA")
    image.putalpha(0)
    pixels = np.asarray(open_image(encoded(image, kind, lossless=True)))
    assert (pixels == pixels[0, 0]).all()
    assert len(set(pixels[0, 0].tolist())) == 1


@pytest.mark.parametrize("transparency", [0, bytes([0, 128, 255])], ids=["one index", "alpha of each index"])
def test_palette_with_transparency_is_composited(transparency: int | bytes) -> None:
    image = Image.new("P", (32, 32), 0)
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.paste(2, (0, 0, 32, 16))
    result = open_image(encoded(image, "PNG", transparency=transparency))
    assert result.getpixel((3, 3)) == (0, 0, 255)
    assert result.getpixel((3, 30)) == (119, 119, 119)


def test_grey_with_transparent_colour_is_composited() -> None:
    result = open_image(encoded(Image.new("L", (32, 32), 7), "PNG", transparency=7))
    assert result.getpixel((0, 0)) == (119, 119, 119)


def test_grey_jpeg_is_read() -> None:
    assert error(open_image(encoded(picture().convert("L"), "JPEG")), picture().convert("L").convert("RGB")) < 3


def test_cmyk_jpeg_is_read_without_adobes_inversion() -> None:
    data = encoded(picture().convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data
    assert error(open_image(data), picture()) < 5


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_picture_is_turned_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(), kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(BytesIO(data))).convert("RGB")
    assert error(open_image(data), upright) == 0


@pytest.mark.parametrize("kind", FORMATS)
def test_embedded_profile_is_converted_to_srgb(kind: str) -> None:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = bytes(profile).replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    swapped = tags.replace(b"s\0R\0G\0B", b"x\0R\0G\0B").replace(b"sRGB", b"xRGB")
    data = encoded(Image.new("RGB", (32, 32), (255, 0, 0)), kind, icc_profile=swapped)
    red, green, _ = open_image(data).getpixel((9, 9))
    assert (green > 200, red < 60) == (True, True)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("profile", [b"no profile", bytes(300), bytes(range(256)) * 40], ids=["text", "zeros", "noise"])
def test_broken_profile_is_ignored(kind: str, profile: bytes) -> None:
    assert error(open_image(encoded(picture(), kind, icc_profile=profile)), picture()) < 4


def test_profile_of_another_colour_space_is_ignored() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert error(open_image(encoded(picture(), "PNG", icc_profile=lab)), picture()) == 0


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_an_animation_the_first_picture_is_read(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    assert open_image(data).getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [(3000, 1800), (1500, 100), (100, 1500), (1025, 1024)])
def test_large_picture_is_scaled_down_to_the_longest_side_that_is_looked_at(kind: str, size: tuple[int, int]) -> None:
    result = open_image(encoded(picture(*size), kind))
    scale = MAX_SIDE / max(size)
    assert result.size == (round(size[0] * scale), round(size[1] * scale))
    assert error(result, picture(*size).resize(result.size, Image.Resampling.BICUBIC, reducing_gap=2.0)) < 4


def test_name_of_the_file_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "really a png.jpg"
    path.write_bytes(encoded(picture(), "PNG"))
    assert error(open_image(path), picture()) == 0


def test_progressive_jpeg_is_read() -> None:
    assert error(open_image(encoded(picture(), "JPEG", progressive=True)), picture()) < 4


def test_threads_can_read_pictures_at_once() -> None:
    data = {kind: encoded(picture(), kind) for kind in FORMATS}
    failures: list[BaseException] = []

    def read() -> None:
        try:
            for kind in FORMATS * 5:
                open_image(data[kind])
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_pillows_global_limits_are_left_alone() -> None:
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    open_image(encoded(picture(), "PNG"))
    after = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    assert after == before


# --- what is refused, and how --------------------------------------------------------------------------------------


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no picture at .*nowhere\.png"):
        open_image(tmp_path / "nowhere.png")


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a folder"):
        open_image(tmp_path)


def test_device_is_refused() -> None:
    with pytest.raises(ImageError, match="no picture at /dev/zero"):
        open_image("/dev/zero")


@pytest.mark.parametrize("path", ["a\0b.png", "x" * 5000 + ".png"])
def test_impossible_path_is_refused(path: str) -> None:
    with pytest.raises(ImageError, match=r"cannot be read|no picture at"):
        open_image(path)


def test_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match="empty"):
        open_image(tmp_path / "empty.png")


def test_file_over_the_limit_is_refused_without_reading_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.write(encoded(picture(), "PNG"))
        file.truncate(MAX_BYTES * 1000)  # a sparse file
    with pytest.raises(ImageError, match="more than 30 MiB"):
        open_image(path)


OTHER_FILES = {
    "renamed.gif": ("a GIF", encoded(picture(), "GIF")),
    "renamed.bmp": ("a BMP", encoded(picture(), "BMP")),
    "renamed.tif": ("a TIFF", encoded(picture(), "TIFF")),
    "renamed.pdf": ("a PDF", encoded(picture(), "PDF")),
    "renamed.avif": ("an AVIF", encoded(picture(), "AVIF")),
    "renamed.heic": ("a HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)),
    "renamed.mp4": ("a film", b"\0\0\0\x18ftypisom\0\0\2\0" + bytes(64)),
    "renamed.svg": ("an SVG", b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"></svg>'),
    "renamed.zip": ("a ZIP", b"PK\x03\x04" + bytes(60)),
    "renamed.txt": ("text", b"just some text"),
    "renamed.html": ("text", b"<!DOCTYPE html><html><script>alert(1)</script></html>"),
    "renamed.eps": ("", b"%!PS-Adobe-3.0 EPSF-3.0\n"),
    "renamed.ico": ("", encoded(picture(), "ICO")),
    "renamed.jp2": ("", encoded(picture(), "JPEG2000")),
    "renamed.wav": ("", b"RIFF\x24\0\0\0WAVEfmt " + bytes(32)),
    "program": ("", b"\x7fELF" + bytes(60)),
    "noise": ("", bytes(range(200, 256)) * 3),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_other_files_are_refused_by_what_they_are_whatever_their_name(name: str, tmp_path: Path) -> None:
    kind, data = OTHER_FILES[name]
    path = tmp_path / "picture.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=f"looks like {kind}.*use a JPEG, PNG or WebP"):
        open_image(path)


@pytest.mark.parametrize("size", [(15, 100), (100, 15), (1, 1)])
def test_tiny_picture_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=f"{size[0]} × {size[1]} pixels; each side needs at least 16"):
        open_image(encoded(Image.new("RGB", size), "PNG"))


def test_smallest_picture_is_read() -> None:
    assert open_image(encoded(picture(16, 16), "PNG")).size == (16, 16)


def test_extreme_strip_is_refused() -> None:
    with pytest.raises(ImageError, match="longer than 20 : 1"):
        open_image(encoded(Image.new("RGB", (2000, 20)), "PNG"))


def resized_header(kind: str, width: int, height: int) -> bytes:
    """A small file whose header promises a huge picture."""
    data = bytearray(encoded(picture(), kind, **({"lossless": True} if kind == "WEBP" else {})))
    if kind == "PNG":
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return bytes(data[:8]) + png_chunk(b"IHDR", header) + bytes(data[33:])
    if kind == "JPEG":
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    else:
        canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        data[12:12] = b"VP8X" + struct.pack("<I", 10) + bytes(4) + canvas
        struct.pack_into("<I", data, 4, len(data) - 8)
    return bytes(data)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [(60_000, 60_000), (65_535, 20_000), (10_000, 9_000)])
def test_bomb_is_refused_by_its_header(kind: str, size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=r"more than 50 megapixels|exceeds limit|not a picture that can be read"):
        open_image(resized_header(kind, *size))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("tenths", range(1, 10))
def test_truncated_picture_is_an_error_and_not_a_grey_rest(kind: str, tenths: int) -> None:
    data = encoded(picture(200, 150), kind)
    with pytest.raises(ImageError, match=r"cut off|holds no|damaged|not a picture that can be read"):
        open_image(data[: len(data) * tenths // 10])


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("length", [1, 2, 3, 4, 8, 11, 12, 13, 16, 20, 24, 30, 33, 40])
def test_header_alone_is_refused(kind: str, length: int) -> None:
    with pytest.raises(ImageError):
        open_image(encoded(picture(), kind)[:length])


def text_bomb(megabytes: int = 40) -> bytes:
    return zlib.compress(bytes(megabytes << 20), 9)


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"zTXt", b"Comment\0\0" + text_bomb()),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + text_bomb()),
        png_chunk(b"iCCP", b"icc\0\0" + text_bomb()),
        png_chunk(b"tEXt", b"no separator"),
        png_chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"),
        png_chunk(b"acTL", struct.pack(">II", 0, 0)),
        png_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)),
        png_chunk(b"pHYs", b"\0"),
        png_chunk(b"gAMA", b""),
        png_chunk(b"teSt", bytes(100_000)),
        png_chunk(b"teSt", b"x") * 2_000,
    ],
    ids=[
        "zTXt bomb",
        "iTXt bomb",
        "iCCP bomb",
        "tEXt",
        "eXIf",
        "acTL 0",
        "acTL 2^31",
        "pHYs",
        "gAMA",
        "private",
        "many",
    ],
)
def test_hostile_metadata_of_a_png_is_never_another_error(chunk: bytes) -> None:
    reads_or_refuses(png_with(chunk))


BROKEN_EXIF = {
    "empty": b"",
    "noise": bytes(range(256)),
    "offset outside": b"MM\0*\xff\xff\xff\xf0",
    "offset to itself": b"II*\0\0\0\0\0" + b"\xff" * 40,
    "65535 entries": b"II*\0\x08\0\0\0\xff\xff" + bytes(30),
    "orientation 99": b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0" + bytes(4),
    "orientation as text": b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\xff\xff\xff\x7f\x08\0\0\0" + bytes(4),
    "thumbnail outside": b"MM\0*\0\0\0\x08\0\1\x02\1\0\4\0\0\0\1\x7f\xff\xff\xff\x7f\xff\xff\xff",
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", BROKEN_EXIF)
def test_broken_exif_is_never_another_error(kind: str, name: str) -> None:
    exif = b"Exif\0\0" + BROKEN_EXIF[name]
    if kind == "JPEG":
        data = jpeg_with((0xE1, exif))
    elif kind == "PNG":
        data = png_with(png_chunk(b"eXIf", exif[6:]))
    else:
        data = encoded(picture(), kind, exif=exif)
    reads_or_refuses(data)


@pytest.mark.parametrize(
    "segment",
    [
        (0xE2, b"MPF\0II*\0" + b"\xff" * 40),
        (0xE2, b"ICC_PROFILE\0\x01\xff" + bytes(20)),
        (0xE2, b"ICC_PROFILE\0"),
        (0xED, b"Photoshop 3.0\x008BIM\x03\xed\xff" + bytes(9)),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<" * 5_000),
        (0xFE, b"<html><script>alert(1)</script></html>"),
    ],
    ids=["MPO", "ICC 1 of 255", "ICC empty", "Photoshop", "XMP", "polyglot with HTML"],
)
def test_hostile_metadata_of_a_jpeg_is_never_another_error(segment: tuple[int, bytes]) -> None:
    reads_or_refuses(jpeg_with(segment))


@pytest.mark.parametrize("tail", [b"<html></html>", b"PK\x03\x04" + bytes(50), b"%PDF-1.7"], ids=["HTML", "ZIP", "PDF"])
@pytest.mark.parametrize("kind", FORMATS)
def test_what_follows_a_picture_is_not_looked_at(kind: str, tail: bytes) -> None:
    assert error(open_image(encoded(picture(), kind) + tail), picture()) < 4


def test_jpeg_of_many_scans_is_never_another_error() -> None:
    data = encoded(picture(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    reads_or_refuses(data[:-2] + data[last:-2] * 500 + data[-2:])


def test_jpeg_with_two_headers_is_refused() -> None:
    header = (0xC0, bytes([8]) + struct.pack(">HH", 9, 9) + bytes([1, 1, 0x11, 0]))
    with pytest.raises(ImageError):
        open_image(jpeg_with(header))


def test_animation_of_many_frames_is_read_by_its_first() -> None:
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(200)]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert error(open_image(data), frames[0]) == 0


# --- laws ----------------------------------------------------------------------------------------------------------

GOOD = {
    **{kind: encoded(picture(), kind) for kind in FORMATS},
    "progressive": encoded(picture(), "JPEG", progressive=True),
    "CMYK": encoded(picture().convert("CMYK"), "JPEG"),
    "palette": encoded(picture().convert("P"), "PNG", transparency=3),
    "interlaced": encoded(picture().convert("RGBA"), "PNG"),
    "lossless": encoded(picture().convert("RGBA"), "WEBP", lossless=True),
    "animated": encoded(picture(), "WEBP", save_all=True, append_images=[picture().transpose(1)]),
}
fuzzed = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def reads_or_refuses(data: bytes) -> None:
    """Anything but a picture or an `ImageError` fails the test."""
    try:
        result = open_image(data)
    except ImageError as refusal:
        assert str(refusal)
    else:
        assert result.mode == "RGB"
        assert max(result.size) <= MAX_SIDE


@fuzzed
@given(
    st.binary(max_size=400), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBPVP8X"])
)
def test_random_bytes_are_never_another_error(body: bytes, start: bytes) -> None:
    reads_or_refuses(start + body)


@fuzzed
@given(
    st.sampled_from(sorted(GOOD)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12),
)
def test_changed_bytes_are_never_another_error(name: str, changes: list[tuple[float, int]]) -> None:
    data = bytearray(GOOD[name])
    for place, value in changes:
        data[int(place * len(data))] = value
    reads_or_refuses(bytes(data))


@fuzzed
@given(st.sampled_from(sorted(GOOD)), st.floats(0, 1), st.floats(0, 1), st.binary(max_size=30))
def test_cut_and_spliced_files_are_never_another_error(name: str, start: float, end: float, middle: bytes) -> None:
    data = GOOD[name]
    first, last = sorted((int(start * len(data)), int(end * len(data))))
    reads_or_refuses(data[:first] + middle + data[last:])


@pytest.mark.parametrize("name", GOOD)
def test_changed_headers_are_never_another_error(name: str) -> None:
    rng = random.Random(name)
    for at in range(4, min(120, len(GOOD[name]))):
        data = bytearray(GOOD[name])
        data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, data[at] ^ (1 << rng.randrange(8))])
        reads_or_refuses(bytes(data))
