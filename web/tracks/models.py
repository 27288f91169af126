"""One row a track: what was asked, how far it is, what came out."""

from __future__ import annotations

import uuid
from enum import StrEnum
from typing import ClassVar

from django.db import models


class State(StrEnum):
    """Of a track. Only `web.tracks.jobs` changes it."""

    NEW = "new"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DELETED = "deleted"


class Stage(StrEnum):
    """What a worker is at."""

    CAPTION = "caption"
    DESCRIBE = "describe"
    PLAY = "play"
    STORE = "store"


class Fault(StrEnum):
    """Why a song failed, for whoever runs the server; a visitor is told in a row's `error`."""

    ASKED = "asked"
    """It cannot be made as it was asked for."""
    LATE = "late"
    LOST = "lost"
    """Its worker was, too often."""
    OURS = "ours"


UNDER_WAY = (State.NEW, State.QUEUED, State.RUNNING)


def new_id() -> str:
    """Unguessable, and the id of the trace in whose logs the track's whole way is."""
    return uuid.uuid4().hex


class Track(models.Model):
    """A visitor's track, from upload to song."""

    id = models.CharField(primary_key=True, max_length=32, default=new_id, editable=False)
    owner = models.CharField(max_length=64, db_index=True, help_text="sha256 of the visitor's key")
    share = models.CharField(max_length=32, null=True, unique=True, help_text="what a shared link has in it")
    idempotency_key = models.CharField(max_length=64, null=True, help_text="sha256 of the one in the request's header")
    fingerprint = models.CharField(max_length=64, help_text="sha256 of all that was asked")

    seconds = models.FloatField()
    seed = models.BigIntegerField()
    genre = models.CharField(max_length=20, blank=True)
    musician = models.CharField(max_length=20)
    given = models.JSONField(null=True, help_text="a description to play as it is")
    parent = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, related_name="remixes")

    state = models.CharField(max_length=10, choices=[(one.value, one.value) for one in State], default=State.NEW)
    stage = models.CharField(max_length=10, choices=[(one.value, one.value) for one in Stage], blank=True)
    percent = models.PositiveSmallIntegerField(default=0)
    attempt = models.PositiveSmallIntegerField(default=0)
    claim = models.CharField(max_length=32, blank=True, help_text="of the worker that makes it")
    heartbeat = models.DateTimeField(null=True)
    error = models.TextField(blank=True)

    caption = models.JSONField(null=True)
    description = models.JSONField(null=True)
    card = models.JSONField(null=True)
    peaks = models.JSONField(null=True, help_text="of the waveform, from 0 to 1")

    created = models.DateTimeField(auto_now_add=True, db_index=True)
    started = models.DateTimeField(null=True)
    ended = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["-created", "-id"]
        indexes: ClassVar = [models.Index(fields=["state", "heartbeat"])]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["owner", "idempotency_key"], name="one_track_a_key"),
        ]

    def __str__(self) -> str:
        return f"{self.id} ({self.state})"

    @property
    def is_under_way(self) -> bool:
        return self.state in UNDER_WAY


class Tally(models.Model):
    """How many songs, or stages of songs, ended so within so many seconds: `web.tracks.tallies` counts them."""

    what = models.CharField(max_length=10)
    kind = models.CharField(max_length=10)
    within = models.CharField(max_length=10)
    count = models.PositiveBigIntegerField(default=0)
    seconds = models.FloatField(default=0)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["what", "kind", "within"], name="one_tally")]

    def __str__(self) -> str:
        return f"{self.what} {self.kind} {self.within}: {self.count}"


class Worker(models.Model):
    """A process that makes songs, and its last sign of life."""

    id = models.CharField(primary_key=True, max_length=64)
    heartbeat = models.DateTimeField()

    def __str__(self) -> str:
        return self.id
