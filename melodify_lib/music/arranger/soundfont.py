"""The SoundFont that the arranger plays: which file it is, and its bytes."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from melodify_lib.errors import SettingsError


@dataclass(frozen=True)
class SoundFont:
    """A SoundFont 2 file in memory."""

    name: str
    data: bytes

    @property
    def sha256(self) -> str:
        """Hex digest of the file."""
        return hashlib.sha256(self.data).hexdigest()


def load_soundfont(path: Path | None = None) -> SoundFont:
    """Read a SoundFont; without a path, TimGM6mb.sf2, which pretty-midi carries.

    Raises `SettingsError` when there is no such file or it is not a SoundFont.
    """
    path = path or _default_path()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"the SoundFont {path} cannot be read: {error.strerror or error}; {_FIX}") from None
    if data[:4] != b"RIFF" or data[8:12] != b"sfbk":
        raise SettingsError(f"{path} is not a SoundFont 2 file; {_FIX}")
    return SoundFont(path.stem, data)


_FIX = "name a .sf2 file with MELODIFY_SOUNDFONT, or unset it to use the one that comes with pretty-midi"


def _default_path() -> Path:
    # Found without importing pretty_midi, which takes seconds.
    spec = importlib.util.find_spec("pretty_midi")
    folder = Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None
    if folder is None or not (folder / "TimGM6mb.sf2").is_file():
        raise SettingsError(
            f"no SoundFont: looked for TimGM6mb.sf2 in {folder or 'pretty_midi, which is not installed'}; "
            "run `pip install 'pretty-midi>=0.2.10'`, or name a .sf2 file with MELODIFY_SOUNDFONT"
        )
    return folder / "TimGM6mb.sf2"
