"""Melodify: a picture in, music that fits it out.

    from melodify_lib import compose
    track = compose("photo.jpg", seconds=20, seed=7)
    track.save("out")

The flow is image → `Caption` → `MusicDescription` → `Track`; docs/architecture.md has the map.
The names below are imported when they are first used, so that `import melodify_lib` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melodify_lib.errors import MelodifyError
    from melodify_lib.flow import Composer, compose
    from melodify_lib.genres import GENRES
    from melodify_lib.nouns import Caption, MusicDescription, Track, TrackCard
    from melodify_lib.settings import Settings

_MODULES = {
    "GENRES": "genres",
    "Caption": "nouns",
    "Composer": "flow",
    "MelodifyError": "errors",
    "MusicDescription": "nouns",
    "Settings": "settings",
    "Track": "nouns",
    "TrackCard": "nouns",
    "compose": "flow",
}
__all__ = [
    "GENRES",
    "Caption",
    "Composer",
    "MelodifyError",
    "MusicDescription",
    "Settings",
    "Track",
    "TrackCard",
    "compose",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
