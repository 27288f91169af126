"""Continuous batching: songs join and leave the decoder's batch at any step.

One thread owns the backend. Each song has its own position, length, sampling and noise, so that what it
sounds like does not depend on its neighbours (with a batch-invariant backend: not to the bit otherwise).
"""

from __future__ import annotations

import atexit
import operator
import queue
import threading
from collections import deque
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from melodify_lib.errors import BusyError, InputError, ModelError
from melodify_lib.music.finish import check_request
from melodify_lib.music.musicgen.codec import PIECE_FRAMES, CodecBackend, CodecStream
from melodify_lib.music.musicgen.pattern import TO_SAMPLE, delayed, undelayed
from melodify_lib.music.musicgen.sampling import Sampling, choose, guided

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from melodify_lib.music.musicgen.architecture import Architecture

    Floats = npt.NDArray[np.float32]
    Codes = npt.NDArray[np.int64]

SECONDS_MIN = 1.0
WINDOW_SECONDS = 30.0
"""What MusicGen was trained on; a longer song is made in windows of so much."""
CONTEXT_SECONDS = 10.0
"""What a window knows of the one before it."""
FIRST_PIECE_FRAMES = PIECE_FRAMES // 2
"""So that a listener waits half as long for the first sound."""


class Backend(CodecBackend, Protocol):
    """A checkpoint that can be run. Slots are numbered from 0; songs in use fill the first ones."""

    shape: Architecture
    prefill_piece: int

    def tokens(self, prompt: str) -> Codes:
        """A prompt's tokens, ``[tokens]``; from any thread. Raises `InputError`."""
        ...

    def encode(self, tokens: Codes) -> Any:
        """What the decoder reads of a prompt; ``shape[1]`` is its length."""
        ...

    def reserve(self, songs: int, length: int, text: int) -> None:
        """Make room for `songs` of `length` positions with prompts of `text` tokens. Raises `ModelError`."""
        ...

    def place(self, slot: int, text: Any) -> None:
        """Begin a song in `slot` with what `encode` returned."""
        ...

    def move(self, source: int, target: int) -> None:
        """Take a song from one slot to another."""
        ...

    def step(self, tokens: Codes, positions: Codes) -> Floats:
        """Tokens ``[songs, codebooks]`` at positions ``[songs]`` → logits ``[songs, 2, codebooks, vocabulary]``.

        The two are with the prompt and without.
        """
        ...

    def prefill(self, slot: int, tokens: Codes, position: int) -> None:
        """Read known tokens ``[n, codebooks]`` of one song, at most `prefill_piece` at a time."""
        ...


@dataclass(frozen=True, eq=False)
class SongRequest:
    """What a song should be; `Engine.start` raises `InputError` for what cannot be."""

    prompt: str
    seconds: float
    seed: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    given: Codes | None = None
    """Codes of audio that the song goes on from, ``[codebooks, frames]``; they are part of it."""


class Song:
    """A song that is being made, or waits for its turn. Its methods may be called from any thread."""

    def __init__(
        self, request: SongRequest, tokens: Codes, frames: int, on_progress: Callable[[float], None] | None
    ) -> None:
        self.request, self.tokens, self.frames = request, tokens, frames
        self._on_progress = on_progress
        self._future: Future[Floats] = Future()
        self._pieces: queue.SimpleQueue[Floats | None] = queue.SimpleQueue()
        self._heard: list[Floats] = []
        self.done_frames = 0

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        return self.done_frames / self.frames

    def cancel(self) -> None:
        """Stop between two steps; `result` raises `CancelledError`. Nothing happens to a song that is done."""
        if self._future.cancel():
            self._pieces.put(None)

    def result(self, timeout: float | None = None) -> Floats:
        """The whole song, float32 ``[channels, samples]``.

        Raises `TimeoutError` after `timeout` seconds, `CancelledError`, or what went wrong.
        """
        return self._future.result(timeout)

    def pieces(self) -> Iterator[Floats]:
        """The song as it comes, float32 ``[channels, samples]`` a piece, for one listener. Raises as `result` does."""
        while (piece := self._pieces.get()) is not None:
            yield piece
        self._pieces.put(None)  # for whoever asks again
        if (error := self._future.exception()) is not None:
            raise error

    def when_done(self, call: Callable[[Song], None]) -> None:
        """Call when the song is finished, cancelled or has failed: from the engine's thread or this one; be short."""
        self._future.add_done_callback(lambda _: call(self))

    @property
    def is_done(self) -> bool:
        """Finished, cancelled or failed."""
        return self._future.done()

    @property
    def is_cancelled(self) -> bool:
        return self._future.cancelled()

    # What follows is the engine's.

    def advance(self, frames: int, piece: Floats | None) -> None:
        self.done_frames = frames
        if piece is not None and piece.shape[1]:
            self._heard.append(piece)
            self._pieces.put(piece)
        if self._on_progress:
            self._on_progress(self.progress)

    def finish(self, error: BaseException | None = None) -> None:
        self._pieces.put(None)
        with suppress(InvalidStateError):  # cancelled
            if error is not None:
                self._future.set_exception(error)
            elif not self.is_cancelled:
                self._future.set_result(np.concatenate(self._heard, 1))
        self._heard.clear()


