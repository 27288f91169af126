"""Songs to order: who may come in, who plays, where it is kept, and how it all ends.

A song is a `Job` on a thread of its own, which waits for MusicGen's engine or plays itself; the request's thread only
waits for the job, so that a deadline, a client that leaves and SIGTERM are noticed whatever the job is busy with.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakValueDictionary

from melodify_lib import stages
from melodify_lib.errors import BusyError, CloudError, InputError, MelodifyError, OutOfMemoryError, StoreError
from melodify_lib.music.finish import LOUDNESS_LUFS, TRUE_PEAK_DBTP, encode_wav, master
from melodify_lib.music.measure import measure
from melodify_lib.music.musicgen import MusicGen
from melodify_lib.music.musicgen.engine import Song
from melodify_lib.nouns import Measures, MusicDescription, sha256
from melodify_lib.store import Store, get_all, open_store, put_all
from serving.messages import PromptCard, Refusal, Wanted, read_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from melodify_lib.music.musicgen.engine import Floats
    from melodify_lib.settings import Settings
    from serving.metrics import Metrics

POLL_S = 0.1
FAILURES_MAX = 3
"""Songs in a row that the musician fails; then the process makes room for another, which loads it anew."""
_STORE = (StoreError, CloudError)
_NOT_THE_MUSICIAN = (CancelledError, InputError, *_STORE, BusyError, OutOfMemoryError)
NOT_STORED = "the song could not be stored; ask again in a while"
CARD = "card.json"
_KINDS = {"track.wav": "audio", "track.mid": "midi", CARD: "card"}

log = logging.getLogger(__name__)


class Job:
    """A song that was taken on. `future` gives its prediction."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.future: Future[dict[str, Any]]
        self.accepted = time.monotonic()
        self.is_cancelled = self.is_storing = False
        self._playing: Song | None = None

    @property
    def is_playing(self) -> bool:
        """Rather than waiting for its turn."""
        return self.future.running() and not (isinstance(self._playing, Song) and self._playing.progress == 0)

    @contextmanager
    def storing(self) -> Iterator[None]:
        """While it waits for the store."""
        self.is_storing = True
        try:
            yield
        finally:
            self.is_storing = False

    def follow(self, playing: Song) -> None:
        """Cancel it when the job is."""
        self._playing = playing
        if self.is_cancelled:
            playing.cancel()

    def go_on(self, share: float) -> None:
        """Raise `CancelledError` when it was given up; for a musician to hear while it plays."""
        if self.is_cancelled:
            raise CancelledError

    def cancel(self) -> None:
        """Give up; what is stored already stays."""
        self.is_cancelled = True
        self.future.cancel()
        if self._playing is not None:
            self._playing.cancel()


