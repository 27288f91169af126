"""What an error is to whoever asked, on a page or by the API; there as problem details (RFC 9457)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied as DjangoDenied
from django.core.exceptions import RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent
from django.http import Http404, JsonResponse, UnreadablePostError
from rest_framework import exceptions, status

from melodify_lib.errors import ImageError, InputError, MelodifyError
from web.tracks.jobs import ConflictError, GoneError, QueueFullError

log = logging.getLogger("melodify_lib.web")

TYPES: dict[type[Exception], tuple[int, str, str]] = {
    GoneError: (404, "not-found", "Not found."),
    ConflictError: (422, "idempotency-key-reused", "The idempotency key was used for another request"),
    ImageError: (422, "picture-refused", "The picture cannot be used"),
    InputError: (400, "invalid", "The request cannot be used"),
    QueueFullError: (503, "busy", "Too much is being done"),
    MelodifyError: (503, "unavailable", "A part of the service does not answer"),
}
"""What is raised → status, type and title."""


def problem(
    status: int, title: str, detail: str, kind: str = "about:blank", headers: dict[str, str] | None = None, **more: Any
) -> JsonResponse:
    """Problem details; `kind` is a URI that stands for all of its kind."""
    body = {"type": kind, "title": title, "status": status, "detail": detail, **more}
    return JsonResponse(body, status=status, headers=headers, content_type="application/problem+json")


@dataclass(frozen=True)
class Refusal:
    """What an error is to whoever asked: the API says it as it stands here, a page in words for visitors."""

    status: int
    kind: str
    title: str
    detail: str
    retry_after: int = 0
    """Seconds after which it is worth another try; 0: waiting does not help."""


def refusal(error: Exception) -> Refusal | None:
    """Of an error that a view raised; None for what is nobody's fault but ours."""
    if isinstance(error, exceptions.APIException):
        wait = int(error.wait or 1) + 1 if isinstance(error, exceptions.Throttled) else 0
        kind = str(error.default_code).replace("_", "-")
        return Refusal(error.status_code, kind, str(error.default_detail), _first(error.detail), wait)
    known = next((TYPES[kind] for kind in type(error).__mro__ if kind in TYPES), None)
    if known is None:
        return None
    if isinstance(error, QueueFullError):
        return Refusal(*known, str(error), error.retry_after)
    if known[0] == status.HTTP_503_SERVICE_UNAVAILABLE:
        log.error("unavailable: %s", error)
        return Refusal(*known, "try again in a minute", 60)
    return Refusal(*known, str(error))


def handler(error: Exception, context: dict[str, Any]) -> JsonResponse | None:
    """What the API answers for an error; None for one of ours."""
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    elif isinstance(error, DjangoDenied):
        error = exceptions.PermissionDenied()
    elif isinstance(error, RequestDataTooBig | TooManyFieldsSent | TooManyFilesSent):
        error = exceptions.ParseError("the request has too many fields, or too long ones")
    elif isinstance(error, UnreadablePostError):
        error = exceptions.ParseError("the request broke off")
    said = refusal(error)
    if said is None:
        return None
    headers = {"Retry-After": str(said.retry_after)} if said.retry_after else {}
    if getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = error.auth_header  # type: ignore[attr-defined]
    more = {"errors": error.detail} if isinstance(error, exceptions.ValidationError) else {}
    return problem(said.status, said.title, said.detail, f"/problems/{said.kind}", headers, **more)


def _first(detail: Any) -> str:
    """The first of a serializer's complaints, with its field."""
    if isinstance(detail, dict) and detail:
        field, said = next(iter(detail.items()))
        return f"{field}: {_first(said)}"
    if isinstance(detail, list) and detail:
        return _first(detail[0])
    return str(detail)
