"""What can play: the table ``instruments.yaml``, and how a name in a description is found in it."""

from __future__ import annotations

import re
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from melodify_lib.errors import SettingsError
from melodify_lib.nouns import first_problem
from melodify_lib.tables import read_yaml

Pitch = Annotated[int, Field(ge=0, le=127)]
Role = Literal["lead", "chords", "arpeggio", "pad", "bass", "colour", "drums", "percussion", "timpani"]


class Instrument(BaseModel):
    """One row of the table.

    `program` is General MIDI's number (from 0), or `kit` the drum kit's. `range` is where it is
    comfortable. `roles` come in order of preference. `hits` maps names of drums to pitches, for
    drums that are not part of a kit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    program: Pitch | None = None
    kit: Pitch | None = None
    range: tuple[Pitch, Pitch] = (0, 127)
    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    hits: dict[str, Pitch] = {}
    vibrato: Annotated[float, Field(ge=0, le=50)] = 0.0
    release: Annotated[float, Field(ge=0, le=3)] = 0.0
    level: Annotated[float, Field(ge=-12, le=12)] = 0.0
    synonyms: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_one_sound(self) -> Instrument:
        if (self.program is None) == (self.kit is None):
            raise ValueError("give either a program or a kit")
        if self.range[1] - self.range[0] < 12:
            raise ValueError("the range must span an octave at least")
        return self

    @property
    def is_drum(self) -> bool:
        return self.kit is not None

    @property
    def is_unpitched(self) -> bool:
        return self.kit is not None or bool(self.hits)


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    drums: dict[str, Pitch]
    instruments: tuple[Instrument, ...]


@cache
def _table() -> _Table:
    path = Path(__file__).parent / "instruments.yaml"
    data = read_yaml(path)
    data["instruments"] = [{"name": name, **row} for name, row in data["instruments"].items()]
    try:
        return _Table.model_validate(data)
    except ValidationError as error:
        raise SettingsError(f"{path}: {first_problem(error)}") from None


def drums() -> dict[str, int]:
    """Name of a drum in a groove → its key in a General MIDI kit."""
    return _table().drums


@cache
def instruments() -> dict[str, Instrument]:
    """Name or synonym → instrument."""
    table: dict[str, Instrument] = {}
    for instrument in _table().instruments:
        for name in (instrument.name, *instrument.synonyms):
            table.setdefault(name, instrument)
    return table


def find(name: str) -> Instrument | None:
    """The instrument a description means, by its name or by the longest known name inside it; None if there is none.

    ``"warm electric piano"`` is an electric piano, ``"guitars"`` a guitar.
    """
    table = instruments()
    words = re.findall(r"[a-z0-9&]+", name.lower())
    singular = [word[:-1] if word.endswith("s") and len(word) > 3 else word for word in words]
    spans = list(combinations(range(len(words) + 1), 2))
    tries = [" ".join(form[start:end]) for form in (words, singular) for start, end in spans]
    known = [text for text in tries if text in table]
    return table[max(known, key=len)] if known else None
