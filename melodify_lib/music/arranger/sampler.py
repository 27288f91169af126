"""Plays notes with a SoundFont: one part in, stereo audio out, on as many threads as there are callers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from melodify_lib.music.arranger.fluidsynth import BLOCK, SAMPLE_RATE, Synth
from melodify_lib.music.arranger.soundfont import SoundFont

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

_DEEPEST_VIBRATO = 50.0  # cents: the modulation wheel's whole way (SoundFont 2.04, section 8.4.6)


@dataclass(frozen=True)
class Voice:
    """How a part plays the font: its preset, and its vibrato in cents (0 to 50)."""

    program: int
    is_drum: bool = False
    vibrato: float = 0.0


@dataclass(frozen=True)
class Hit:
    """A note, its times in seconds."""

    start: float
    duration: float
    pitch: int
    velocity: int


class Sampler:
    """A SoundFont, ready to play."""

    def __init__(self, font: SoundFont) -> None:
        """Raises `SettingsError` when the font cannot be played."""
        self.font = font
        self._idle: SimpleQueue[Synth] = SimpleQueue()
        self._idle.put(Synth(font.path))

    def play(
        self, hits: Iterable[Hit], voice: Voice, samples: int, go_on: Callable[[], None] = lambda: None
    ) -> npt.NDArray[np.float32]:
        """Audio float32 ``[2, samples]`` of a part; what rings past the end is cut. What `go_on` raises ends it."""
        blocks = -(-samples // BLOCK)
        audio = np.zeros((2, blocks * BLOCK), np.float32)
        at = 0
        with self._synth() as synth:
            wheel = round(min(voice.vibrato / _DEEPEST_VIBRATO, 1) * 127)
            synth.begin(voice.program, is_drum=voice.is_drum, modulation=wheel)
            for block, is_start, hit in _events(hits):
                until = min(block, blocks) * BLOCK
                if until > at:
                    go_on()
                    synth.write(audio, at, until)
                    at = until
                if is_start:
                    synth.press(hit.pitch, hit.velocity)
                else:
                    synth.release(hit.pitch)
            if at < blocks * BLOCK:
                synth.write(audio, at, blocks * BLOCK)
        return audio[:, :samples]

    @contextmanager
    def _synth(self) -> Iterator[Synth]:
        try:
            synth = self._idle.get_nowait()
        except Empty:
            synth = Synth(self.font.path)
        try:
            yield synth
        finally:
            self._idle.put(synth)


def _events(hits: Iterable[Hit]) -> list[tuple[int, bool, Hit]]:
    """Keys going down (True) and up, in the order of their blocks; up before down.

    MIDI cannot sound a key twice at once: the end of a note would silence the next of its pitch, so it comes before it.
    """
    events: list[tuple[int, bool, Hit]] = []
    following: dict[int, int] = {}
    for hit in sorted((hit for hit in hits if hit.velocity > 0), key=lambda hit: hit.start, reverse=True):
        start, end = (round(seconds * SAMPLE_RATE / BLOCK) for seconds in (hit.start, hit.start + hit.duration))
        end = min(max(end, start + 1), following.get(hit.pitch, end + 1))
        following[hit.pitch] = start
        events += [(start, True, hit), (end, False, hit)]
    events.sort(key=lambda event: event[:2])
    return events