class Service:
    """Loads the musician, takes songs on up to a number, and keeps what is made in the store."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._store: Store = open_store(settings)
        self._musician: stages.Musician | None = None
        self._pool: ThreadPoolExecutor
        self._capacity = settings.songs + settings.waiting
        self._jobs: set[Job] = set()
        self._reading, self._door = threading.Lock(), threading.Lock()
        self._writing: WeakValueDictionary[str, threading.Lock] = (
            WeakValueDictionary()
        )  # of each song, while it is held
        self._is_stopping = self._is_over = False
        self._failures = 0  # in a row
        metrics.ready.set_function(lambda: self.state == "ready")
        metrics.playing.set_function(lambda: sum(job.is_playing for job in tuple(self._jobs)))
        metrics.waiting.set_function(lambda: sum(not job.is_playing for job in tuple(self._jobs)))

    @property
    def state(self) -> str:
        """``loading``, ``ready`` or ``stopping``."""
        return "stopping" if self._is_stopping else "loading" if self._musician is None else "ready"

    def load(self) -> None:
        """Load the musician. Raises `MelodifyError`."""
        musician = stages.musician(self._settings)
        log.info("loaded %s %s", musician.version.name, musician.version.version)  # hashes the weights, once
        # The engine has a queue of its own; an arranger takes a processor.
        threads = (
            self._capacity
            if isinstance(musician, MusicGen)
            else min(self._settings.songs, len(os.sched_getaffinity(0)))
        )
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="song")
        self._musician = musician

    def predict(self, data: bytes, arrived: float, is_gone: Callable[[], bool]) -> list[dict[str, Any]]:
        """Make the songs that a request's body asks for; the predictions are in its order. Raises `Refusal`.

        `arrived` is when, in `time.monotonic`; `is_gone` tells whether the client has gone away.
        """
        if self._musician is None or self._is_stopping:
            raise Refusal(503, f"the server is {self.state}; ask again in a while, or ask another")
        with self._reading:  # JSON of 1.5 MB can take forty in memory; many bodies may come at once
            wanted, timeout = read_request(data)
        timeout = self._settings.deadline if timeout is None else timeout
        if timeout > self._settings.deadline:
            raise Refusal(
                400, f"at most {self._settings.deadline:g} s are given to a request", field="parameters.timeout_s"
            )
        self._check(wanted, self._musician)
        jobs = self._begin(wanted, self._musician)
        try:
            self._wait(set(jobs.values()), arrived + timeout, is_gone)
        finally:
            for job in jobs.values():
                job.cancel()
        return [jobs[song].future.result() for song in wanted]

    def stop(self, seconds: float) -> None:
        """Take nothing more; let what plays finish, if it can in so many `seconds`; hand back the rest."""
        self._is_stopping = True
        ends_at = time.monotonic() + seconds
        while self._jobs and time.monotonic() < ends_at:
            time.sleep(POLL_S)
        self.close()

    def close(self) -> None:
        """Hand back everything, and stop the engine."""
        with self._door:
            self._is_stopping = self._is_over = True
        for job in tuple(self._jobs):
            job.cancel()
        if isinstance(self._musician, MusicGen):
            self._musician.close()

    def _check(self, wanted: list[Wanted], musician: stages.Musician) -> None:
        if len(wanted) > self._capacity:
            raise Refusal(400, f"at most {self._capacity} songs in a request; ask in several", field="instances")
        for index, song in enumerate(wanted):
            field = f"instances[{index}]"
            if isinstance(musician, MusicGen):
                try:
                    musician.check(song.prompt, song.seconds, song.seed)
                except InputError as error:
                    raise Refusal(400, str(error), field=field) from None
            elif song.description is None:
                raise Refusal(
                    400,
                    f"the {musician.version.name} plays descriptions: send a description, or a prompt that ends in "
                    "'bpm: …. key: …. genre: …. moods: …. instrument: …'",
                    field=f"{field}.prompt",
                )

    def _begin(self, wanted: list[Wanted], musician: stages.Musician) -> dict[Wanted, Job]:
        """All of them, or none; the same song is made once."""
        jobs = {song: Job(song) for song in wanted}
        with self._door:
            if self._is_stopping:
                raise Refusal(503, "the server is stopping; ask again in a while, or ask another")
            if len(self._jobs) + len(jobs) > self._capacity:
                raise Refusal(503, f"{len(self._jobs)} songs are being made or wait; ask again in a while")
            for job in jobs.values():
                job.future = self._pool.submit(copy_context().run, self._make, job, musician)
                self._jobs.add(job)
                job.future.add_done_callback(partial(self._leave, job))
        return jobs

    def _leave(self, job: Job, future: Future[dict[str, Any]]) -> None:
        self._jobs.discard(job)
        if future.cancelled() or isinstance(future.exception(), _NOT_THE_MUSICIAN):
            return  # says nothing of the musician
        self._failures = self._failures + 1 if future.exception() else 0
        if self._failures == FAILURES_MAX:
            log.critical("%d songs in a row failed: ending, so that another process takes over", FAILURES_MAX)
            os.kill(os.getpid(), signal.SIGTERM)  # as if from outside: what still plays may finish

    def _wait(self, jobs: set[Job], ends_at: float, is_gone: Callable[[], bool]) -> None:
        """Until all are done. Raises `Refusal` for the first thing that keeps them from it."""
        pending = {job.future for job in jobs}
        while pending:
            done, pending = wait(pending, POLL_S, FIRST_EXCEPTION)
            for future in done:
                _raise_refusal(future)
            if not pending:
                return
            if self._is_over or (self._is_stopping and not all(job.is_playing or job.future.done() for job in jobs)):
                raise Refusal(503, "the server is stopping and hands the request back; ask again in a while")
            if time.monotonic() >= ends_at:
                if any(job.is_storing for job in jobs):
                    raise Refusal(503, NOT_STORED)
                raise Refusal(
                    504, "the time of the request is over; ask for shorter songs or fewer, or allow more (timeout_s)"
                )
            if is_gone():
                raise Refusal(499, "the client has gone away")

    def _make(self, job: Job, musician: stages.Musician) -> dict[str, Any]:
        """Play, finish and store; or find that it was done before."""
        song = job.wanted
        asked = [song.description and song.description.to_json(), song.prompt, song.seconds, song.seed]
        version = musician.version
        name = sha256(json.dumps([*asked, version.name, version.version]).encode())[:16]
        prefix = f"{song.folder}/{name}/"
        with job.storing():
            prediction = self._find(prefix)
        if prediction is not None:
            return prediction
        files = _play(job, musician)
        if job.is_cancelled:
            raise CancelledError
        with job.storing(), self._lock(prefix):  # the same song may be asked for twice at once
            prediction = self._find(prefix)
            if prediction is None:
                prediction = self._put(prefix, files)
        self._metrics.audio_seconds.inc(prediction["duration_s"])
        self._metrics.song_seconds.observe(time.monotonic() - job.accepted)
        return prediction

    def _lock(self, prefix: str) -> threading.Lock:
        with self._door:
            return self._writing.setdefault(prefix, threading.Lock())

    def _find(self, prefix: str) -> dict[str, Any] | None:
        """The prediction of a song that lies whole in the store."""
        try:
            card = self._store.get(prefix + CARD)
            hashes = json.loads(card)["files"]
            get_all(self._store, prefix, hashes)
        except (StoreError, ValueError, LookupError, TypeError, AttributeError):
            return None
        return self._prediction(prefix, (*hashes, CARD), card)

    def _put(self, prefix: str, files: dict[str, bytes]) -> dict[str, Any]:
        """What cannot be stored whole is taken away, as far as the store still can; without its card it is no song."""
        try:
            put_all(self._store, prefix, files)
        except _STORE:
            with suppress(*_STORE):
                for file in files:
                    self._store.delete(prefix + file)
            raise
        return self._prediction(prefix, files, files[CARD])

    def _prediction(self, prefix: str, files: Iterable[str], card: bytes) -> dict[str, Any]:
        duration = json.loads(card)["measured"]["duration_s"]
        addresses = {_KINDS[file]: self._store.address(prefix + file) for file in files}
        return {"name": prefix.removesuffix("/"), "duration_s": duration, **addresses}


def _play(job: Job, musician: stages.Musician) -> dict[str, bytes]:
    """The files of a song by name, its card the last."""
    song = job.wanted
    if not isinstance(musician, MusicGen):
        description = cast(MusicDescription, song.description)  # `_check` saw to it
        return musician.play(description, song.seconds, song.seed, job.go_on).whole
    playing = musician.start(song.prompt, song.seconds, song.seed)
    job.follow(playing)
    audio = playing.result()
    if song.description is None:
        return _prompt_files(audio, song, musician)
    return musician.finish(audio, song.description, song.seconds, song.seed).whole


def _prompt_files(audio: Floats, song: Wanted, musician: MusicGen) -> dict[str, bytes]:
    """As `finish_track`, where there is no description that the card could hold."""
    audio = master(audio, musician.sample_rate)
    wave = encode_wav(audio, musician.sample_rate)
    card = PromptCard(
        prompt=song.prompt,
        seed=song.seed,
        musician=musician.version,
        licence=musician.licence,
        permitted_use=musician.permitted_use,
        requested=Measures(loudness_lufs=LOUDNESS_LUFS, true_peak_dbtp=TRUE_PEAK_DBTP, duration_s=song.seconds),
        measured=measure(audio, musician.sample_rate),
        files={"track.wav": sha256(wave)},
    )
    return {"track.wav": wave, CARD: (card.model_dump_json(indent=2) + "\n").encode()}


def _raise_refusal(future: Future[dict[str, Any]]) -> None:
    """What a client is told of a job that failed; the rest is for the log, as it may name folders of this machine."""
    try:
        future.result()
    except InputError as error:
        raise Refusal(400, str(error)) from None
    except (CancelledError, BusyError):
        raise Refusal(503, "the server is stopping and hands the request back; ask again in a while") from None
    except _STORE as error:
        log.error("a song could not be stored: %s", error)
        raise Refusal(503, NOT_STORED) from None
    except OutOfMemoryError as error:
        log.error("a song could not be made: %s", error)
        raise Refusal(503, "there is no memory for the song now; ask for a shorter one, or again in a while") from None
    except MelodifyError as error:
        log.error("a song could not be made: %s", error)
        raise Refusal(500, "the song could not be made; the server's log says why") from None
