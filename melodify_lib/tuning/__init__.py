"""Tuning the describer: one interface, two tuners, one file.

Both take the same JSONL and write a folder that `Settings.describer_model` can name. `TUNERS` is the
only place that knows which there are; a module is imported when it is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from melodify_lib.errors import SettingsError

if TYPE_CHECKING:
    from melodify_lib.settings import Settings
    from melodify_lib.tuning.local import TuningResult


@dataclass(frozen=True)
class Plan:
    """How a tuner that is paid goes about it; the local one needs none of this.

    `adapter_size` is the rank of what is trained beside the model (1, 2, 4, 8, 16 or 32), `budget` in
    dollars. `on_event` is told, in words, what it would cost and what happens; a job is cancelled as soon
    as `is_cancelled` says so.
    """

    epochs: int = 3
    learning_rate_multiplier: float = 1.0
    adapter_size: int = 4
    budget: float | None = None
    on_event: Callable[[str], None] = lambda text: None
    is_cancelled: Callable[[], bool] = lambda: False


class Tuner(Protocol):
    """Makes a describer from a dataset."""

    def tune(
        self,
        train: Path,
        out: Path,
        *,
        validation: Path | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> TuningResult:
        """Tune on `train` and write what `Settings.describer_model` needs into the folder `out`."""
        ...


TUNERS = {"local": "melodify_lib.tuning.local", "vertex": "melodify_lib.tuning.vertex"}
"""Name in the settings → module with a function ``from_settings(settings, plan)``."""


def tuner(settings: Settings, plan: Plan | None = None) -> Tuner:
    """The tuner that the settings name. Raises `SettingsError` for a name that is not in `TUNERS`."""
    if settings.tuner not in TUNERS:
        raise SettingsError(f"no tuner {settings.tuner!r}; choose one of: {', '.join(TUNERS)} (MELODIFY_TUNER)")
    return cast(Tuner, import_module(TUNERS[settings.tuner]).from_settings(settings, plan or Plan()))
