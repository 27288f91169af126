"""The engine: who is in the batch, how songs end, windows, and what cannot be asked of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from melodify_lib.errors import BusyError, InputError, ModelError
from melodify_lib.music.musicgen import open_backend
from melodify_lib.music.musicgen.checkpoint import Checkpoint
from melodify_lib.music.musicgen.codec import CodecStream
from melodify_lib.music.musicgen.engine import CONTEXT_SECONDS, Engine, Song, SongRequest
from melodify_lib.music.musicgen.pattern import delayed, undelayed
from melodify_lib.music.musicgen.sampling import Sampling, choose, guided
from melodify_lib.settings import Settings

PROMPT = "A calm solo piano piece. bpm: 90. key: D minor. genre: jazz. moods: calm, warm. instrument: piano"
RATE = 32000


def backend_of(folder: Path, precision: str = "int8") -> Any:
    return open_backend(Checkpoint(str(folder), folder), Settings(checkpoint=str(folder), precision=precision))


@pytest.fixture(scope="module", params=["mono", "stereo"])
def folder(request: pytest.FixtureRequest, untrained: dict[str, Path]) -> Path:
    return untrained[request.param]


@pytest.fixture
def engine(untrained: dict[str, Path]) -> Iterator[Engine]:
    with Engine(backend_of(untrained["mono"]), songs=3) as engine:
        yield engine


class Gate:
    """Holds an engine between two steps until it is opened."""

    def __init__(self, engine: Engine) -> None:
        self.opened, self.reached = threading.Event(), threading.Event()
        step = engine.backend.step

        def held(*arguments: Any) -> Any:
            self.reached.set()
            assert self.opened.wait(30)
            return step(*arguments)

        engine.backend.step = held  # type: ignore[method-assign]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_song_is_as_long_as_asked_and_depends_on_its_seed(engine: Engine) -> None:
    songs = [engine.start(SongRequest(PROMPT, 2.5, seed)).result(30) for seed in (1, 1, 2)]
    assert [song.shape for song in songs] == [(1, 80000)] * 3
    np.testing.assert_array_equal(songs[0], songs[1])
    assert not np.array_equal(songs[0], songs[2])
    assert np.isfinite(songs[0]).all() and songs[0].std() > 1e-4


def test_int8_songs_are_the_same_to_the_bit_in_any_company(folder: Path) -> None:
    """Also when the caches grow meanwhile, slots change hands, and other songs read a prefix of known codes."""
    with Engine(backend_of(folder)) as engine:
        alone = engine.generate(SongRequest(PROMPT, 7, 5))
    with Engine(backend_of(folder), songs=8) as engine:
        shape = engine.shape
        known = np.random.default_rng(0).integers(0, shape.vocabulary, (shape.codebooks, 90))
        others = [engine.start(SongRequest(f"{PROMPT}, {'and ' * n}so on", 1 + 0.7 * n, n)) for n in range(4)]
        song = engine.start(SongRequest(PROMPT, 7, 5))
        others += [
            engine.start(SongRequest("loud", 2 + n, n, Sampling(guidance=1 + n, top_k=5), given=known))
            for n in range(6)
        ]
        together = song.result(60)
        assert all(other.result(60).std() > 0 for other in others)
    np.testing.assert_array_equal(together, alone)


def test_songs_with_known_codes_do_not_depend_on_company_either(folder: Path) -> None:
    with Engine(backend_of(folder)) as engine:
        shape = engine.shape
        known = np.random.default_rng(0).integers(0, shape.vocabulary, (shape.codebooks, 90))
        alone = engine.generate(SongRequest(PROMPT, 3, 5, given=known))
    with Engine(backend_of(folder), songs=4) as engine:
        songs = [engine.start(SongRequest(PROMPT, 3, 4 + n, given=known)) for n in range(4)]
        np.testing.assert_array_equal(songs[1].result(30), alone)


def test_float_songs_in_company_keep_their_codes(untrained: dict[str, Path]) -> None:
    """To the bit it is not promised: products round differently for other numbers of rows."""
    with Engine(backend_of(untrained["mono"], "float32"), songs=4) as engine:
        alone = engine.generate(SongRequest(PROMPT, 2, 5))
        songs = [engine.start(SongRequest(PROMPT, 1 + n / 2, 3 + n)) for n in range(4)]
        np.testing.assert_allclose(songs[2].result(60), alone, atol=1e-4 * np.abs(alone).max())


def test_pieces_are_the_song(engine: Engine) -> None:
    song = engine.start(SongRequest(PROMPT, 4, 1))
    pieces = list(song.pieces())
    assert len(pieces) > 3
    assert pieces[0].shape[1] < 0.6 * RATE
    np.testing.assert_array_equal(np.concatenate(pieces, 1), song.result(0))


def test_progress_goes_from_nothing_to_one(engine: Engine) -> None:
    heard: list[float] = []
    song = engine.start(SongRequest(PROMPT, 2, 1), heard.append)
    song.result(30)
    assert heard == sorted(heard) and heard[-1] == 1 and 0 <= heard[0] < 0.1 and len(heard) >= 100


def test_a_progress_function_that_fails_ends_its_song_alone(engine: Engine) -> None:
    def fail(progress: float) -> None:
        if progress > 0.3:
            raise ValueError("no more")

    gate = Gate(engine)
    bad, good = engine.start(SongRequest(PROMPT, 2, 1), fail), engine.start(SongRequest(PROMPT, 2, 1))
    gate.opened.set()
    with pytest.raises(ValueError, match="no more"):
        bad.result(30)
    assert good.result(30).shape == (1, 64000)


def test_a_cancelled_song_frees_its_place_between_two_steps(engine: Engine) -> None:
    gate = Gate(engine)
    songs = [engine.start(SongRequest(PROMPT, 3, n)) for n in range(4)]
    assert gate.reached.wait(10)
    wait_for(lambda: engine.playing >= 1)
    songs[0].cancel()
    songs[3].cancel()
    gate.opened.set()
    expected = [song.result(30) for song in songs[1:3]]
    for song in (songs[0], songs[3]):
        with pytest.raises(CancelledError):
            song.result(0)
        with pytest.raises(CancelledError):
            list(song.pieces())
    wait_for(lambda: engine.playing == engine.waiting == 0)
    for seed, audio in enumerate(expected, 1):
        np.testing.assert_array_equal(engine.generate(SongRequest(PROMPT, 3, seed)), audio)


def test_a_full_queue_says_so_and_the_others_are_made(untrained: dict[str, Path]) -> None:
    with Engine(backend_of(untrained["mono"]), songs=1, waiting=2) as engine:
        gate = Gate(engine)
        songs = [engine.start(SongRequest(PROMPT, 1, 0))]
        wait_for(lambda: engine.playing == 1)
        songs += [engine.start(SongRequest(PROMPT, 1, n)) for n in (1, 2)]
        with pytest.raises(BusyError, match="1 songs are being made and 2 wait"):
            engine.start(SongRequest(PROMPT, 1, 3))
        gate.opened.set()
        assert all(song.result(30).shape == (1, RATE) for song in songs)
        assert engine.start(SongRequest(PROMPT, 1, 3)).result(30).shape == (1, RATE)


def test_a_backend_that_fails_fails_its_songs_and_the_next_are_made(engine: Engine) -> None:
    step, calls = engine.backend.step, []

    def broken(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 10:
            raise ModelError("the device is gone")
        return step(*arguments)

    engine.backend.step = broken  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="the device is gone"):
        engine.start(SongRequest(PROMPT, 1, 0)).result(30)
    assert engine.generate(SongRequest(PROMPT, 1, 0)).shape == (1, RATE)


def test_closing_cancels_or_finishes(untrained: dict[str, Path]) -> None:
    for finish in (True, False):
        engine = Engine(backend_of(untrained["mono"]), songs=1)
        gate = Gate(engine)
        songs = [engine.start(SongRequest(PROMPT, 1, n)) for n in range(2)]
        closer = threading.Thread(target=engine.close, kwargs={"finish": finish})
        closer.start()
        wait_for(lambda engine=engine: engine._closing)  # type: ignore[misc]
        with pytest.raises(BusyError):
            engine.start(SongRequest(PROMPT, 1, 3))
        gate.opened.set()
        closer.join(30)
        assert not closer.is_alive()
        for song in songs:
            if finish:
                assert song.result(0).shape == (1, RATE)
            else:
                with pytest.raises(CancelledError):
                    song.result(0)


def test_when_done_is_called_however_a_song_ends(engine: Engine) -> None:
    ended: list[Song] = []
    gate = Gate(engine)
    songs = [engine.start(SongRequest(PROMPT, 1, n)) for n in range(2)]
    for song in songs:
        song.when_done(ended.append)
    songs[1].cancel()
    gate.opened.set()
    songs[0].result(30)
    wait_for(lambda: len(ended) == 2)
    assert set(map(id, ended)) == set(map(id, songs))


def test_a_song_longer_than_a_window_goes_on_from_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each window after the first reads what the context has, and nothing that is known is chosen anew."""
    windows: list[tuple[Any, int]] = []  # known codes, all frames
    heard: list[Any] = []  # by the first channel's EnCodec

    def spy(known: Any, frames: int, *rest: Any) -> Any:
        windows.append((known.copy(), frames))
        return delayed(known, frames, *rest)

    def push(self: CodecStream, codes: Any, **more: Any) -> Any:
        if self is streams.setdefault(0, self):
            heard.append(codes)
        return original(self, codes, **more)

    streams: dict[int, CodecStream] = {}
    original = CodecStream.push
    monkeypatch.setattr("melodify_lib.music.musicgen.engine.delayed", spy)
    monkeypatch.setattr(CodecStream, "push", push)
    with Engine(backend_of(folder)) as engine:
        audio = engine.generate(SongRequest(PROMPT, 64, 1))
        context = round(CONTEXT_SECONDS * 50)
        assert audio.shape == (engine.shape.channels, 64 * RATE)
        assert [(known.shape[1], frames) for known, frames in windows] == [(0, 1500), (context, 1500), (context, 1200)]
        codes = np.concatenate(heard, 1)
        channels = engine.shape.channels
        for (known, _), start in zip(windows[1:], (1000, 2000), strict=True):
            np.testing.assert_array_equal(known[::channels], codes[:, start : start + context])
        short = engine.generate(SongRequest(PROMPT, 30, 1))
        np.testing.assert_array_equal(
            audio[:, : 29 * RATE], short[:, : 29 * RATE]
        )  # the first window is a song of 30 s


