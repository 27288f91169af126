"""What may happen to a track's row, and when.

    new ──▶ queued ──▶ running ──▶ done
             ▲   │        │  └────▶ failed
             └───┼────────┘ (worker lost, or stopped)
                 └──────────┴─────▶ cancelled            any ──▶ deleted, then gone

The row is the truth, not the task queue: a task only says which row may be worth a look. A worker claims a row and
writes only while the claim is its own, so a row is made once, however many tasks and workers there are; whoever finds
a claim without a sign of life (`reap`) hands the row on. All changes are single conditional updates.
"""

from __future__ import annotations

import json
import logging
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone
from PIL.Image import Image

from melodify_lib import logs
from melodify_lib.errors import BusyError, InputError, StoreError
from melodify_lib.nouns import sha256
from web.tracks import files, tallies
from web.tracks.models import UNDER_WAY, Fault, Stage, State, Track

log = logging.getLogger("melodify_lib.web")


@dataclass(frozen=True)
class Options:
    """What a visitor asks for, beside the picture."""

    seconds: float
    seed: int
    genre: str
    musician: str
    given: dict[str, Any] | None = None


class ConflictError(InputError):
    """The same idempotency key was used for something else."""


class GoneError(InputError):
    """The track that was asked for was deleted a moment ago."""


