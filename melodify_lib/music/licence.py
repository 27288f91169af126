"""What may be done with music, by its generator's licence; enforced, not only mentioned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from melodify_lib.errors import LicenceError

if TYPE_CHECKING:
    from melodify_lib.nouns import PermittedUse
    from melodify_lib.settings import Settings


def check_use(settings: Settings, permitted_use: PermittedUse, who: str) -> None:
    """Raise `LicenceError` where the settings ask for music that may be sold, and `who` makes none."""
    if settings.use == "commercial" and permitted_use != "any":
        raise LicenceError(
            f"{who} makes music for {permitted_use} use only, and MELODIFY_USE is commercial: choose another musician "
            "(the arranger's music is anybody's), or weights with an open licence"
        )