def test_long_songs_go_on_from_given_codes_too(engine: Engine) -> None:
    known = np.random.default_rng(0).integers(0, 2048, (4, 1000))
    assert engine.generate(SongRequest(PROMPT, 45, 1, given=known)).shape == (1, 45 * RATE)


KNOWN = np.zeros((4, 10), np.int64)
IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"seconds": 0.5}, "seconds must be between 1 and 300; got 0.5"),
    ({"seconds": float("nan")}, "seconds must be between"),
    ({"seconds": 1e9}, "seconds must be between"),
    ({"seconds": "long"}, "seconds must be a number"),
    ({"seconds": None}, "seconds must be a number"),
    ({"seed": -1}, "seed must be a whole number"),
    ({"seed": 2**63}, "seed must be a whole number"),
    ({"seed": 1.5}, "the seed a whole one"),
    ({"prompt": "  "}, "the prompt is empty"),
    ({"prompt": None}, "the prompt is empty"),
    ({"prompt": "piano \ud800"}, "the prompt cannot be read"),
    ({"prompt": "music " * 600}, "at most 512 tokens"),
    ({"prompt": "m" * 100_000}, "100,000 characters"),
    ({"given": KNOWN[:3]}, r"whole numbers \[4, frames\]"),
    ({"given": KNOWN[0]}, r"whole numbers \[4, frames\]"),
    ({"given": KNOWN + 0.5}, "got float64"),
    ({"given": np.zeros((4, 200), np.int64)}, "fewer than the song's 200"),
    ({"given": KNOWN + 2048}, "from 0 to 2047"),
    ({"given": KNOWN - 1}, "from 0 to 2047"),
]