class QueueFullError(BusyError):
    """As many songs wait as may; `retry_after` seconds are a guess at when one will not."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("many songs are being made just now; try again in a moment")
        self.retry_after = retry_after


def create(
    owner: str,
    options: Options,
    *,
    picture: Image | None = None,
    parent: Track | None = None,
    idempotency_key: str = "",
) -> tuple[Track, bool]:
    """A queued track for a picture, or for that of `parent`; and whether it is new.

    The same key of the same owner is the same track. Raises `ConflictError` where the key was used for something else,
    `GoneError` where the parent is gone, `QueueFullError`, and `StoreError` where the store fails;
    nothing is left then.
    """
    source = sha256(picture.tobytes()) if picture is not None else (parent.id if parent else "")
    fingerprint = sha256(json.dumps([source, asdict(options)], sort_keys=True).encode())
    key = sha256(idempotency_key.encode()) if idempotency_key else None
    with transaction.atomic():
        _wait_for_others()
        if key and (known := Track.objects.filter(owner=owner, idempotency_key=key).first()):
            return _known(known, fingerprint), False
        if _is_full():
            raise QueueFullError(retry_after=5)
        if parent is not None and not Track.objects.select_for_update().filter(id=parent.id, owner=owner).first():
            raise GoneError("the track to remix was deleted")
        track = Track.objects.create(
            owner=owner,
            idempotency_key=key,
            fingerprint=fingerprint,
            parent=parent,
            caption=parent.caption if parent else None,
            **asdict(options),
        )
    with logs.tracing(track.id):
        try:
            if picture is not None:
                files.put_picture(track.id, picture)
            elif parent is not None:
                files.copy_picture(parent.id, track.id)
            with transaction.atomic():
                if _change(track.id, State.NEW, state=State.QUEUED):
                    _enqueue(track.id)
                elif not Track.objects.filter(id=track.id, state=State.CANCELLED).exists():
                    raise StoreError("the track was deleted while it was received")
        except BaseException:
            purge(track.id)
            raise
        log.info("queued", extra={"labels": {"track": track.id}})
    track.refresh_from_db()
    return track, True


def check_room(owner: str, idempotency_key: str = "") -> None:
    """Raise `QueueFullError` as `create` would, which looks again: before the work of reading a picture."""
    key = sha256(idempotency_key.encode())
    if _is_full() and not Track.objects.filter(owner=owner, idempotency_key=key).exists():
        raise QueueFullError(retry_after=5)


def _is_full() -> bool:
    config = settings.CONFIG
    return bool(Track.objects.filter(state__in=UNDER_WAY).count() >= config.workers + config.waiting)


def _known(track: Track, fingerprint: str) -> Track:
    if track.fingerprint != fingerprint:
        raise ConflictError("this Idempotency-Key was used for another request; send a new one")
    return track


def _wait_for_others() -> None:
    """One order at a time looks for its key and for room, until the end of the transaction."""
    if connection.vendor == "postgresql":  # SQLite has one writer anyway
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [0x6D656C6F])


def _enqueue(track_id: str) -> None:
    from web.tracks.tasks import make

    make.enqueue(track_id)


def _change(track_id: str, *states: str, **changes: Any) -> bool:
    """Change the row if it is in one of the states."""
    return bool(Track.objects.filter(id=track_id, state__in=states).update(**changes))


# What a worker does.


def claim(track_id: str) -> Track | None:
    """The row, to be made by whoever holds its `claim`; None where there is nothing to do any more."""
    token, now = secrets.token_hex(16), timezone.now()
    taken = _change(
        track_id,
        State.QUEUED,
        state=State.RUNNING,
        claim=token,
        heartbeat=now,
        started=now,
        attempt=F("attempt") + 1,
        stage="",
        percent=0,
    )
    return Track.objects.filter(id=track_id, claim=token).first() if taken else None


def beat(track: Track) -> bool:
    """A sign of life; False where the claim is lost: the track was cancelled, deleted, or handed on."""
    return _of_claim(track, heartbeat=timezone.now())


def progress(track: Track, stage: Stage, percent: int, **found: Any) -> bool:
    """How far it is, and what was found on the way (`caption`, `description`). False where the claim is lost."""
    return _of_claim(track, heartbeat=timezone.now(), stage=stage, percent=percent, **found)


def finish(track: Track, **made: Any) -> bool:
    """Done; its files are in the store. False where the claim is lost."""
    return _end(_claimed(track), State.DONE, since=track.started, percent=100, error="", **made)


def fail(track: Track, fault: Fault, reason: str) -> bool:
    """It cannot be made, for a reason that the visitor is told."""
    return _end(_claimed(track), State.FAILED, fault, error=reason)


def _end(rows: QuerySet[Track], state: State, fault: str = "", since: datetime | None = None, **changes: Any) -> bool:
    """The end of a song, if its row is still among `rows`; it is counted once."""
    now = timezone.now()
    with transaction.atomic():
        ended = rows.update(state=state, stage="", claim="", ended=now, **changes)
        if ended:
            tallies.count(state, fault, (now - since).total_seconds() if since else 0.0)
    return bool(ended)


def give_back(track: Track) -> bool:
    """The worker has to stop: another makes it, and this was no attempt."""
    return _queue_again(track, _claimed(track), attempt=F("attempt") - 1)


def _queue_again(track: Track, rows: QuerySet[Track], **changes: Any) -> bool:
    """Let another worker make it, if its row is still among `rows`."""
    with transaction.atomic():
        queued = rows.update(state=State.QUEUED, claim="", heartbeat=None, stage="", percent=0, **changes)
        if queued:
            _enqueue(track.id)
    return bool(queued)


def _of_claim(track: Track, **changes: Any) -> bool:
    return bool(_claimed(track).update(**changes))


def _claimed(track: Track) -> QuerySet[Track]:
    return Track.objects.filter(id=track.id, state=State.RUNNING, claim=track.claim)


# What a visitor does.


def cancel(track: Track) -> bool:
    """Stop it; a worker that is at it notices within moments. False where it has ended already."""
    return _end(Track.objects.filter(id=track.id, state__in=UNDER_WAY), State.CANCELLED, heartbeat=None)


def delete(track: Track) -> None:
    """Every file, and all that the row says; it stays, hidden, until `reap` is sure that no worker writes any more."""
    said = dict.fromkeys(("caption", "description", "card", "peaks", "given", "share", "idempotency_key"))
    try:
        cancel(track)
        Track.objects.filter(id=track.id).update(
            **said, state=State.DELETED, stage="", claim="", error="", heartbeat=timezone.now()
        )
    finally:  # on a full disk no row can be written, and this makes room
        files.delete(track.id)


def purge(track_id: str) -> None:
    """The files, then the row: killed in between, it is done again."""
    files.delete(track_id)
    Track.objects.filter(id=track_id).delete()


def share(track: Track) -> str:
    """What a link for others has in it; the same as before where there is one."""
    Track.objects.filter(id=track.id, share=None).update(share=secrets.token_urlsafe(16))
    track.refresh_from_db(fields=["share"])
    return track.share or ""


def unshare(track: Track) -> None:
    """The link is good no more."""
    Track.objects.filter(id=track.id).update(share=None)


# What time does.


def reap() -> int:
    """Hand on, or fail, what a lost worker held; take away what is half received or deleted. How many rows."""
    config = settings.CONFIG
    lost = timezone.now() - timedelta(seconds=config.lost_after)
    touched = 0
    for track in Track.objects.filter(state=State.RUNNING, heartbeat__lt=lost):
        touched += 1
        with logs.tracing(track.id):
            log.warning("its worker was lost, attempt %d", track.attempt, extra={"labels": {"track": track.id}})
            if track.attempt >= config.attempts:
                fail(track, Fault.LOST, "the song could not be made: its worker stopped several times")
                continue
            _queue_again(track, _claimed(track).filter(heartbeat=track.heartbeat))  # not if it was heard of meanwhile
    touched += _enqueue_forgotten()
    half_received = Q(state=State.NEW, created__lt=timezone.now() - timedelta(seconds=max(600, config.lost_after)))
    for track in Track.objects.filter(half_received | Q(state=State.DELETED, heartbeat__lt=lost)):
        touched += 1
        with suppress(StoreError):  # it is tried again; the others go
            purge(track.id)
    return touched


def _enqueue_forgotten() -> int:
    """Enqueue what waits without a task: a worker that took one and was killed at once claimed no row. How many."""
    from django_tasks.base import TaskResultStatus
    from django_tasks_db.models import DBTaskResult

    waiting = set(Track.objects.filter(state=State.QUEUED).values_list("id", flat=True))
    tasks = DBTaskResult.objects.filter(status=TaskResultStatus.READY).values_list("args_kwargs", flat=True)
    forgotten = waiting - {one["args"][0] for one in tasks} if waiting else waiting
    for track_id in forgotten:
        _enqueue(track_id)
    return len(forgotten)


def expire() -> int:
    """Delete what is older than it may be, and tasks that are over. How many tracks."""
    from django_tasks.base import TaskResultStatus
    from django_tasks_db.models import DBTaskResult

    old = timezone.now() - timedelta(days=settings.CONFIG.keep_days)
    expired = list(Track.objects.filter(created__lt=old).exclude(state=State.DELETED))
    for track in expired:
        with suppress(StoreError):  # it is tried again
            delete(track)
    yesterday = timezone.now() - timedelta(days=1)
    DBTaskResult.objects.exclude(status=TaskResultStatus.READY).filter(enqueued_at__lt=yesterday).delete()
    return len(expired)
