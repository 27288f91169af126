"""What strangers upload: more than 300 files that are no pictures, or too much of one, at a server as it runs."""

from __future__ import annotations

import io
import json
import os
import random
import re
import socket
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image, ImageCms
from webserver import WebServer, web_server

from melodify_lib.image import MAX_BYTES
from web.config import Config

GIGABYTE = 2**30
BOUNDARY = "x7MA4YWxkTrZu0gW"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
Case = tuple[str, bytes, str]
"""A name, the body of the request, and its type."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    free = {"WEB_REQUESTS_PER_MINUTE": 10**6, "WEB_SONGS_PER_HOUR": 10**6, "WEB_WAITING": 1000}
    folder = tmp_path_factory.mktemp("hostile")
    with web_server(folder, MELODIFY_LOG_FORMAT="json", WEB_LOST_AFTER=3, WEB_HEARTBEAT=0.5, **free) as running:
        yield running


def form(image: bytes, name: str = "a.png", kind: str = "image/png", **fields: Any) -> bytes:
    """A multipart body; `name` goes into the header as it is."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'.encode()
        for field, value in {"seconds": 4, **fields}.items()
    ]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
    parts.append(head.encode("utf-8", "surrogateescape") + f"Content-Type: {kind}\r\n\r\n".encode() + image + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(size: tuple[int, int] = (96, 64), mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, data: bytes = b"", more: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """So many zeros, compressed a thousandfold."""
    squeeze = zlib.compressobj(9)
    return b"".join(squeeze.compress(bytes(2**20)) for _ in range(count >> 20)) + squeeze.flush()


def jpeg_of(width: int, height: int, original: bytes) -> bytes:
    """With another size in its header."""
    at = original.index(b"\xff\xc0")
    return original[: at + 5] + struct.pack(">HH", height, width) + original[at + 9 :]


def pictures() -> Iterator[tuple[str, bytes]]:  # noqa: PLR0912, PLR0915 - a list
    """Files that are put into an otherwise good request."""
    whole = {kind: saved(noise(), kind) for kind in ("JPEG", "PNG", "WEBP")}
    whole["progressive"] = saved(noise(), "JPEG", progressive=True)
    for kind, data in whole.items():
        for share in range(30):
            yield f"{kind} cut at {share}/30", data[: len(data) * share // 30]
        for seed in range(12):
            rng = random.Random(f"{kind}{seed}")
            damaged = bytearray(data)
            for _ in range(8):
                damaged[rng.randrange(len(data))] = rng.randrange(256)
            yield f"{kind} damaged {seed}", bytes(damaged)
    bomb = zeros(64 << 20)
    yield "PNG bomb", png(50_000, 50_000, data=bomb)
    yield "PNG bomb within the limit", png(7000, 7000, data=bomb)
    yield "PNG with too much data", png(32, 32, data=bomb)
    yield "PNG text bomb", png(32, 32, data=zlib.compress(bytes(32 * 97)), more=chunk(b"zTXt", b"a\0\0" + bomb) * 8)
    yield "PNG ICC bomb", png(32, 32, data=zlib.compress(bytes(32 * 97)), more=chunk(b"iCCP", b"a\0\0" + bomb))
    yield "PNG EXIF bomb", png(32, 32, data=zlib.compress(bytes(32 * 97)), more=chunk(b"eXIf", bytes(4 << 20)))
    yield "PNG of many chunks", png(32, 32, data=zlib.compress(bytes(32 * 97)), more=chunk(b"tEXt", b"a\0b") * 100_000)
    yield "WebP bomb", saved(Image.new("RGB", (16_000, 3000)), "WEBP", quality=1, method=0)
    yield "WebP animation", saved(noise(), "WEBP", save_all=True, append_images=[noise()] * 50)
    yield "JPEG bomb", jpeg_of(65_000, 65_000, whole["JPEG"])
    yield "JPEG that ends early", jpeg_of(7000, 7000, whole["JPEG"])
    yield "JPEG of many scans", whole["progressive"] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" * 5000
    for width, height in [(0, 0), (0, 9), (1, 1), (2**31 - 1, 1), (1, 2**31 - 1), (2**31, 2**31), (2**32 - 1,) * 2,
                          (15, 400), (16, 400), (100_000, 500)]:  # fmt: skip
        yield f"PNG that says {width} × {height}", png(width, height, data=zlib.compress(bytes(1000)))
    for width, height in [(0, 0), (0, 9), (65_535, 1), (1, 65_535), (65_535, 65_535)]:
        yield f"JPEG that says {width} × {height}", jpeg_of(width, height, whole["JPEG"])
    for depth, colour in [(1, 0), (2, 0), (4, 0), (16, 0), (16, 2), (16, 4), (16, 6), (8, 4), (8, 3), (3, 2), (8, 7)]:
        yield f"PNG of depth {depth}, colour {colour}", png(40, 40, depth=depth, colour=colour, data=zeros(1 << 20))
    for mode in ("1", "L", "LA", "P", "PA", "RGBA", "I", "I;16"):
        image = noise(mode="L").convert("I").convert("I;16") if mode == "I;16" else None
        try:
            yield f"PNG of mode {mode}", saved(image or noise(mode="L" if mode == "I" else "RGB").convert(mode), "PNG")
        except OSError:  # which PNG does not have
            continue
    yield "CMYK", saved(noise(mode="CMYK"), "JPEG")
    yield "YCCK", saved(noise(mode="CMYK"), "JPEG").replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\x02")
    yield "grey JPEG", saved(noise(mode="L"), "JPEG")
    yield "palette with alpha", saved(noise(mode="P"), "PNG", transparency=bytes(range(256)))
    for name, exif in {
        "broken": b"Exif\0\0MM\0*\0\0\xff\xff", "random": b"Exif\0\0" + os.urandom(2000), "empty": b"Exif\0\0",
        "of itself": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\x08",
        "of many tags": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\x7f\xff\xff\xff\0\0\0\0" * 5000,
        "of an odd turn": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x05\0\0\0\x01\0\0\0\x00\0\0\0\0",
    }.items():  # fmt: skip
        yield f"EXIF {name}", saved(noise(), "JPEG", exif=exif)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for name, profile in {"broken": b"x" * 500, "cut": srgb[:200], "LAB": lab, "large": srgb + bytes(8 << 20)}.items():
        yield f"ICC {name}", saved(noise(), "PNG", icc_profile=profile)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../../etc/passwd", "x")
    html = b"<html><script>alert(1)</script></html>"
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1/"/></svg>'
    yield "JPEG and HTML", whole["JPEG"] + html
    yield "JPEG with HTML inside", saved(noise(), "JPEG", comment=html)
    yield "PNG and ZIP", whole["PNG"] + archive.getvalue()
    yield "GIF and JPEG", b"GIF89a" + whole["JPEG"]
    yield "HTML and JPEG", html + whole["JPEG"]
    yield "two PNGs", whole["PNG"] * 2
    for kind in (
        "GIF",
        "TIFF",
        "BMP",
        "ICO",
        "PPM",
        "TGA",
        "PCX",
        "JPEG2000",
        "PDF",
        "EPS",
        "DDS",
        "SGI",
        "IM",
        "AVIF",
    ):
        try:
            yield f"saved as {kind}", saved(noise(), kind)
        except Exception as error:  # this Pillow cannot write it
            yield f"not saved as {kind}", f"{kind}: {error}".encode()
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n"
    for name, data in {
        "SVG": svg, "SVG bomb": b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + svg, "HTML": html, "PDF": b"%PDF-1.7\n" * 99,
        "EPS": eps, "HEIC": b"\0\0\0\x18ftypheic" + bytes(500), "MP4": b"\0\0\0\x18ftypisom" + bytes(500),
        "EXE": b"MZ" + bytes(500), "ELF": b"\x7fELF" + bytes(500), "ZIP": archive.getvalue(), "text": b"hello",
        "empty": b"", "a byte": b"\xff", "zeros": bytes(2**20), "noise": os.urandom(2**20), "shell": b"#!/bin/sh\nrm x",
        "PHP": b"\xff\xd8\xff<?php echo 1;", "large text": b"a" * (5 << 20), "MVG": b"push graphic-context\nimage over",
    }.items():  # fmt: skip
        yield name, data


def cases() -> Iterator[Case]:
    for name, data in pictures():
        yield name, form(data), MULTIPART
    good = saved(noise(), "PNG")
    for name in ["../../../etc/passwd", "/etc/passwd", "..\\..\\x.png", "a\0.png", "a\nb.png", "a\r\nX-Evil: 1\r\n.png",
                 "x" * 5000, "\u202egnp.exe", "%2e%2e%2fx", "CON", ".", "", "a;b.png", 'a"b.png', "안녕.png",
                 "\udcff\udcfe.png", "${jndi:ldap://x}", "'; DROP TABLE track; --", "a.png/", "é" * 300]:  # fmt: skip
        yield f"named {name[:30]!r}", form(good, name), MULTIPART
    for kind in ["text/html", "image/svg+xml", "", "x", "a/b; charset=\xe9", "multipart/mixed", "application/json"]:
        yield f"part of type {kind!r}", form(good, kind=kind), MULTIPART
    for kind in ["image/png", "text/plain", "application/json", "application/x-www-form-urlencoded", "",
                 "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=other",
                 "multipart/mixed; boundary=x",
                 f"multipart/form-data; boundary={'x' * 500}", 'multipart/form-data; boundary="\x01"']:  # fmt: skip
        yield f"request of type {kind[:40]!r}", form(good), kind
    for field in ("seconds", "seed", "genre", "musician", "other"):
        yield f"megabytes of {field}", form(good, **{field: "x" * (2 << 20)}), MULTIPART
        yield f"NUL in {field}", form(good, **{field: "a\0b"}), MULTIPART
    body = form(good)
    end = f"--{BOUNDARY}--\r\n".encode()
    yield "many fields", form(good, **{f"f{n}": n for n in range(3000)}), MULTIPART
    yield "many files", body[: -len(end)] * 60 + end, MULTIPART
    yield "two pictures", body[: -len(end)] * 2 + end, MULTIPART
    yield "no end", body[: -len(end)], MULTIPART
    yield "cut", body[: len(body) // 2], MULTIPART
    yield "only the end", end, MULTIPART
    yield "nothing", b"", MULTIPART
    yield "headers without end", f"--{BOUNDARY}\r\n".encode() + b"X: y\r\n" * 5000, MULTIPART
    yield "a long header", f"--{BOUNDARY}\r\nX: ".encode() + b"y" * (1 << 20) + b"\r\n\r\nx\r\n" + end, MULTIPART
    encoded = body.replace(b"Content-Type: image/png", b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64")
    yield "base64 that is none", encoded, MULTIPART
    yield "too large a picture", form(bytes(MAX_BYTES + 1)), MULTIPART
    yield "too large a request", bytes(MAX_BYTES + (1 << 20)), MULTIPART
    for seed in range(20):
        rng = random.Random(seed)
        damaged = bytearray(body)
        for _ in range(6):
            damaged[rng.randrange(300)] = rng.randrange(256)
        yield f"form damaged {seed}", bytes(damaged), MULTIPART


def send(server: WebServer, case: Case) -> tuple[str, int, dict[str, str], bytes]:
    name, body, kind = case
    connection = HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        connection.putrequest("POST", "/api/v1/tracks/")
        connection.putheader("Content-Length", str(len(body)))
        connection.putheader("Content-Type", kind.encode("latin-1", "replace").replace(b"\x01", b" "))
        connection.endheaders()
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent
            connection.send(body)
        answer = connection.getresponse()
        headers = {key.lower(): value for key, value in answer.getheaders()}
        return name, answer.status, headers, answer.read()
    finally:
        connection.close()


def peaks(server: WebServer) -> dict[int, int]:
    """The most memory (bytes) that each process ever had at once."""
    found = {}
    for process in server.tree():
        status = Path(f"/proc/{process.pid}/status")
        if not status.exists():
            pytest.skip("peaks of memory are read from /proc")
        found[process.pid] = int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) << 10  # type: ignore[index]
    return found


def delete(server: WebServer, token: str) -> None:
    """All that belongs to it."""
    headers = {"Authorization": f"Bearer {token}"}
    for track in requests.get(server.api, headers=headers, timeout=60).json()["results"]:
        assert requests.delete(f"{server.api}{track['id']}/", headers=headers, timeout=60).status_code == 204


def test_hostile_uploads_break_nothing_and_leave_nothing(server: WebServer) -> None:
    before = [process.pid for process in server.tree()]
    hostile = list(cases())
    assert len(hostile) >= 300 and len({name for name, _, _ in hostile}) == len(hostile)
    random.Random(1).shuffle(hostile)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda case: send(server, case), hostile))
    for name, status, headers, body in answers:
        assert status < 500 or (status == 503 and int(headers["retry-after"]) > 0), (name, status, body[:300])
        assert headers["content-type"] in ("application/json", "application/problem+json"), (name, headers)
    accepted = [json.loads(body) for _, status, _, body in answers if status == 202]
    ids = {one["track"]["id"] for one in accepted}
    assert 20 < len(ids) < len(hostile) / 2
    assert {path.parent.name for path in server.stored()} == ids
    for one in accepted:
        delete(server, one["token"])
    server.wait_for(lambda: not server.stored() and not list((server.folder / "tmp").rglob("*")))
    assert [process.pid for process in server.tree()] == before, server.log()[-3000:]
    assert not [line for line in server.lines() if line["severity"] in ("ERROR", "CRITICAL")]
    assert max(peaks(server).values()) < GIGABYTE, peaks(server)


def large_pictures() -> Iterator[tuple[str, Callable[[], bytes]]]:
    width, height = 8660, 5773  # 50 megapixels

    def deep() -> bytes:
        row = b"\0" + os.urandom(800) * 87
        squeeze = zlib.compressobj(1)
        lines = b"".join(squeeze.compress(row[: 1 + width * 8]) for _ in range(height)) + squeeze.flush()
        return png(width, height, depth=16, colour=6, data=lines)

    def clear() -> bytes:
        return saved(Image.new("RGBA", (width, height), (9, 8, 7, 100)), "WEBP", lossless=True, method=0)

    yield "PNG of 16 bits with alpha", deep
    yield "WebP with alpha", clear


@pytest.mark.parametrize(("name", "made"), list(large_pictures()), ids=lambda one: one if isinstance(one, str) else "")
def test_the_largest_pictures_fit_into_a_gigabyte(name: str, made: Callable[[], bytes], server: WebServer) -> None:
    _, status, _, body = send(server, (name, form(made()), MULTIPART))
    assert status == 202, body
    track, token = json.loads(body)["track"]["id"], json.loads(body)["token"]
    delete(server, token)
    assert track and max(peaks(server).values()) < GIGABYTE, peaks(server)


def test_where_a_picture_was_taken_is_kept_nowhere(server: WebServer) -> None:
    mark = b"SECRETPLACE"
    exif = Image.Exif()
    exif[0x010E] = exif[0x9286] = mark.decode()
    exif.get_ifd(0x8825).update({1: "N", 2: (51.5, 30.0, 26.0), 0x1D: mark.decode()})
    picture = saved(noise((1200, 900)), "JPEG", exif=exif, comment=mark, xmp=b"<x:xmpmeta>" + mark + b"</x:xmpmeta>")
    assert picture.count(mark) >= 4
    answer = server.order(picture, seconds=4).json()
    track, token = answer["track"]["id"], answer["token"]
    server.wait_for(lambda: server.track(track, token)["state"] == "done")
    kept = [path for path in server.stored() if path.parent.name == track]
    assert {path.name for path in kept} >= {"picture.png", "preview.webp", "track.wav", "track.mp3", "card.json"}
    headers = {"Authorization": f"Bearer {token}"}
    served = [
        requests.get(address, headers=headers, timeout=30) for address in server.track(track, token)["files"].values()
    ]
    assert len(served) == 5 and all(one.status_code == 200 for one in served)
    for name, data in [(path.name, path.read_bytes()) for path in kept] + [(one.url, one.content) for one in served]:
        assert mark not in data, name
        if name.endswith((".png", ".webp")):
            image = Image.open(io.BytesIO(data))
            assert not image.getexif() and not {"exif", "xmp", "comment", "icc_profile"} & set(image.info), name
    everything = b"".join(path.read_bytes() for path in server.folder.rglob("*") if path.is_file())
    assert mark not in everything


def test_a_body_that_is_too_large_is_refused_before_it_comes(server: WebServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        head = f"Host: localhost\r\nContent-Type: {MULTIPART}\r\nContent-Length: {10**9}\r\n\r\n"
        connection.sendall(f"POST /api/v1/tracks/ HTTP/1.1\r\n{head}".encode())
        answer = HTTPResponse(connection)
        answer.begin()
        assert answer.status == 413 and json.loads(answer.read())["status"] == 413


HALF_HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
HALF_BODY = (
    f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: {MULTIPART}\r\nContent-Length: 5000000\r\n\r\n"
    f"--{BOUNDARY}\r\n"
).encode() + b'Content-Disposition: form-data; name="image"; filename="'
WHOLE = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def song(server: WebServer) -> bytes:
    """A request for a file of 5 MB, more than a system keeps of its own accord."""
    answer = server.order(saved(noise(), "PNG"), seconds=30).json()
    track, token = answer["track"]["id"], answer["token"]
    server.wait_for(lambda: server.track(track, token)["state"] == "done")
    path = f"/api/v1/tracks/{track}/files/track.wav"
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n".encode()


def narrow(server: WebServer) -> socket.socket:
    """A connection whose own system keeps little of what is sent to it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(5)
    connection.connect(("127.0.0.1", server.port))
    return connection


@pytest.mark.parametrize(
    ("begun", "drip"),
    [(HALF_BODY, b"x"), (HALF_HEAD, b"x"), (HALF_BODY, b""), (b"", b""), (WHOLE, b""), (None, b"")],
    ids=["body drips", "head drips", "body ends", "nothing comes", "answer is not read", "file is sipped"],
)
def test_slow_clients_who_come_back_hold_nobody_up(
    begun: bytes | None, drip: bytes, server: WebServer, song: bytes
) -> None:
    begun, sip = (song + b"\r\n", 1) if begun is None else (begun, 1000)
    count, said = 2 * Config.load().threads, len(server.lines())
    over = threading.Event()

    def be_slow(share: int) -> int:
        """One thread's part of the sockets; how often they were connected anew."""
        mine: list[socket.socket | None] = [None] * share
        again = -share
        while not over.is_set():
            for number in range(share):
                try:
                    if (connection := mine[number]) is None:
                        new = mine[number] = narrow(server)
                        new.sendall(begun)
                        new.setblocking(False)
                        again += 1
                    elif drip:
                        connection.send(drip)
                    elif connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or not connection.recv(sip):
                        raise ConnectionResetError
                except BlockingIOError:
                    continue
                except OSError:
                    if (broken := mine[number]) is not None:
                        broken.close()
                    mine[number] = None
            over.wait(0.5)
        for left in filter(None, mine):
            left.close()
        return again

    longest = 0.0
    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(be_slow, count // 4) for _ in range(4)]
        try:
            ends = time.monotonic() + 18  # longer than the 10 s that a head has
            while time.monotonic() < ends:
                time.sleep(0.3)
                for path in ("/health", "/"):
                    began = time.monotonic()
                    assert requests.get(server.url + path, timeout=60).status_code == 200
                    longest = max(longest, time.monotonic() - began)
            began = time.monotonic()
            answer = server.order(saved(noise((900, 600)), "PNG"), seconds=4)  # an upload that a thread has to read
            uploaded = time.monotonic() - began
        finally:
            over.set()
    assert answer.status_code == 202
    delete(server, answer.json()["token"])
    assert longest < 2 and uploaded < 20, (longest, uploaded)
    assert all(one.result() > 0 for one in slow)
    assert not [line for line in server.lines()[said:] if line["severity"] in ("ERROR", "CRITICAL")]


def test_who_reads_slowly_gets_all_of_it_and_who_stops_is_cut_off(server: WebServer, song: bytes) -> None:
    """At 16 kB/s, which takes longer than any limit without what was read."""
    with narrow(server) as reader, narrow(server) as other:
        for connection in (reader, other):
            connection.sendall(song + b"Range: bytes=0-499999\r\nConnection: close\r\n\r\n")
        began, read = time.monotonic(), []
        while data := reader.recv(4096):
            read.append(data)
            time.sleep(0.25)
        head, _, body = b"".join(read).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 206") and len(body) == 500_000 and time.monotonic() - began > 15
        left = 0
        with suppress(ConnectionResetError):
            while data := other.recv(2**16):
                left += len(data)
        assert left < 500_000


def test_a_slow_upload_of_a_large_picture_arrives_while_others_drip(server: WebServer) -> None:
    """At 100 kB/s; of 4.2 MB, which take longer than any limit without what was received."""
    body = form(png(32, 32, data=zlib.compress(bytes(32 * 97)), more=chunk(b"teSt", bytes(4_200_000))))
    head = f"POST /api/v1/tracks/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: {MULTIPART}\r\n"
    others = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(70)]
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        for other in others:
            other.sendall(HALF_BODY)
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        for at in range(0, len(body), 25_000):
            connection.sendall(body[at : at + 25_000])
            time.sleep(0.25)
        answer = HTTPResponse(connection)
        answer.begin()
        said = json.loads(answer.read())
    for other in others:
        other.close()
    assert answer.status == 202, said
    delete(server, said["token"])


def test_a_log_tells_a_tracks_whole_way_and_no_secret(server: WebServer) -> None:
    picture = saved(noise(), "PNG")
    session = requests.Session()
    page = session.get(server.url, timeout=30)
    answer = server.order(picture, seconds=4).json()
    track, token = answer["track"]["id"], answer["token"]
    server.wait_for(lambda: server.track(track, token)["state"] == "done")
    key = (server.folder / "web" / "secret-key").read_text()
    said = server.log()
    assert page.status_code == 200
    assert token not in said and key not in said and "csrftoken" not in said and "sessionid" not in said
    server.wait_for(lambda: any(line["message"] == "done" for line in way(server, track)))
    messages = [line["message"] for line in way(server, track)]
    assert messages[0] == "queued" and messages[-1] == "done"
    assert [one.split()[0] for one in messages[1:-1]] == ["caption", "describe", "play"]
    labels = [line.get("logging.googleapis.com/labels", {}) for line in server.lines()]
    asked = [line for line, label in zip(server.lines(), labels, strict=True) if label.get("track") == track]
    assert any(line["message"].startswith("GET api/v1/tracks/") for line in asked)


def way(server: WebServer, track: str) -> list[dict[str, Any]]:
    """Lines of its trace."""
    return [line for line in server.lines() if line.get("logging.googleapis.com/trace") == track]
