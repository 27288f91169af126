"""Safe picture reading: bytes or a path in, an upright 8-bit sRGB picture out, or an `ImageError`.

The first step of the flow, and the only one that meets a stranger's bytes: three formats, told by
their content; size checked from the header before a pixel is allocated; nothing of the metadata
kept but what the pixels need.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageCms, UnidentifiedImageError

from melodify_lib.errors import ImageError

MAX_BYTES = 30 * 2**20
MAX_PIXELS = 50_000_000
"""A 48-megapixel telephone picture passes; a bomb of a few kilobytes does not."""
MAX_SIDE = 1024
"""Longest side of what is returned, in pixels: no captioner here looks at more."""
MIN_SIDE = 16
MAX_ASPECT = 20

MAX_JPEG_SCANS = 100
"""Encoders write about ten; each is a pass over all pixels."""

_START_OF_SCAN = b"\xff\xda"
_ORIENTATION = 0x0112  # EXIF tag
# Middle grey, L* = 50: what is transparent is to move neither brightness nor colour.
_BACKGROUND = (119, 119, 119)
_TOO_MANY = f"more than {MAX_PIXELS / 1e6:.0f} megapixels; scale it down and try again"
_USE = "use a JPEG, PNG or WebP file"


def read_bytes(source: bytes | Path | str) -> bytes:
    """The bytes of a picture, at most `MAX_BYTES`. Raises `ImageError` for what is no file or too large."""
    if not isinstance(source, bytes):
        path = Path(source)
        try:
            if not path.is_file():
                raise ImageError(f"{path} is a folder; name one picture" if path.is_dir() else f"no picture at {path}")
            with path.open("rb") as file:
                source = file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise ImageError(f"{str(path)!r} cannot be read: {error}") from None
    if not source:
        raise ImageError(f"the picture is empty (0 bytes); {_USE}")
    if len(source) > MAX_BYTES:
        raise ImageError(f"the picture has more than {MAX_BYTES / 2**20:.0f} MiB; scale it down and try again")
    return source


def open_image(source: bytes | Path | str) -> Image.Image:
    """Read a JPEG, PNG or WebP, recognised by its content, as an RGB picture of 8 bits a channel.

    The result is upright (EXIF orientation applied), in sRGB, without transparency or metadata,
    and scaled down to at most `MAX_SIDE` pixels on its long side. Of an animation it is the first
    picture. Raises `ImageError` for everything that is not a whole picture within the limits.
    """
    data = read_bytes(source)
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP"))
    except UnidentifiedImageError:
        raise ImageError(f"not a picture that can be read: it looks like {_looks_like(data)}; {_USE}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"the picture has {_TOO_MANY}") from None
    except Exception as error:  # whatever a parser raises on hostile bytes
        raise ImageError(f"not a picture that can be read ({error}); {_USE}") from None
    _check_size(*image.size)
    if image.format in ("JPEG", "MPO") and data.count(_START_OF_SCAN) > MAX_JPEG_SCANS:
        raise ImageError(f"the JPEG has more than {MAX_JPEG_SCANS} scans; save it again in a picture editor")
    try:
        if image.format == "PNG":
            Image.open(io.BytesIO(data), formats=("PNG",)).verify()  # load() does not look at checksums
        return _decode(image)
    except Exception as error:  # likewise: it means that the file cannot be decoded
        raise ImageError(
            f"the {image.format} is damaged or cut off ({error}); open it in a picture editor and save it again"
        ) from None


def _check_size(width: int, height: int) -> None:
    size = f"the picture is {width} × {height} pixels"
    if width * height > MAX_PIXELS:
        raise ImageError(f"{size}, {_TOO_MANY}")
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{size}; each side needs at least {MIN_SIDE}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{size}, longer than {MAX_ASPECT} : 1; crop it and try again")


def _decode(image: Image.Image) -> Image.Image:
    scale = min(1.0, MAX_SIDE / max(image.size))
    target = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image.draft(None, target)  # a JPEG is then decoded at 1/2, 1/4 or 1/8, never below the target
    image.load()
    profile = image.info.get("icc_profile", b"")
    turn = _TURNS.get(_orientation(image))
    if image.mode == "CMYK" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes every CMYK JPEG for one of Adobe's, which are inverted
    elif image.mode.startswith("I") or image.mode == "F":  # 16-bit greyscale, which Pillow would clip rather than scale
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    elif image.has_transparency_data:
        image = _on_grey(image)
    elif image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    image = _to_srgb(image, profile)
    if turn is not None:
        image = image.transpose(turn)
    image.info = {}
    return image


def _on_grey(image: Image.Image) -> Image.Image:
    """Without transparency, and scaled down first: a layer of 50 megapixels takes 200 MB, and this would need five."""
    image = (image if image.mode == "RGBA" else image.convert("RGBA")).convert("RGBa")
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    ground = Image.new("RGBA", image.size, (*_BACKGROUND, 255))
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where the EXIF block is broken, which leaves the pixels as good as they are."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # hostile bytes: Pillow raises a dozen kinds
        return 1


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """`image` (RGB, L or CMYK) in sRGB; a profile that is broken or of another colour space is ignored."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            spaces = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}
            if source.profile.xcolor_space == spaces[image.mode]:
                srgb = ImageCms.createProfile("sRGB")
                if converted := ImageCms.profileToProfile(image, source, srgb, outputMode="RGB"):
                    return converted
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            pass
    return image.convert("RGB")


_SIGNATURES = (
    (0, b"GIF8", "a GIF"), (0, b"BM", "a BMP"), (0, b"II*\0", "a TIFF"), (0, b"MM\0*", "a TIFF"),
    (4, b"ftypavif", "an AVIF"), (4, b"ftyphei", "a HEIC"), (4, b"ftypmif1", "a HEIC"), (4, b"ftyp", "a film (MP4)"),
    (0, b"%PDF", "a PDF"), (0, b"PK\x03\x04", "a ZIP archive or an office document"),
)  # fmt: skip


def _looks_like(data: bytes) -> str:
    for offset, signature, name in _SIGNATURES:
        if data.startswith(signature, offset):
            return name
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in head:
        return "an SVG drawing"
    return "text" if head.isascii() and head.decode().isprintable() else "no known kind of picture"
