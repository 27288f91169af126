"""The SoundFont that the arranger plays: which file it is, and what it is known by."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from melodify_lib.errors import SettingsError
from melodify_lib.nouns import file_sha256


@dataclass(frozen=True)
class SoundFont:
    """A SoundFont 2 file, or SoundFont 3, which is the same with its samples compressed."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the file."""
        return file_sha256(self.path)


BEST = ("MuseScore_General.sf2", "GeneralUser-GS.sf2", "FluidR3_GM.sf2")
"""General MIDI fonts with free licences, the best first, by the names under which systems install them."""
_FOLDERS = (
    "~/.local/share/soundfonts", "~/Library/Audio/Sounds/Banks", "/usr/local/share/soundfonts",
    "/usr/share/soundfonts", "/usr/share/sounds/sf2",
)  # fmt: skip


def load_soundfont(path: Path | None = None) -> SoundFont:
    """Look at a SoundFont; without a path the best of `BEST` that is installed, else the one that pretty-midi carries.

    Raises `SettingsError` when there is no such file or it is not a SoundFont.
    """
    path = path or _best_installed() or _carried()
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise SettingsError(f"the SoundFont {path} cannot be read: {error.strerror or error}; {_FIX}") from None
    if head[:4] != b"RIFF" or head[8:12] != b"sfbk":
        raise SettingsError(f"{path} is not a SoundFont file; {_FIX}")
    return SoundFont(path)


_FIX = "name a .sf2 or .sf3 file with MELODIFY_SOUNDFONT, or unset it to use the best that is installed"


def _best_installed() -> Path | None:
    paths = (Path(folder).expanduser() / name for name in BEST for folder in _FOLDERS)
    return next((path for path in paths if path.is_file()), None)


def _carried() -> Path:
    # Found without importing pretty_midi, which takes seconds.
    spec = importlib.util.find_spec("pretty_midi")
    folder = Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None
    if folder is None or not (folder / "TimGM6mb.sf2").is_file():
        raise SettingsError(
            f"no SoundFont: looked for TimGM6mb.sf2 in {folder or 'pretty_midi, which is not installed'}; "
            "run `pip install 'pretty-midi>=0.2.10'`, or name a .sf2 file with MELODIFY_SOUNDFONT"
        )
    return folder / "TimGM6mb.sf2"
