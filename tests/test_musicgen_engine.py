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
    windows: list[tuple[int, int]] = []  # known frames, all frames

    def spy(known: Any, frames: int, *rest: Any) -> Any:
        windows.append((known.shape[1], frames))
        return delayed(known, frames, *rest)

    monkeypatch.setattr("melodify_lib.music.musicgen.engine.delayed", spy)
    with Engine(backend_of(folder)) as engine:
        audio = engine.generate(SongRequest(PROMPT, 64, 1))
        context = round(CONTEXT_SECONDS * 50)
        assert audio.shape == (engine.shape.channels, 64 * RATE)
        assert windows == [(0, 1500), (context, 1500), (context, 1200)]
        short = engine.generate(SongRequest(PROMPT, 30, 1))
        np.testing.assert_array_equal(
            audio[:, : 29 * RATE], short[:, : 29 * RATE]
        )  # the first window is a song of 30 s


def test_long_songs_go_on_from_given_codes_too(engine: Engine) -> None:
    known = np.random.default_rng(0).integers(0, 2048, (4, 1000))
    assert engine.generate(SongRequest(PROMPT, 45, 1, given=known)).shape == (1, 45 * RATE)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (SongRequest(PROMPT, 0.5), "seconds must be between 1 and 300; got 0.5"),
        (SongRequest(PROMPT, float("nan")), "seconds must be between"),
        (SongRequest(PROMPT, 1e9), "seconds must be between"),
        (SongRequest(PROMPT, 4, seed=-1), "seed must be a whole number"),
        (SongRequest("  ", 4), "the prompt is empty"),
        (SongRequest("music " * 600, 4), "at most 512 tokens"),
        (SongRequest("m" * 100_000, 4), "100,000 characters"),
        (SongRequest(PROMPT, 4, given=np.zeros((3, 10), np.int64)), "4 codes"),
        (SongRequest(PROMPT, 4, given=np.zeros((4, 200), np.int64)), "must be shorter"),
        (SongRequest(PROMPT, 4, given=np.full((4, 10), 2048)), "from 0 to 2047"),
    ],
)
def test_what_cannot_be_made_is_said(engine: Engine, request_: SongRequest, message: str) -> None:
    with pytest.raises(InputError, match=message):
        engine.start(request_).result(30)
    assert engine.generate(SongRequest(PROMPT, 1, 0)).shape == (1, RATE)


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
    np.testing.assert_allclose(shares(Sampling(top_k=0, top_p=0.4)), [1, 0, 0, 0])
    squares = np.array([0.25, 0.0625, 0.0225, 0.01]) / 0.345
    np.testing.assert_allclose(shares(Sampling(top_k=0, temperature=0.5)), squares, atol=0.015)


def test_guidance_moves_away_from_what_has_no_prompt() -> None:
    logits = np.array([[1.0, 2.0], [0.0, 4.0]], np.float32)
    np.testing.assert_allclose(guided(logits, 3), [3, -2])
    np.testing.assert_array_equal(guided(logits, 1), logits[0])
