"""Styles: what a genre sounds like, one YAML file a genre in ``styles/``. Adding a genre is adding a file.

`Style` is the file's form, and every field of it is explained here; see any file beside for an
example, `patterns` for how rhythm is written and `harmony` for how chords are.
"""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from melodify_lib.errors import SettingsError
from melodify_lib.music.arranger import patterns
from melodify_lib.music.arranger.harmony import SCALES, parse_chord, parse_progression
from melodify_lib.music.arranger.instruments import Pitch, Role, drums, find
from melodify_lib.nouns import first_problem
from melodify_lib.tables import read_yaml

FOLDER = Path(__file__).parent / "styles"

Level = Literal["low", "mid", "high"]
Mode = Literal["major", "minor"]
Plays = Literal["drums", "bass", "chords", "arpeggio", "sustain", "melody", "counter", "answer"]
Share = Annotated[float, Field(ge=0, le=1)]
_T = TypeVar("_T")
Some = Annotated[tuple[_T, ...], Field(min_length=1)]
PerMode = Annotated[dict[Mode, _T], Field(min_length=len(get_args(Mode)))]
"""For major and for minor, both."""
ByLevel = dict[Level, Some[_T]]
Phrase = Annotated[str, Field(pattern=r"^[abc]'?( [abc]'?)*$")]

_SYMBOLS: dict[str, str] = {
    "drums": "xX,?",
    "bass": "R12345678vawgn",
    "chords": "xX,bfm",
    "arpeggio": "12345678",
    "sustain": "xX",
    "melody": "xX",
    "counter": "xXs",
    "answer": "xX",
}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Feel(_Model):
    """How the time feels.

    `swing` delays every second step of `swing_unit` (8 or 16: eighth or sixteenth notes) by that share
    of a step: 0 straight, 0.33 triplets. `timing_ms` and `velocity` are the spread (one standard
    deviation) of a player's timing and touch.
    """

    swing: Annotated[float, Field(ge=0, le=0.6)] = 0.0
    swing_unit: Literal[8, 16] = 16
    timing_ms: Annotated[float, Field(ge=0, le=30)] = 6.0
    velocity: Annotated[float, Field(ge=0, le=20)] = 5.0


class MixStyle(_Model):
    """See `score.Mix`: decibels against the lead, pan −1 to 1, sends 0 to 1."""

    level_db: Annotated[float, Field(ge=-40, le=12)] = -6.0
    pan: Annotated[float, Field(ge=-1, le=1)] = 0.0
    reverb: Share = 0.2
    delay: Share = 0.0
    chorus: Share = 0.0
    drive_db: Annotated[float, Field(ge=0, le=40)] = 0.0
    highpass_hz: Annotated[float, Field(ge=0, le=2000)] = 120.0
    lowpass_hz: Annotated[float, Field(ge=0, le=20000)] = 0.0
    duck_db: Annotated[float, Field(ge=0, le=24)] = 0.0


class PartStyle(_Model):
    """One part of the arrangement.

    `role` is what an instrument must be able to do to take the part, `default` the instruments that
    take it when nobody asked for others (one is chosen, the first most often). Where `only` is given,
    nobody but these and the defaults may take it. An `optional` part only plays when an instrument is
    asked for that would otherwise have nothing to do. One that `follows` another chooses as that one does: its first
    pattern goes with the other's first, its second with the second.
    `late_ms` is how far behind the beat it sits, `velocity` its usual touch, `gate` the share of a
    note's length that sounds, `release` the seconds by which notes are held over into the next,
    `compass` its lowest and highest note, `grid` its steps a beat where they are not the style's.
    """

    plays: Plays
    role: Role
    default: Some[str]
    only: tuple[str, ...] = ()
    optional: bool = False
    follows: str | None = None
    velocity: Annotated[int, Field(ge=1, le=127)] = 90
    gate: Annotated[float, Field(gt=0, le=1.5)] = 0.95
    late_ms: Annotated[float, Field(ge=-30, le=60)] = 0.0
    compass: tuple[Pitch, Pitch] = (48, 84)
    release: Annotated[float, Field(ge=0, le=4)] = 0.0
    mix: MixStyle = MixStyle()
    grid: Literal[2, 3, 4] | None = None
    # drums
    grooves: ByLevel[dict[str, str]] = {}
    fills: tuple[dict[str, str], ...] = ()
    crash: bool = True
    # everybody else: patterns by energy
    patterns: ByLevel[str] = {}
    # chords, arpeggio, sustain
    voices: Annotated[int, Field(ge=1, le=6)] = 4
    spread: Literal["close", "open", "power"] = "close"
    strum_ms: Annotated[float, Field(ge=0, le=80)] = 0.0
    octaves: bool = False  # of an arpeggio: two hands, an octave apart
    # bass, melody, answer
    scale: PerMode[str] = {"major": "major", "minor": "minor"}
    leap: Share = 0.3
    phrases: Some[Phrase] = ("a a' b c", "a b a c", "a a' a c")
    grace: Share = 0.0

    @model_validator(mode="after")
    def _makes_sense(self) -> PartStyle:
        for name in (*self.default, *self.only):
            if find(name) is None:
                raise ValueError(f"default: no instrument {name!r} in instruments.yaml")
        for mode, scale in self.scale.items():
            if scale not in SCALES:
                raise ValueError(f"scale: {mode}: no scale {scale!r}; there are {', '.join(SCALES)}")
        if self.compass[1] - self.compass[0] < 11:
            raise ValueError("compass: must span at least eleven semitones")
        if self.plays == "drums" and not self.grooves:
            raise ValueError("grooves: a part that plays drums needs some")
        if self.plays in ("bass", "chords", "arpeggio", "melody", "answer") and not self.patterns:
            raise ValueError(f"patterns: a part that plays {self.plays} needs some")
        for groove in [*self.fills, *(groove for level in self.grooves.values() for groove in level)]:
            for drum in groove:
                if drum not in drums():
                    raise ValueError(f"grooves: no drum {drum!r}; there are {', '.join(drums())}")
        return self

    def all_patterns(self) -> list[tuple[str, str]]:
        """Each pattern with the field it is in."""
        found = [(f"patterns: {level}", text) for level, texts in self.patterns.items() for text in texts]
        for level, grooves in self.grooves.items():
            found += [(f"grooves: {level}: {drum}", text) for groove in grooves for drum, text in groove.items()]
        return found + [(f"fills: {drum}", text) for fill in self.fills for drum, text in fill.items()]


