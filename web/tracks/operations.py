"""What whoever runs the server asks it: does it live, is it ready, how much is it doing."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from datetime import timedelta

from django.conf import settings
from django.db import DatabaseError, transaction
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from melodify_lib.errors import StoreError
from web.tracks import files, tallies
from web.tracks.models import State, Track, Worker

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
REQUESTS = Counter("melodify_web_requests", "Requests answered", ["route", "method", "status"], registry=REGISTRY)
SECONDS = Histogram("melodify_web_request_seconds", "Time to answer a request", ["route"], registry=REGISTRY)
TRACKS = Gauge("melodify_web_tracks", "Tracks by state", ["state"], registry=REGISTRY)
OLDEST = Gauge("melodify_web_oldest_waiting_seconds", "How long the oldest track waits", registry=REGISTRY)
WORKERS = Gauge("melodify_web_workers", "Workers with a recent sign of life", registry=REGISTRY)
REGISTRY.register(tallies.Collector())
BELIEVED_S = 10.0
_succeeded: dict[str, float] = {}
"""When (monotonic) something was written last."""


def workers() -> int:
    """Those with a recent sign of life."""
    since = timezone.now() - timedelta(seconds=settings.CONFIG.lost_after)
    return Worker.objects.filter(heartbeat__gte=since).count()


def health(request: HttpRequest) -> HttpResponse:
    """This process answers."""
    return JsonResponse({"status": "ok"})


def ready(request: HttpRequest) -> HttpResponse:
    """The database and the store can be written, and somebody makes songs."""
    checks = {"database": True, "store": True, "worker": False}
    try:
        _at_times("database", _write_row)
        checks["worker"] = workers() > 0
    except DatabaseError:
        checks["database"] = False
    try:
        _at_times("store", _write_file)
    except StoreError:
        checks["store"] = False
    response = JsonResponse(checks, status=200 if all(checks.values()) else 503)
    response._has_been_logged = True  # while it starts, that is no error
    return response


def _at_times(what: str, check: Callable[[], None]) -> None:
    """What succeeded is believed for `BELIEVED_S`: probes come often, and a bucket costs."""
    if time.monotonic() - _succeeded.get(what, -math.inf) > BELIEVED_S:
        check()
        _succeeded[what] = time.monotonic()


def _write_row() -> None:
    with transaction.atomic():  # nobody else sees it
        row = Worker.objects.create(id=f"ready-{secrets.token_hex(8)}", heartbeat=timezone.now())
        row.delete()


def _write_file() -> None:
    name = f"web/ready/{secrets.token_hex(8)}"
    files.store().put(name, b"ready")
    files.store().delete(name)


def metrics(request: HttpRequest) -> HttpResponse:
    """For Prometheus; with ``Authorization: Bearer`` and WEB_METRICS_TOKEN, which production demands."""
    config = settings.CONFIG
    if config.metrics_token is not None:
        said = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not secrets.compare_digest(said.encode(), config.metrics_token.get_secret_value().encode()):
            return HttpResponse("the Authorization header must have the metrics token", status=401)
    elif config.production:
        return HttpResponse("there is no metrics token (WEB_METRICS_TOKEN)", status=404)
    counts = dict(Track.objects.values_list("state").annotate(Count("id")))
    for state in State:
        TRACKS.labels(state).set(counts.get(state, 0))
    oldest = Track.objects.filter(state=State.QUEUED).order_by("created").first()
    OLDEST.set((timezone.now() - oldest.created).total_seconds() if oldest else 0)
    WORKERS.set(workers())
    return HttpResponse(generate_latest(REGISTRY), content_type=CONTENT_TYPE_LATEST)
