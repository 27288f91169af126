"""Teachers write the dataset's examples: each is given assignments, and answers with captions and the music for them.

`TEACHERS` is the only place that knows which there are; a module is imported when it is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from melodify_lib.dataset.form import Example
from melodify_lib.dataset.tables import Choice, Tables
from melodify_lib.errors import SettingsError

if TYPE_CHECKING:
    from melodify_lib.settings import Settings

Progress = Callable[[int, int], None]
"""Called with examples done and in all."""


@dataclass(frozen=True)
class Assignment:
    """What a teacher is asked for: an example of `choice`; `seed` tells it from others of the same choice."""

    choice: Choice
    seed: str


@dataclass(frozen=True)
class Estimate:
    """What is about to be asked, and what it would cost in dollars, before anything is sent.

    `spent` is what was paid in the same folder before; `source` says where the prices are from.
    """

    model: str
    requests: int
    input_tokens: int
    output_tokens: int
    dollars: float
    spent: float
    source: str

    def __str__(self) -> str:
        before = f", after ${self.spent:.4f} spent before" if self.spent else ""
        return (
            f"{self.requests:,} requests to {self.model}: about {self.input_tokens:,} tokens in and "
            f"{self.output_tokens:,} out, ${self.dollars:.2f}{before} ({self.source})"
        )


@dataclass(frozen=True)
class Terms:
    """On what terms a teacher that is paid works: where its journal is, what it may cost, how fast it may ask."""

    folder: Path
    budget: float | None = None  # dollars
    rate: float = 300  # requests a minute
    on_estimate: Callable[[Estimate], None] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.rate < math.inf:
            raise SettingsError(f"a rate of {self.rate:g} requests a minute cannot be kept; give a number above 0")


@dataclass(frozen=True)
class Taught:
    """An example for each assignment, or None where no answer would do; why, with counts; dollars spent."""

    examples: list[Example | None]
    dropped: Mapping[str, int] = field(default_factory=dict)
    spent: float = 0.0


class Teacher(Protocol):
    """Writes examples."""

    def teach(self, assignments: Sequence[Assignment], tables: Tables, on_progress: Progress | None = None) -> Taught:
        """An example for each assignment, in their order; no two captions and no two descriptions are the same."""
        ...


TEACHERS = {
    "offline": "melodify_lib.dataset.teachers.offline",
    "openai": "melodify_lib.dataset.teachers.openai",
    "gemini": "melodify_lib.dataset.teachers.gemini",
}
"""Name → module with a function ``from_settings(settings, terms)``."""


def teacher(name: str, settings: Settings, terms: Terms) -> Teacher:
    """The teacher of that name. Raises `SettingsError` for a name that is not in `TEACHERS`."""
    if name not in TEACHERS:
        raise SettingsError(f"no teacher {name!r}; choose one of: {', '.join(TEACHERS)}")
    return cast(Teacher, import_module(TEACHERS[name]).from_settings(settings, terms))
