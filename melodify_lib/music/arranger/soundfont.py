"""SoundFont 2 files: which samples sound for a note, and how they are to be played.

Why by hand: `symusic.Synthesizer` (0.5.9 and 0.6.0, the one SoundFont player that comes with pip)
ignores velocity, envelopes, filters, releases and most root keys; it plays TimGM6mb's middle C of
"Piano 1" at 831 Hz. The format is a small one: SoundFont Technical Specification 2.04, section 7
(the tables) and 8.1.2 (the generators, cited below as "generator N").
"""

from __future__ import annotations

import importlib.util
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from melodify_lib.errors import SettingsError

if TYPE_CHECKING:
    import numpy.typing as npt

DRUM_BANK = 128
_SIGNED = frozenset(range(62)) - {0, 1, 2, 3, 43, 44, 41, 53}
_KEY_RANGE, _VELOCITY_RANGE, _INSTRUMENT, _SAMPLE = 43, 44, 41, 53
_NOT_IN_PRESETS = {0, 1, 2, 3, 4, 12, 45, 46, 47, 50, 54, 57, 58}  # section 8.5: meaningful to instruments only
_DEFAULTS = {
    8: 13500, 9: 0, 11: 0, 17: 0, 25: -12000, 26: -12000, 27: -12000, 28: -12000, 29: 0,
    33: -12000, 34: -12000, 35: -12000, 36: -12000, 37: 0, 38: -12000, 40: 0, 48: 0, 51: 0, 52: 0,
    54: 0, 56: 100, 57: 0, 58: -1,
}  # fmt: skip


@dataclass(frozen=True)
class Envelope:
    """Delay, attack, hold, decay (for a full fall) and release in seconds; `sustain` in the envelope's own unit."""

    delay: float
    attack: float
    hold: float
    decay: float
    sustain: float
    release: float = 0.0


@dataclass(frozen=True)
class Zone:
    """One sample and how it is played over a range of keys and velocities.

    Positions are in samples of the font's pool; `pan` is −1 (left) to 1; `semitones` is what is
    added to ``(key − root) · scale`` before the sample's own rate is taken into account.
    """

    index: int
    keys: tuple[int, int]
    velocities: tuple[int, int]
    start: int
    end: int
    loop: tuple[int, int] | None
    loop_ends_on_release: bool
    sample_rate: int
    root: int
    scale: float
    semitones: float
    attenuation_db: float
    pan: float
    cutoff_hz: float
    resonance_db: float
    cutoff_envelope_cents: float
    volume: Envelope  # sustain: dB below full
    modulation: Envelope  # sustain: share of full, 0 to 1
    decay_cents_per_key: float
    exclusive_class: int


