"""The stages of the flow: one protocol each, one method each, implementations chosen by name.

A stage knows nothing of its neighbours: it takes a noun and returns the next. `STAGES` is the
only place that knows which implementations there are; a module is imported when it is chosen.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from melodify_lib.errors import CloudError, DescriptionError, InputError, SettingsError
from melodify_lib.music.licence import check_use
from melodify_lib.nouns import Caption, MusicDescription, PermittedUse, StageVersion, Track

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL.Image import Image

    from melodify_lib.settings import Settings

log = logging.getLogger(__name__)

OnProgress = Callable[[float], None]


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

    def describe_many(self, captions: Sequence[Caption], genre: str | None = None) -> list[MusicDescription]:
        """Describe the music for each of `captions`, in their order; faster than one at a time."""
        ...

    def export(self, folder: Path) -> None:
        """Write the model into `folder`, so that another process can use it as `Settings.describer_model`."""
        ...


class Musician(Protocol):
    """Makes the music."""

    @property
    def version(self) -> StageVersion: ...

    @property
    def permitted_use(self) -> PermittedUse:
        """What its licence lets be done with all that it makes; a track's card says it of that track."""
        ...

    def play(
        self, description: MusicDescription, seconds: float, seed: int, on_progress: OnProgress = lambda share: None
    ) -> Track:
        """Make `seconds` (±0.5 s) of audio. The same arguments give the same bytes.

        `on_progress` hears now and then, in the caller's thread, what share from 0 to 1 is done; what it raises ends
        the work. A musician that knows nothing of its progress says nothing.
        """
        ...


STAGES: dict[str, dict[str, str]] = {
    "captioner": {"local": "melodify_lib.caption.local", "openai": "melodify_lib.caption.openai"},
    "describer": {
        "local": "melodify_lib.describe.local",
        "gemini": "melodify_lib.describe.gemini",
        "retrieval": "melodify_lib.describe.retrieval",
        "zero_shot": "melodify_lib.describe.zero_shot",
    },
    "musician": {
        "arranger": "melodify_lib.music.arranger",
        "musicgen": "melodify_lib.music.musicgen",
        "endpoint": "melodify_lib.music.endpoint",
        "lyria": "melodify_lib.music.lyria",
    },
}
"""Stage → name in the settings → module with a function ``from_settings(settings)``."""


def captioner(settings: Settings) -> Captioner:
    """The captioner that the settings name."""
    return cast(Captioner, _build("captioner", settings))


def describer(settings: Settings, *, refused_too: bool = False) -> Describer:
    """The describer that the settings name. Raises `ModelError` for one that the gate refused, unless `refused_too`."""
    if settings.describer_model is not None and not refused_too:
        from melodify_lib.model_folder import refuse

        refuse(settings.describer_model)
    return cast(Describer, _build("describer", settings))


@dataclass(frozen=True)
class Described:
    """A description, and who made it; `fallback_from` is the describer that was asked first and failed."""

    description: MusicDescription
    describer: StageVersion
    fallback_from: StageVersion | None = None


class DescriberWithFallback:
    """The describer that the settings name, and `Settings.describer_fallback` for when it fails, if they name one."""

    def __init__(self, settings: Settings) -> None:
        self.first = describer(settings)
        self._settings = settings
        name = settings.describer_fallback
        if name and (name not in STAGES["describer"] or name == settings.describer):
            others = ", ".join(other for other in STAGES["describer"] if other != settings.describer)
            raise SettingsError(f"{name!r} cannot stand in for {settings.describer!r}; choose one of: {others}")

    def describe(self, caption: Caption, genre: str | None = None) -> Described:
        """Describe the music for `caption`. What the first describer raises is raised where there is no other."""
        try:
            return Described(self.first.describe(caption, genre), self.first.version)
        except (CloudError, DescriptionError) as error:
            if not self._settings.describer_fallback:
                raise
            log.warning("the describer %s failed: %s", self._settings.describer, error)
        update = {"describer": self._settings.describer_fallback, "describer_model": None}
        other = describer(self._settings.model_copy(update=update))
        return Described(other.describe(caption, genre), other.version, self.first.version)


def musician(settings: Settings) -> Musician:
    """The musician that the settings name. Raises `LicenceError` where `Settings.use` forbids its music."""
    made = cast(Musician, _build("musician", settings))
    check_use(settings, made.permitted_use, f"the musician {settings.musician}")
    return made


def extras(musician: Musician, *, loop: bool = False, stems: bool = False) -> dict[str, Any]:
    """What `Arranger.play` takes beyond what every musician does. Raises `InputError` for one that cannot."""
    from melodify_lib.music.arranger import Arranger

    asked = {name: True for name, wanted in (("loop", loop), ("stems", stems)) if wanted}
    if asked and not isinstance(musician, Arranger):
        what = " and ".join({"loop": "loops", "stems": "stems"}[name] for name in asked)
        raise InputError(f"the arranger makes {what}, no other musician does (MELODIFY_MUSICIAN)")
    return asked


def _build(stage: str, settings: Settings) -> object:
    name, modules = getattr(settings, stage), STAGES[stage]
    if name not in modules:
        raise SettingsError(f"no {stage} {name!r}; choose one of: {', '.join(modules)} (MELODIFY_{stage.upper()})")
    return import_module(modules[name]).from_settings(settings)
