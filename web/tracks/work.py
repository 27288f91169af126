"""What a worker does for a row: the song, told of as it comes to be.

A thread gives signs of life while the song is made. Whatever ends the work early (a visitor who cancels, a process
that must stop, a song that takes too long) is raised where the flow reports its progress.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

from django.conf import settings as django_settings
from django.db import Error, close_old_connections, connection
from PIL import Image

from melodify_lib import logs
from melodify_lib.errors import InputError, MelodifyError, StoreError
from melodify_lib.flow import Composer, Watcher
from melodify_lib.music.finish import SECONDS_MIN
from melodify_lib.music.foreign import read_wav
from melodify_lib.music.formats import encode, peaks
from melodify_lib.nouns import Caption, MusicDescription, TrackCard
from melodify_lib.settings import Settings
from melodify_lib.store import get_all, put_all
from web.tracks import files, jobs, tallies
from web.tracks.models import Fault, Stage, State, Track

log = logging.getLogger("melodify_lib.web")

BEGINS = {Stage.CAPTION: 2, Stage.DESCRIBE: 12, Stage.PLAY: 25, Stage.STORE: 92}
"""Percent at which each stage begins."""
PEAKS = 240
"""Bars of a waveform."""
SAY_EVERY_S = 0.3
OURS = "something went wrong on our side; try again later"

_stop_at: float | None = None


def stop_within(seconds: float) -> None:
    """Let what is made now finish if it can in so many seconds; otherwise give it back."""
    global _stop_at  # noqa: PLW0603 - a signal's handler has nowhere else to put it
    if _stop_at is None:
        _stop_at = time.monotonic() + seconds


class LostError(CancelledError):
    """The row is no longer this worker's."""


class LateError(CancelledError):
    """The song takes longer than it may."""


class StoppedError(Exception):
    """The worker has to stop."""


def make(track_id: str) -> None:
    """Make a track, if it waits to be made; what goes wrong is written into its row."""
    track = jobs.claim(track_id)
    if track is None:
        return
    with logs.tracing(track.id), _signs_of_life(track):
        try:
            _store(track, *_made(track))
        except LostError:
            _forget(track)
        except StoppedError:
            jobs.give_back(track)
            log.info("given back")
        except LateError:
            jobs.fail(
                track, Fault.LATE, f"it took longer than {django_settings.CONFIG.deadline:g} s; ask for a shorter song"
            )
        except InputError as error:
            jobs.fail(track, Fault.ASKED, str(error))
        except MelodifyError as error:  # its text is for whoever runs this, not for visitors
            if jobs.fail(track, Fault.OURS, OURS):
                log.error("failed: %s", error)
            else:  # a file that went with the row, as like as not
                _forget(track)
        except Exception:
            log.exception("failed")
            jobs.fail(track, Fault.OURS, OURS)
        except BaseException:
            jobs.give_back(track)
            raise


def _made(track: Track) -> tuple[dict[str, bytes], TrackCard]:
    """The song's files and its card. What a worker made that was killed a moment later is taken as it is."""
    store, prefix = files.store(), files.prefix(track.id)
    with suppress(StoreError):
        card = TrackCard.from_json(store.get(f"{prefix}card.json"))
        return get_all(store, prefix, card.files), card
    settings = Settings.load(musician=track.musician)
    make_it = _by_pipeline if settings.runner == "vertex" else _here
    return make_it(track, store.get(prefix + files.PICTURE), settings, Reporter(track))


def _here(track: Track, picture: bytes, settings: Settings, reporter: Reporter) -> tuple[dict[str, bytes], TrackCard]:
    song = _composer(settings).compose(picture, **_asked(track), watcher=reporter)
    reporter.say(Stage.STORE)
    return song.files, song.card


def _by_pipeline(
    track: Track, picture: bytes, settings: Settings, reporter: Reporter
) -> tuple[dict[str, bytes], TrackCard]:
    """A job on Vertex AI makes it, and this worker watches. The job is found again by the next one, if this is killed.

    So is its caption, which is in the row: another would be another job.
    """
    from pipelines.run import arguments, run

    reporter.begin(Stage.CAPTION)
    known = Caption.model_validate(track.caption) if track.caption else None
    parameters = arguments(picture, settings, caption=known, **_asked(track))
    reporter.captioned(Caption.model_validate(parameters["caption"]))
    parameters["musician_settings"]["store"] += f"/{files.prefix(track.id)}{files.PIPELINE}"
    made = run(parameters, settings, request=track.id, on_look=reporter.look)
    reporter.described(made.card.description)
    reporter.say(Stage.STORE)
    return made.files, made.card


