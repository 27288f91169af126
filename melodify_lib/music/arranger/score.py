"""The score: what is played, by what, and how it is mixed. Everything after it only makes it audible.

Times are in beats from the start of the piece, already swung and humanised; pitches are MIDI key
numbers (60 = middle C), velocities 1 to 127.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Note:
    start: float
    duration: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Mix:
    """How a part sits in the mix.

    `level_db` is the part's loudness while it plays, against the lead's 0 dB; `pan` is −1 to 1;
    `reverb`, `delay`, `chorus` are sends from 0 to 1; `drive_db` feeds the distortion (0: none);
    filters in Hz (0: none); `duck_db` is how far the part steps back at each kick.
    """

    level_db: float = 0.0
    pan: float = 0.0
    reverb: float = 0.2
    delay: float = 0.0
    chorus: float = 0.0
    drive_db: float = 0.0
    highpass_hz: float = 0.0
    lowpass_hz: float = 0.0
    duck_db: float = 0.0


@dataclass(frozen=True)
class Part:
    """One instrument. `program` is General MIDI's, 0 to 127; for drums it is the kit.

    `vibrato_cents` is what the player adds to the instrument's own sound.
    """

    name: str
    role: str
    program: int
    is_drum: bool
    notes: tuple[Note, ...]
    mix: Mix = field(default_factory=Mix)
    vibrato_cents: float = 0.0


@dataclass(frozen=True)
class Section:
    """A section's name, its first beat and its length in beats."""

    name: str
    start: float
    duration: float


@dataclass(frozen=True)
class Score:
    """A piece in one tempo and one key.

    `bars` holds the length of each bar in beats; the last is the final chord's. `brightness_db` is the high shelf
    of the whole mix, `reverb_seconds` the length of its room, `delay_beats` that of its echo. A loop has no final
    chord: it goes on from its beginning.
    """

    title: str
    bpm: float
    key: str
    seconds: float
    bars: tuple[int, ...]
    sections: tuple[Section, ...]
    parts: tuple[Part, ...]
    brightness_db: float = 0.0
    reverb_seconds: float = 1.8
    delay_beats: float = 0.75
    is_loop: bool = False

    @property
    def beat_seconds(self) -> float:
        return 60.0 / self.bpm
