"""A track's files in the project's store, under ``web/<id>/``, and how they reach a browser."""

from __future__ import annotations

import io
import os
import re
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from PIL import Image
from werkzeug.http import parse_etags
from whitenoise.responders import SlicedFile

from melodify_lib.errors import StoreError
from melodify_lib.settings import Settings
from melodify_lib.store import Store, open_store
from web.tracks.models import Track

PIPELINE = "pipeline"
"""Where a pipeline stores a track's song, so that it goes with the track whatever happens."""
PICTURE, PREVIEW = "picture.png", "preview.webp"
PREVIEW_SIDE = 720
LINK_LASTS = timedelta(minutes=10)
TYPES = {
    "preview.webp": "image/webp",
    "track.mp3": "audio/mpeg",
    "track.wav": "audio/wav",
    "track.mid": "audio/midi",
    "card.json": "application/json",
}
"""What a browser may ask for. The picture that the music is made from is not among them."""
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def store() -> Store:
    return _opened(Settings.load())


@lru_cache(maxsize=1)
def _opened(settings: Settings) -> Store:
    """Opened once: a bucket's client has connections, and a token that it fetched."""
    return open_store(settings)


def prefix(track_id: str) -> str:
    return f"web/{track_id}/"


def put_picture(track_id: str, picture: Image.Image) -> None:
    """Keep a picture that was read by `melodify_lib.image.open_image`: its pixels and nothing else."""
    where, kept = store(), prefix(track_id)
    where.put(kept + PICTURE, encoded(picture, "PNG", compress_level=3))
    preview = picture.copy()
    preview.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), reducing_gap=2)
    where.put(kept + PREVIEW, encoded(preview, "WEBP", quality=80))


def preview_size(track_id: str) -> tuple[int, int]:
    """Width and height, so that a page keeps the room before the picture is there."""
    try:
        return _preview_size(track_id)
    except (StoreError, OSError):  # deleted a moment ago
        return (4, 3)


@lru_cache(maxsize=4096)
def _preview_size(track_id: str) -> tuple[int, int]:
    with Image.open(io.BytesIO(store().get(prefix(track_id) + PREVIEW))) as picture:
        return picture.size


def copy_picture(source: str, target: str) -> None:
    """Give a track the picture of another. Raises `StoreError` where that has none any more."""
    where = store()
    for name in (PICTURE, PREVIEW):
        where.put(prefix(target) + name, where.get(prefix(source) + name))


def delete_pipeline(track_id: str) -> None:
    """What a pipeline stored of a song that the track has now."""
    store().delete_all(prefix(track_id) + PIPELINE)


def delete(track_id: str) -> None:
    """All files of a track."""
    store().delete_all(prefix(track_id).rstrip("/"))


def names(track: Track) -> list[str]:
    """Of the files that can be asked for."""
    made = ["track.mp3", *track.card["files"], "card.json"] if track.card else []
    return [name for name in (PREVIEW, *made) if name in TYPES]


def response(request: HttpRequest, track: Track, name: str) -> HttpResponseBase:
    """A file of a track, in ranges too (RFC 9110, 14): from a folder, or by a link to the bucket, good for minutes."""
    if name not in names(track):
        raise Http404
    download_as = _download_name(track, name) if "download" in request.GET else ""
    try:
        address = urlsplit(store().link(prefix(track.id) + name, download_as=download_as, lasts=LINK_LASTS))
        if address.scheme != "file":
            return HttpResponseRedirect(address.geturl(), headers={"Cache-Control": "no-store"})
        file = Path(unquote(address.path)).open("rb")  # noqa: SIM115 - the response closes it
    except (StoreError, OSError):  # deleted a moment ago
        raise Http404 from None
    size = os.fstat(file.fileno()).st_size
    tag = f"{track.id}-{name}"  # a file never changes
    etag = f'"{tag}"'
    headers = {
        "Cache-Control": "private, no-cache",  # asked for again each time, so that what was deleted is gone
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Accept-Ranges": "bytes",
        "ETag": etag,
    }
    if download_as:
        headers["Content-Disposition"] = f'attachment; filename="{download_as}"'
    if parse_etags(request.headers.get("If-None-Match")).contains_weak(tag):
        file.close()
        return HttpResponse(status=304, headers={name: headers[name] for name in ("ETag", "Cache-Control")})
    part, status = range(size), 200
    asked = _asked(request.headers.get("Range", ""), size)
    if asked is not None and request.headers.get("If-Range", etag) == etag:
        if not asked:
            file.close()
            return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
        part, status = asked, 206
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    headers["Content-Length"] = str(len(part))
    if request.method == "HEAD":
        file.close()
        return HttpResponse(status=status, headers=headers, content_type=TYPES[name])
    body = _Part(file, part.start, part.stop - 1)
    return FileResponse(body, status=status, headers=headers, content_type=TYPES[name])


class _Part(SlicedFile):
    """From where it stands the system can send the file itself, so that no thread waits for who reads it."""

    def fileno(self) -> int:
        return int(self.fileobj.fileno())


def _asked(said: str, size: int) -> range | None:
    """The bytes of `size` that a Range header asks for, maybe none of them; None where it cannot be followed.

    Of several parts the whole may be sent, and is.
    """
    match = _RANGE.fullmatch(said)
    if match is None:
        return None
    first, last = match.groups()
    if not first:
        return range(max(size - int(last), 0), size) if last else None
    if last and int(last) < int(first):
        return None
    return range(min(int(first), size), min(int(last) + 1, size) if last else size)


def _download_name(track: Track, name: str) -> str:
    stem, suffix = Path(name).stem, Path(name).suffix
    genre = track.card["description"]["genre"].replace("&", "n") if track.card else stem
    return f"melodify-{genre}-{track.id[:6]}{suffix}"


def encoded(picture: Image.Image, form: str, **options: int) -> bytes:
    """A picture as the bytes of a file; it has no metadata that its `info` does not."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()
