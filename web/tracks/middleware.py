"""Around every request: too large a body is refused unread, and one line of log and the metrics tell of it.

What an operator asks is answered here: probes come by address, which is no host name that Django would allow.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.http.response import HttpResponseBase

from melodify_lib import logs
from melodify_lib.image import MAX_BYTES
from web.tracks import operations
from web.tracks.views import too_large, unavailable

log = logging.getLogger("melodify_lib.web")

BODY_MAX_BYTES = MAX_BYTES + 2**17
_OTHER_MAX_BYTES = 2**17
"""Of what has no picture in it."""
_OPERATIONS = {"/health": operations.health, "/ready": operations.ready, "/metrics": operations.metrics}
"""Answered before anything else looks: whoever watches a container asks it by its address, without HTTPS."""
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class RequestMiddleware:
    """The first of all."""

    def __init__(self, answer: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._answer = answer

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if operation := _OPERATIONS.get(request.path):
            return operation(request)
        since = time.monotonic()
        with logs.tracing(logs.trace_of(request.headers)):
            response = self._answer(request)
            if request.path.startswith("/api/") and not response.has_header("Cache-Control"):
                response["Cache-Control"] = "private, no-store"
            seconds = time.monotonic() - since
            match = request.resolver_match
            route = (match.route or "home") if match else "none"
            method = request.method if request.method in _METHODS else "other"
            operations.REQUESTS.labels(route, method, response.status_code).inc()
            operations.SECONDS.labels(route).observe(seconds)
            said = {"route": route, "status": response.status_code, "duration_s": round(seconds, 4)}
            track = match and (match.kwargs.get("track_id") or match.kwargs.get("pk"))
            labels = {"track": track} if track else {}
            if method == "HEAD" and isinstance(response, HttpResponse):
                _leave_out(response)
            log.info("%s %s %d", method, route, response.status_code, extra={"fields": said, "labels": labels})
        return response

    def process_view(self, request: HttpRequest, *_: object) -> HttpResponseBase | None:
        """Before anything, as the check of a form's token, reads the body; its answer is like any other."""
        length = request.META.get("CONTENT_LENGTH") or "0"
        most = BODY_MAX_BYTES if request.content_type == "multipart/form-data" else _OTHER_MAX_BYTES
        return too_large(request, most) if not length.isdecimal() or int(length) > most else None

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponseBase | None:
        """What is no error of ours: a client that went away in the middle; a database that is away, which passes."""
        if isinstance(error, UnreadablePostError):
            return HttpResponse(status=400)
        if not isinstance(error, OperationalError | InterfaceError):
            return None
        log.error("unavailable: %s", error)
        return unavailable(request)


def _leave_out(response: HttpResponse) -> None:
    """The body that a GET would have; gunicorn would warn of it."""
    response.headers.setdefault("Content-Length", str(len(response.content)))
    response.content = b""