class Engine:
    """Makes songs on one thread of its own. A context manager; `close` ends it."""

    def __init__(self, backend: Backend, *, songs: int = 8, waiting: int | None = None) -> None:
        """At most so many `songs` at once and `waiting` behind them (any number if None)."""
        self.backend, self.shape = backend, backend.shape
        self._songs, self._limit = songs, waiting
        self._waiting: deque[Song] = deque()
        self._takes: list[_Take] = []
        self._changed = threading.Condition()
        self._closing = self._dropping = False
        self._thread = threading.Thread(target=self._run, name="musicgen", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # the interpreter must not end under a running step

    @property
    def playing(self) -> int:
        """Songs in the batch."""
        return len(self._takes)

    @property
    def waiting(self) -> int:
        """Songs that wait for a place in it."""
        return len(self._waiting)

    def start(self, request: SongRequest, on_progress: Callable[[float], None] | None = None) -> Song:
        """Begin a song, or queue it.

        `on_progress` hears its progress, 0 to 1, from the engine's thread: keep it short. Raises `InputError`
        for what cannot be made, `BusyError` when too many wait.
        """
        request = self._checked(request)
        frames = round(request.seconds * self.shape.frame_rate)
        song = Song(request, self.backend.tokens(request.prompt), frames, on_progress)
        with self._changed:
            if self._closing or not self._thread.is_alive():  # a forked process has no thread
                raise BusyError("the engine is closed; nothing new is begun")
            if self._limit is not None and self.waiting >= self._limit + self._songs - self.playing:
                raise BusyError(f"{self.playing} songs are being made and {self.waiting} wait; try again later")
            self._waiting.append(song)
            self._changed.notify()
        song.when_done(self._forget)
        return song

    def _forget(self, song: Song) -> None:
        with self._changed, suppress(ValueError):
            self._waiting.remove(song)

    def generate(self, request: SongRequest, on_progress: Callable[[float], None] | None = None) -> Floats:
        """A whole song, float32 ``[channels, samples]``; see `start`. Who is interrupted here cancels it."""
        song = self.start(request, on_progress)
        try:
            return song.result()
        finally:
            song.cancel()

    def close(self, *, finish: bool = False) -> None:
        """End the thread; songs that are not done are cancelled, or first done with `finish`."""
        atexit.unregister(self.close)
        with self._changed:
            self._closing, self._dropping = True, not finish
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _checked(self, request: SongRequest) -> SongRequest:
        """The request with plain numbers, and codes of its own. Raises `InputError`."""
        try:
            seconds, seed = float(request.seconds), operator.index(request.seed)
        except (TypeError, ValueError):
            raise InputError(
                f"seconds must be a number and the seed a whole one; got {request.seconds!r} and {request.seed!r}"
            ) from None
        check_request(seconds, seed, SECONDS_MIN)
        given = None
        if request.given is not None:
            given, frames = np.array(request.given), round(seconds * self.shape.frame_rate)
            if given.dtype.kind not in "iu" or given.ndim != 2 or len(given) != self.shape.codebooks:
                raise InputError(
                    f"codes to go on from must be whole numbers [{self.shape.codebooks}, frames]; got {given.dtype} "
                    f"{list(given.shape)}"
                )
            if given.shape[1] >= frames:
                raise InputError(f"{given.shape[1]} frames to go on from must be fewer than the song's {frames}")
            if given.size and not (given.min() >= 0 and given.max() < self.shape.vocabulary):
                raise InputError(f"codes to go on from must be from 0 to {self.shape.vocabulary - 1}")
        return replace(request, seconds=seconds, seed=seed, given=given)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._takes or self._closing):
                    self._changed.wait()
                if self._closing and not (self._waiting or self._takes):
                    return
            try:
                self._admit()
                if self._takes:
                    self._step()
            except BaseException as error:  # the backend's: nobody's song can go on, but the next ones may
                for take in self._takes:
                    take.song.finish(error)
                self._takes.clear()

    def _admit(self) -> None:
        while len(self._takes) < self._songs:
            with self._changed:  # a song that is cancelled leaves the queue from another thread
                if not self._waiting:
                    return
                song = self._waiting.popleft()
            if self._gone(song):
                continue
            try:
                text = self.backend.encode(song.tokens)
                take = _Take(song, self.backend)
                self.backend.reserve(len(self._takes) + 1, take.length, text.shape[1])
                self.backend.place(len(self._takes), text)
            except BaseException as error:
                song.finish(error)
                continue
            self._takes.append(take)

    def _step(self) -> None:
        for slot in reversed(range(len(self._takes))):
            if self._gone(self._takes[slot].song):
                self._drop(slot)
        if not self._takes:
            return
        for slot in reversed(range(len(self._takes))):  # a piece each between two steps: the other songs go on
            take = self._takes[slot]
            if len(piece := take.known_ahead(self.backend.prefill_piece)):
                self.backend.prefill(slot, piece, take.column)
                take.column += len(piece)
        tokens = np.stack([take.tokens for take in self._takes])
        positions = np.array([take.column for take in self._takes])
        logits = self.backend.step(tokens, positions)
        for slot in reversed(range(len(self._takes))):
            take = self._takes[slot]
            try:
                # One that still reads chose nothing: its next piece overwrites what this step wrote.
                is_reading = len(take.known_ahead(self.backend.prefill_piece)) > 0
                is_done = take.listen() if is_reading else take.advance(logits[slot])
            except BaseException as error:  # the caller's progress function, or EnCodec
                take.song.finish(error)
                is_done = True
            if is_done:
                self._drop(slot)

    def _gone(self, song: Song) -> bool:
        """Whether a song need not be made any more; ends it if so."""
        if self._dropping:
            song.cancel()
        if song.is_cancelled:
            song.finish()
        return song.is_cancelled

    def _drop(self, slot: int) -> None:
        last = len(self._takes) - 1
        if slot != last:
            self.backend.move(last, slot)
            self._takes[slot] = self._takes[last]
        self._takes.pop()


