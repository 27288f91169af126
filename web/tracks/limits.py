"""How much one client may ask for, and how many pictures are read at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest
from PIL.Image import Image
from rest_framework.exceptions import Throttled
from rest_framework.throttling import SimpleRateThrottle

from melodify_lib.image import open_image
from web.tracks import jobs
from web.tracks.models import Track

if TYPE_CHECKING:
    from rest_framework.request import Request
    from rest_framework.views import APIView

READ_WITHIN_S = 15.0
_reading = threading.BoundedSemaphore(1)


class RequestThrottle(SimpleRateThrottle):
    """All requests to the API of one address."""

    scope = "requests"

    def get_rate(self) -> str:
        return f"{settings.CONFIG.requests_per_minute}/min"

    def get_cache_key(self, request: Request, view: APIView) -> str:
        return f"throttle-{self.scope}-{_network(self.get_ident(request))}"


def _network(address: str) -> str:
    """Whom an address stands for: of IPv6 a household has 2**64."""
    try:
        return str(ip_network(f"{address}/64", strict=False)) if ":" in address else address
    except ValueError:
        return address


class SongThrottle(RequestThrottle):
    """Songs of one address, whatever cookies it sends; those that were ordered, not those that were refused."""

    scope = "songs"

    def get_rate(self) -> str:
        return f"{settings.CONFIG.songs_per_hour}/hour"

    def throttle_success(self) -> bool:
        return True  # `order` counts it when it is one

    def count(self, request: Request | HttpRequest) -> None:
        if self.allow_request(request, None):
            super().throttle_success()


def read_picture(upload: UploadedFile) -> Image:
    """`open_image`, for one request at a time: a large picture takes most of a gigabyte while it is read.

    Raises `ImageError`, and `QueueFullError` where too many wait.
    """
    with _turn():
        return open_image(upload.read())


@contextmanager
def _turn() -> Iterator[None]:
    if not _reading.acquire(timeout=READ_WITHIN_S):
        raise jobs.QueueFullError(retry_after=int(READ_WITHIN_S))
    try:
        yield
    finally:
        _reading.release()


def check(request: HttpRequest) -> None:
    """What the throttles do for the API, for a page. Raises `Throttled`."""
    for throttle in (RequestThrottle(), SongThrottle()):
        if not throttle.allow_request(request, None):
            raise Throttled(throttle.wait())


def order(request: Request | HttpRequest, owner: str, options: jobs.Options, **more: Any) -> Track:
    """`jobs.create`, counted as a song of the client where the track is new."""
    track, is_new = jobs.create(owner, options, **more)
    if is_new:
        SongThrottle().count(request)
    return track