class SoundFont:
    """A SoundFont file, read where it lies (the samples are mapped, not loaded)."""

    def __init__(self, path: Path) -> None:
        """Raises `SettingsError` when there is no file or it is not a SoundFont 2."""
        self.path = path
        try:
            self._tables, self.samples = _read(path)
        except (OSError, ValueError, struct.error, KeyError) as error:
            raise SettingsError(
                f"the SoundFont {path} cannot be read ({error}); name a SoundFont 2 file (.sf2) with "
                "MELODIFY_SOUNDFONT, or unset it to use the one that comes with pretty-midi"
            ) from None
        self._zones: dict[tuple[int, int], tuple[Zone, ...]] = {}
        self._count = 0

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the file."""
        import hashlib

        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def zones(self, bank: int, program: int) -> tuple[Zone, ...]:
        """All zones of a preset; of the nearest kit or of program 0 where the font lacks it."""
        if (bank, program) not in self._zones:
            self._zones[bank, program] = tuple(self._read_zones(self._preset(bank, program)))
        return self._zones[bank, program]

    def _preset(self, bank: int, program: int) -> int:
        headers = self._tables["phdr"][:-1]
        for wanted in ((bank, program), (bank, program // 8 * 8), (bank, 0), (0, program), (0, 0)):
            found = np.flatnonzero((headers["bank"] == wanted[0]) & (headers["program"] == wanted[1]))
            if found.size:
                return int(found[0])
        return 0

    def _read_zones(self, preset: int) -> list[Zone]:
        zones = []
        for outer in _generators(self._tables, "p", preset):
            if _INSTRUMENT not in outer:
                continue
            for inner in _generators(self._tables, "i", outer[_INSTRUMENT]):
                if _SAMPLE in inner:
                    merged = _merge(inner, outer)
                    if merged is not None:
                        zones.append(_zone(self._count, merged, self._tables["shdr"][merged[_SAMPLE]]))
                        self._count += 1
        return zones


def default_soundfont() -> Path:
    """TimGM6mb.sf2, which pretty-midi carries; found without importing it, which takes seconds."""
    spec = importlib.util.find_spec("pretty_midi")
    folder = Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None
    if folder is None or not (folder / "TimGM6mb.sf2").is_file():
        raise SettingsError(
            f"no SoundFont: looked for TimGM6mb.sf2 in {folder or 'pretty_midi, which is not installed'}; "
            "run `pip install 'pretty-midi>=0.2.10'`, or name a .sf2 file with MELODIFY_SOUNDFONT"
        )
    return folder / "TimGM6mb.sf2"


_RECORDS: dict[str, Any] = {
    "phdr": [("name", "S20"), ("program", "<u2"), ("bank", "<u2"), ("bag", "<u2"), ("rest", "V12")],
    "pbag": [("gen", "<u2"), ("mod", "<u2")],
    "pgen": [("op", "<u2"), ("amount", "<u2")],
    "inst": [("name", "S20"), ("bag", "<u2")],
    "ibag": [("gen", "<u2"), ("mod", "<u2")],
    "igen": [("op", "<u2"), ("amount", "<u2")],
    "shdr": [
        ("name", "S20"), ("start", "<u4"), ("end", "<u4"), ("loop_start", "<u4"), ("loop_end", "<u4"),
        ("rate", "<u4"), ("root", "u1"), ("correction", "i1"), ("link", "<u2"), ("type", "<u2"),
    ],
}  # fmt: skip


def _read(path: Path) -> tuple[dict[str, Any], npt.NDArray[np.int16]]:
    """The tables of the file as record arrays, and its pool of 16-bit samples."""
    tables: dict[str, Any] = {}
    pool = None
    with path.open("rb") as file:
        if file.read(4) != b"RIFF" or file.read(8)[4:] != b"sfbk":
            raise ValueError("it is not a SoundFont 2 file")
        size = path.stat().st_size
        position = 12
        while position + 8 <= size:
            file.seek(position)
            name, length = struct.unpack("<4sI", file.read(8))
            if name == b"LIST":  # step into the list: its chunks follow its four-letter type
                position += 12
                continue
            key = name.decode("latin-1")
            if key == "smpl":
                pool = np.memmap(path, dtype="<i2", mode="r", offset=position + 8, shape=(length // 2,))
            elif key in _RECORDS:
                record = np.dtype(_RECORDS[key])
                tables[key] = np.frombuffer(file.read(length // record.itemsize * record.itemsize), dtype=record)
            position += 8 + length + length % 2
    missing = set(_RECORDS) - set(tables)
    if missing or pool is None:
        raise ValueError(f"it lacks {', '.join(sorted(missing)) or 'samples'}; compressed .sf3 is not supported")
    return tables, pool


def _generators(tables: dict[str, Any], kind: str, item: int) -> list[dict[int, Any]]:
    """Generator → amount for each zone of a preset ("p") or instrument ("i"), its global zone merged in."""
    heads, bags, gens = tables["phdr" if kind == "p" else "inst"], tables[kind + "bag"], tables[kind + "gen"]
    last_one = _INSTRUMENT if kind == "p" else _SAMPLE
    shared: dict[int, Any] = {}
    zones = []
    for bag in range(heads["bag"][item], heads["bag"][item + 1]):
        zone: dict[int, Any] = {}
        for op, amount in gens[bags["gen"][bag] : bags["gen"][bag + 1]].tolist():
            if op in (_KEY_RANGE, _VELOCITY_RANGE):
                zone[op] = (amount & 0xFF, amount >> 8)
            else:
                zone[op] = amount - 0x10000 if op in _SIGNED and amount >= 0x8000 else amount
        if last_one in zone:
            zones.append(shared | zone)
        elif not zones:
            shared = zone
    return zones


def _merge(inner: dict[int, Any], outer: dict[int, Any]) -> dict[int, Any] | None:
    """A preset's generators add to its instrument's; ranges intersect (None: nothing is left)."""
    merged = _DEFAULTS | inner
    for op, amount in outer.items():
        if op in (_KEY_RANGE, _VELOCITY_RANGE):
            low, high = merged.get(op, (0, 127))
            merged[op] = (max(low, amount[0]), min(high, amount[1]))
            if merged[op][0] > merged[op][1]:
                return None
        elif op not in _NOT_IN_PRESETS and op != _INSTRUMENT:
            merged[op] = merged.get(op, 0) + amount
    return merged


def _zone(index: int, gens: dict[int, Any], header: Any) -> Zone:
    start = int(header["start"]) + gens.get(0, 0) + 32768 * gens.get(4, 0)
    end = int(header["end"]) + _signed(gens.get(1, 0)) + 32768 * gens.get(12, 0)
    loop_start = int(header["loop_start"]) + _signed(gens.get(2, 0)) + 32768 * gens.get(45, 0)
    loop_end = int(header["loop_end"]) + _signed(gens.get(3, 0)) + 32768 * gens.get(50, 0)
    loops = gens[54] in (1, 3) and loop_end - loop_start > 8
    root = gens[58] if 0 <= gens[58] <= 127 else int(header["root"])
    return Zone(
        index=index,
        keys=gens.get(_KEY_RANGE, (0, 127)),
        velocities=gens.get(_VELOCITY_RANGE, (0, 127)),
        start=start,
        end=end,
        loop=(loop_start, loop_end) if loops else None,
        loop_ends_on_release=gens[54] == 3,
        sample_rate=int(header["rate"]),
        root=root if root <= 127 else 60,
        scale=gens[56] / 100,
        semitones=gens[51] + (gens[52] + int(header["correction"])) / 100,
        # 0.4: what the hardware that the format grew on did, and what fluidsynth does; fonts are voiced for it.
        attenuation_db=0.4 * max(gens[48], 0) / 10,
        pan=float(np.clip(gens[17] / 500, -1, 1)),
        cutoff_hz=8.176 * 2 ** (min(max(gens[8], 1500), 13500) / 1200),
        resonance_db=max(gens[9], 0) / 10,
        cutoff_envelope_cents=gens[11],
        volume=Envelope(
            *(_seconds(gens[op]) for op in (33, 34, 35, 36)), sustain=max(gens[37], 0) / 10, release=_seconds(gens[38])
        ),
        modulation=Envelope(
            *(_seconds(gens[op]) for op in (25, 26, 27, 28)), sustain=1 - min(max(gens[29], 0), 1000) / 1000
        ),
        decay_cents_per_key=gens[40],
        exclusive_class=gens[57],
    )


def _seconds(timecents: int) -> float:
    return 0.0 if timecents <= -12000 else float(2 ** (min(timecents, 8000) / 1200))


def _signed(amount: int) -> int:
    return amount - 0x10000 if amount >= 0x8000 else amount
