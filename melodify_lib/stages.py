"""The stages of the flow: one protocol each, one method each, implementations chosen by name.

A stage knows nothing of its neighbours: it takes a noun and returns the next. `STAGES` is the
only place that knows which implementations there are; a module is imported when it is chosen.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from melodify_lib.errors import SettingsError
from melodify_lib.nouns import Caption, MusicDescription, StageVersion, Track

if TYPE_CHECKING:
    from PIL.Image import Image

    from melodify_lib.settings import Settings


class Captioner(Protocol):
    """Says what a picture shows and how it feels."""

    @property
    def version(self) -> StageVersion: ...

    def caption(self, image: Image) -> Caption:
        """Caption an RGB picture, as `melodify_lib.image.open_image` returns it."""
        ...


class Describer(Protocol):
    """Turns a caption into a description of music that fits it."""

    @property
    def version(self) -> StageVersion: ...

    def describe(self, caption: Caption, genre: str | None = None) -> MusicDescription:
        """Describe the music for `caption`, in `genre` (one of `GENRES`) if it is given."""
        ...


class Musician(Protocol):
    """Makes the music."""

    @property
    def version(self) -> StageVersion: ...

    def play(self, description: MusicDescription, seconds: float, seed: int) -> Track:
        """Make `seconds` (±0.5 s) of audio. The same arguments give the same bytes."""
        ...


STAGES: dict[str, dict[str, str]] = {
    "captioner": {"local": "melodify_lib.caption.local"},
    "describer": {"local": "melodify_lib.describe.local"},
    "musician": {"arranger": "melodify_lib.music.arranger"},
}
"""Stage → name in the settings → module with a function ``from_settings(settings)``."""


def captioner(settings: Settings) -> Captioner:
    return _build("captioner", settings)


def describer(settings: Settings) -> Describer:
    return _build("describer", settings)


def musician(settings: Settings) -> Musician:
    return _build("musician", settings)


def _build(stage: str, settings: Settings) -> Any:
    name, modules = getattr(settings, stage), STAGES[stage]
    if name not in modules:
        raise SettingsError(f"no {stage} {name!r}; choose one of: {', '.join(modules)} (MELODIFY_{stage.upper()})")
    return import_module(modules[name]).from_settings(settings)