@pytest.mark.parametrize(("change", "message"), IMPOSSIBLE)
def test_what_cannot_be_made_is_said_at_once(engine: Engine, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        engine.start(SongRequest(**{"prompt": PROMPT, "seconds": 4, **change}))
    assert engine.playing == engine.waiting == 0


def test_codes_that_a_caller_changes_later_are_not_read(engine: Engine) -> None:
    known = np.random.default_rng(0).integers(0, 2048, (4, 60))
    expected = engine.generate(SongRequest(PROMPT, 3, 1, given=known.copy()))
    gate = Gate(engine)
    song = engine.start(SongRequest(PROMPT, 3, 1, given=known))
    known[:] = 99_999
    gate.opened.set()
    np.testing.assert_array_equal(song.result(30), expected)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, CancelledError])
def test_whatever_a_callback_raises_the_engine_goes_on(engine: Engine, error: type[BaseException]) -> None:
    def fail(_: float) -> None:
        raise error

    with pytest.raises(error):
        engine.start(SongRequest(PROMPT, 1, 0), fail).result(30)
    assert engine.generate(SongRequest(PROMPT, 1, 0)).shape == (1, RATE)


def test_pieces_may_be_read_when_a_song_is_done_and_again(engine: Engine) -> None:
    heard: list[int] = []
    song = engine.start(SongRequest(PROMPT, 2, 0))
    song.when_done(lambda song: heard.append(sum(piece.shape[1] for piece in song.pieces())))
    song.result(30)
    wait_for(lambda: heard == [2 * RATE])
    assert list(song.pieces()) == []


