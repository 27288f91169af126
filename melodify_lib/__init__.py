"""Melodify: a picture in, music that fits it out.

    from melodify_lib import compose
    track = compose("photo.jpg", seconds=20, seed=7)
    track.save("out")

The flow is image → `Caption` → `MusicDescription` → `Track`; `docs/architecture.md` has the map.
"""

from melodify_lib.errors import MelodifyError
from melodify_lib.nouns import GENRES, Caption, MusicDescription, Track, TrackCard
from melodify_lib.settings import Settings

__version__ = "0.1.0"
__all__ = ["GENRES", "Caption", "MelodifyError", "MusicDescription", "Settings", "Track", "TrackCard", "__version__"]