class SectionStyle(_Model):
    """A kind of section: how full it is (`energy`), who plays (`parts`, all if empty), over which progression."""

    energy: Level
    parts: tuple[str, ...] = ()
    progression: str
    bars: Annotated[int, Field(ge=1, le=16)] = 8


class Style(_Model):
    """A genre's file.

    `ending`: its `final` chord may ``ring`` out; or all ``stop`` on it, where the last whole bar ends .9 to 2.2 s
    before the end.
    """

    genre: str
    beats_per_bar: Literal[3, 4] = 4
    steps_per_beat: Literal[2, 3, 4] = 4
    phrase_bars: Annotated[int, Field(ge=2, le=12)] = 4
    feel: Feel = Feel()
    progressions: dict[str, PerMode[Some[str]]]
    cadence: PerMode[Some[str]]
    final: PerMode[str] = {"major": "I", "minor": "i"}
    ending: Literal["ring", "stop"] = "ring"
    sections: dict[str, SectionStyle]
    plans: Some[str]
    parts: dict[str, PartStyle]
    one_player: bool = False
    reverb_seconds: Annotated[float, Field(gt=0, le=8)] = 1.8
    delay_beats: Annotated[float, Field(gt=0, le=2)] = 0.75
    tilt_db: Annotated[float, Field(ge=-9, le=9)] = 0.0

    @model_validator(mode="after")
    def _patterns_fit(self) -> Style:
        for name, part in self.parts.items():
            steps = self.beats_per_bar * (part.grid or self.steps_per_beat)
            for field, text in part.all_patterns():
                pattern = patterns.clean(text)
                if not pattern or len(pattern) % steps:
                    raise ValueError(f"parts: {name}: {field}: {text!r} has {len(pattern)} steps; a bar has {steps}")
                unknown = set(pattern) - set(_SYMBOLS[part.plays] + patterns.REST + patterns.HOLD)
                if unknown:
                    raise ValueError(f"parts: {name}: {field}: {text!r}: {part.plays} cannot play {sorted(unknown)}")
        return self

    @model_validator(mode="after")
    def _names_are_known(self) -> Style:
        for name, part in self.parts.items():
            if part.follows and part.follows not in self.parts:
                raise ValueError(f"parts: {name}: follows: there is no part {part.follows!r}")
        for name, section in self.sections.items():
            unknown = [part for part in section.parts if part not in self.parts]
            if unknown:
                raise ValueError(f"sections: {name}: parts: there is no part {unknown[0]!r}")
            if section.progression not in self.progressions:
                raise ValueError(f"sections: {name}: there is no progression {section.progression!r}")
        for plan in self.plans:
            unknown = [name for name in plan.split() if name not in self.sections]
            if unknown or not plan.split():
                raise ValueError(f"plans: {plan!r}: there is no section {''.join(unknown[:1])!r}")
        return self

    @model_validator(mode="after")
    def _chords_can_be_read(self) -> Style:
        for modes in [*self.progressions.values(), self.cadence]:
            for text in itertools.chain.from_iterable(modes.values()):
                parse_progression(text)
        for text in self.final.values():
            parse_chord(text)
        return self


@cache
def load_style(path: Path) -> Style:
    """Read and check one file. Raises `SettingsError` naming the file and the field."""
    try:
        style = Style.model_validate(read_yaml(path))
    except ValidationError as error:
        raise SettingsError(f"{path}: {first_problem(error)}") from None
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
    if _file_of(style.genre) != path.name:
        raise SettingsError(f"{path}: genre: {style.genre!r} belongs into {_file_of(style.genre)}")
    return style


def _file_of(genre: str) -> str:
    return f"{genre.replace('&', 'n')}.yaml"


def style_of(genre: str) -> Style:
    """The style of a genre. Its file is named after it, with ``&`` written as ``n``: ``rnb.yaml``."""
    path = FOLDER / _file_of(genre)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise SettingsError(f"no style for the genre {genre!r}: {path} does not exist; there are {known}")
    return load_style(path)