def test_cancelled_songs_leave_the_queue_at_once(untrained: dict[str, Path]) -> None:
    with Engine(backend_of(untrained["mono"]), songs=1, waiting=2) as engine:
        gate = Gate(engine)
        first = engine.start(SongRequest(PROMPT, 1, 0))
        assert gate.reached.wait(10)
        for _ in range(20):
            song = engine.start(SongRequest(PROMPT, 1, 1))
            song.cancel()
            with pytest.raises(CancelledError):
                list(song.pieces())  # though nothing moves
        assert engine.waiting == 0
        gate.opened.set()
        assert first.result(30).shape == (1, RATE)


def test_an_interrupted_caller_leaves_no_song_behind(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(engine)

    def interrupted(*_: Any) -> None:
        assert gate.reached.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(Song, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.generate(SongRequest(PROMPT, 30, 0))
    gate.opened.set()
    wait_for(lambda: engine.playing == 0)


def test_a_forked_process_is_told_that_it_has_no_engine(engine: Engine) -> None:
    thread, engine._thread = engine._thread, threading.Thread()  # as a fork sees it: not alive
    with pytest.raises(BusyError, match="the engine is closed"):
        engine.start(SongRequest(PROMPT, 1, 0))
    engine._thread = thread


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_weights_that_give_no_numbers_are_said(
    untrained: dict[str, Path], monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    with Engine(backend_of(untrained["mono"], precision)) as engine:
        step = engine.backend.step
        monkeypatch.setattr(engine.backend, "step", lambda *arguments: step(*arguments) * np.nan)
        with pytest.raises(ModelError, match="give no numbers"):
            engine.generate(SongRequest(PROMPT, 1, 0))


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_reading_a_prefix_is_the_same_as_stepping_through_it(folder: Path, precision: str) -> None:
    backend = backend_of(folder, precision)
    columns = np.random.default_rng(0).integers(0, 2048, (41, backend.shape.codebooks))
    text = backend.encode(backend.tokens(PROMPT))
    backend.reserve(2, 64, text.shape[1])
    for slot in range(2):
        backend.place(slot, text)
    for at in range(40):
        backend.step(columns[None, at], np.array([at]))
    for at in range(0, 40, backend.prefill_piece):
        backend.prefill(1, columns[at : min(40, at + backend.prefill_piece)], at)
    stepped, read = backend.step(columns[[40, 40]], np.array([40, 40]))
    assert np.sqrt(np.mean((read - stepped) ** 2)) < 0.02 * stepped.std()
    backend.place(1, text)
    nothing_read = backend.step(columns[[40, 40]], np.array([40, 0]))[1]
    assert np.sqrt(np.mean((nothing_read - stepped) ** 2)) > 0.1 * stepped.std()


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_memory_that_is_not_there_is_said_with_the_figure(
    untrained: dict[str, Path], monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    with Engine(backend_of(untrained["mono"], precision), songs=8) as engine:
        monkeypatch.setattr("melodify_lib.music.musicgen.memory.available", lambda: 1000)
        with pytest.raises(
            ModelError, match=r"songs of \d+ positions: [\d.]+ GB of memory are needed and 0.0 GB are free"
        ):
            engine.generate(SongRequest(PROMPT, 10, 0))
        with pytest.raises(ModelError, match="the weights"):
            backend_of(untrained["mono"], precision)
        monkeypatch.undo()
        assert engine.generate(SongRequest(PROMPT, 1, 0)).shape == (1, RATE)


def test_the_delay_pattern_of_the_paper() -> None:
    known = np.array([[10, 11], [20, 21], [30, 31]])
    columns = delayed(known, 4, np.arange(3), 99)
    np.testing.assert_array_equal(
        columns,
        [[99, 10, 11, -1, -1, 99, 99], [99, 99, 20, 21, -1, -1, 99], [99, 99, 99, 30, 31, -1, -1]],
    )
    np.testing.assert_array_equal(undelayed(columns, np.arange(3), 0, 2), known)


def test_draws_follow_the_distribution_within_what_is_kept() -> None:
    noise = np.random.default_rng(0)
    logits = np.log(np.array([[0.5, 0.25, 0.15, 0.1]], np.float32))

    def shares(sampling: Sampling) -> Any:
        draws = [choose(logits, sampling, noise.standard_exponential((1, 4), np.float32))[0] for _ in range(20_000)]
        return np.bincount(draws, minlength=4) / len(draws)

    np.testing.assert_allclose(shares(Sampling(top_k=0)), [0.5, 0.25, 0.15, 0.1], atol=0.015)
    np.testing.assert_allclose(shares(Sampling(top_k=2)), [2 / 3, 1 / 3, 0, 0], atol=0.015)
    np.testing.assert_allclose(shares(Sampling(top_k=0, top_p=0.6)), [2 / 3, 1 / 3, 0, 0], atol=0.015)
    for cold in (Sampling(top_k=0, top_p=0.4), Sampling(top_p=1e-46), Sampling(temperature=1e-40), Sampling(top_k=1)):
        np.testing.assert_allclose(shares(cold), [1, 0, 0, 0])
    squares = np.array([0.25, 0.0625, 0.0225, 0.01]) / 0.345
    np.testing.assert_allclose(shares(Sampling(top_k=0, temperature=0.5)), squares, atol=0.015)


def test_guidance_moves_away_from_what_has_no_prompt() -> None:
    logits = np.array([[1.0, 2.0], [0.0, 4.0]], np.float32)
    np.testing.assert_allclose(guided(logits, 3), [3, -2])
    np.testing.assert_array_equal(guided(logits, 1), logits[0])