def _asked(track: Track) -> dict[str, Any]:
    return {
        "seconds": track.seconds,
        "seed": track.seed,
        "genre": track.genre or None,
        "description": MusicDescription.model_validate(track.given) if track.given else None,
    }


def warm_up() -> None:
    """Make a short song for a grey picture, so that a visitor's first one does not wait for models to load.

    Only where that costs nothing.
    """
    settings = Settings.load(musician=django_settings.CONFIG.musicians[0])
    if not settings.allow_paid:
        grey = files.encoded(Image.new("RGB", (64, 64), "grey"), "PNG")
        _composer(settings).compose(grey, seconds=SECONDS_MIN)


@lru_cache(maxsize=1)
def _composer(settings: Settings) -> Composer:
    return Composer(settings)


def _store(track: Track, made: dict[str, bytes], card: TrackCard) -> None:
    audio, sample_rate = read_wav(made["track.wav"], "the song")
    written = {**made, "track.mp3": encode(audio, sample_rate, "mp3", card), "card.json": card.to_json().encode()}
    put_all(files.store(), files.prefix(track.id), written)
    if Settings.load().runner == "vertex":
        files.delete_pipeline(track.id)
    if not jobs.finish(track, card=card.model_dump(mode="json"), peaks=peaks(audio, PEAKS)):
        raise LostError
    log.info("done")


def _forget(track: Track) -> None:
    """Leave no file of a track that was deleted meanwhile; another worker's, which has the same names, stay."""
    if not Track.objects.filter(id=track.id).exclude(state=State.DELETED).exists():
        files.delete(track.id)
    log.info("no longer wanted here")


class Reporter(Watcher):
    """Writes what it hears into the row, and raises when the work should end."""

    def __init__(self, track: Track) -> None:
        self._track = track
        self._stage, self._since = Stage.CAPTION, time.monotonic()
        self._deadline = self._since + django_settings.CONFIG.deadline
        self._said = 0.0

    def begin(self, stage: str) -> None:
        self.say(Stage(stage))

    def captioned(self, caption: Caption) -> None:
        self.say(self._stage, caption=caption.model_dump(mode="json"))

    def described(self, description: MusicDescription) -> None:
        self.say(self._stage, description=description.model_dump(mode="json"))

    def playing(self, share: float) -> None:
        if time.monotonic() - self._said > SAY_EVERY_S:
            self.say(Stage.PLAY, share)

    def look(self, states: dict[str, str], description: MusicDescription | None) -> None:
        """What each task of a pipeline is at, and the description as soon as there is one."""
        is_described = states.get("rework-caption") in ("done", "cached")
        done = sum(state in ("done", "cached") for state in states.values())
        found = {"description": description.model_dump(mode="json")} if description else {}
        self.say(Stage.PLAY if is_described else Stage.DESCRIBE, 0.2 if is_described else done / 3, **found)

    def say(self, stage: Stage, share: float = 0.0, **found: Any) -> None:
        """How far a stage is, from 0 to 1. Raises `LostError`, `StoppedError`, `LateError`."""
        self._said = time.monotonic()
        if stage != self._stage:
            tallies.count(tallies.STAGE, self._stage, self._said - self._since)
            self._stage, self._since = stage, self._said
        percents = [*BEGINS.values(), 100]
        first, last = percents[list(BEGINS).index(stage) :][:2]
        if not jobs.progress(self._track, stage, round(first + share * (last - first)), **found):
            raise LostError
        if _stop_at is not None and self._said > _stop_at:
            raise StoppedError
        if self._said > self._deadline:
            raise LateError


@contextmanager
def _signs_of_life(track: Track) -> Iterator[None]:
    """Beat while the song is made. A process that is stuck far beyond the deadline ends, to be started anew."""
    over = threading.Event()
    config = django_settings.CONFIG
    last = time.monotonic() + config.deadline + 60

    def beat() -> None:
        while not over.wait(config.heartbeat):
            try:
                close_old_connections()
                jobs.beat(track)
            except Error:  # the next one may get through
                log.warning("no sign of life could be written", exc_info=True)
            if time.monotonic() > last:
                log.critical("stuck: this worker ends itself")
                os._exit(70)
        connection.close()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