class _Take:
    """A song in the batch: what is known of it, and where the decoder stands."""

    def __init__(self, song: Song, backend: Backend) -> None:
        self.song, self._shape = song, backend.shape
        shape, request = backend.shape, song.request
        given = request.given if request.given is not None else np.zeros((shape.codebooks, 0), np.int64)
        self._codes = np.zeros((shape.codebooks, song.frames), np.int64)
        self._codes[:, : given.shape[1]] = given
        self._done, self._played = given.shape[1], 0  # frames that are known, and that EnCodec has been given
        self._noise = np.random.default_rng(request.seed)
        self._streams = [CodecStream(backend, shape) for _ in range(shape.channels)]
        self._open_window()

    def _open_window(self) -> None:
        """Lay out the columns of the next window: what it knows of the song, and what it has yet to choose."""
        shape = self._shape
        longest = min(round(WINDOW_SECONDS * shape.frame_rate), shape.positions - int(shape.delays.max()) - 1)
        context = min(round(CONTEXT_SECONDS * shape.frame_rate), longest // 2)
        self._start = 0 if self.song.frames <= longest or self._done <= context else self._done - context
        frames = min(longest, self.song.frames - self._start)
        known = self._codes[:, self._start : self._done]
        self._columns = delayed(known, frames, shape.delays, shape.pad)
        self.column = 0  # the decoder reads it next

    @property
    def length(self) -> int:
        """Positions that the window takes."""
        return int(self._columns.shape[1])

    @property
    def tokens(self) -> Codes:
        return self._columns[:, self.column]

    def known_ahead(self, most: int) -> Codes:
        """Columns that the decoder can read at once, nothing being left to choose in them, ``[n, codebooks]``.

        The last one is left to the step: what it reads decides what is chosen.
        """
        unknown = (self._columns[0] == TO_SAMPLE).argmax()  # the first codebook is the first to be chosen
        count = min(most, int(unknown) - 1 - self.column)
        return self._columns[:, self.column : self.column + count].T if count > 1 else np.zeros((0, 0), np.int64)

    def advance(self, logits: Floats) -> bool:
        """Choose the next column by logits ``[2, codebooks, vocabulary]``. Whether it was the last."""
        if not np.isfinite(logits).all():
            raise ModelError(
                "the checkpoint's weights give no numbers: they are damaged, or overflow in this precision"
            )
        shape, sampling = self._shape, self.song.request.sampling
        self.column += 1
        following = self._columns[:, self.column]
        unknown = following == TO_SAMPLE
        if unknown.any():
            noise = None
            if not sampling.is_greedy:
                noise = self._noise.standard_exponential(logits.shape[1:], dtype=np.float32)
            following[unknown] = choose(guided(logits, sampling.guidance), sampling, noise)[unknown]
        settled = self._start + self.column - int(shape.delays.max())
        if settled > self._done:
            new = undelayed(self._columns, shape.delays, self._done - self._start, settled - self._start)
            self._codes[:, self._done : settled] = new
            self._done = settled
        is_last = self.listen()
        if is_last:
            self.song.finish()
        elif self.column == self.length - 1:
            self._open_window()
        return is_last

    def listen(self) -> bool:
        """Give EnCodec a piece of what is settled, and all that is left at the end. Whether that is now."""
        is_last = bool(self._done == self.song.frames)
        due = PIECE_FRAMES if self._played else FIRST_PIECE_FRAMES
        piece = self._decode() if is_last or self._done - self._played >= due else None
        while is_last and self._played < self._done:
            self.song.advance(self._done, piece)
            piece = self._decode()
        self.song.advance(self._done, piece)
        return is_last

    def _decode(self) -> Floats:
        end = min(self._done, self._played + PIECE_FRAMES)
        codes = self._codes[:, self._played : end]
        self._played = end
        channels, is_last = self._shape.channels, end == self.song.frames
        piece = np.stack(
            [stream.push(codes[channel::channels], is_last=is_last) for channel, stream in enumerate(self._streams)]
        )
        if not np.isfinite(piece).all():
            raise ModelError("the checkpoint's EnCodec gives no numbers: it is damaged")
        return piece
