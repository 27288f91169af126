"""Around every request: too large a body is refused unread, and one line of log and the metrics tell of it.

What an operator asks is answered here: probes come by address, which is no host name that Django would allow.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase

from melodify_lib import logs
from melodify_lib.image import MAX_BYTES
from web.tracks import operations

log = logging.getLogger("melodify_lib.web")

BODY_MAX_BYTES = MAX_BYTES + 2**17
OPERATIONS = {"/health": operations.health, "/ready": operations.ready, "/metrics": operations.metrics}


class RequestMiddleware:
    """The first of all."""

    def __init__(self, answer: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._answer = answer

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path in OPERATIONS:
            return OPERATIONS[request.path](request)
        since = time.monotonic()
        with logs.tracing(logs.trace_of(request.headers)):
            length = request.META.get("CONTENT_LENGTH") or "0"
            if not length.isdecimal() or int(length) > BODY_MAX_BYTES:
                response: HttpResponseBase = _too_large()
            else:
                response = self._answer(request)
            seconds = time.monotonic() - since
            match = request.resolver_match
            route = match.route if match else "none"
            operations.REQUESTS.labels(route, request.method, response.status_code).inc()
            operations.SECONDS.labels(route).observe(seconds)
            said = {"route": route, "status": response.status_code, "duration_s": round(seconds, 4)}
            log.info("%s %s %d", request.method, route, response.status_code, extra={"fields": said})
        return response


def _too_large() -> JsonResponse:
    said = f"the request is larger than {BODY_MAX_BYTES:,} bytes; scale the picture down"
    body = {"type": "/problems/too-large", "title": "The request is too large", "status": 413, "detail": said}
    return JsonResponse(body, status=413, headers={"Connection": "close"}, content_type="application/problem+json")
