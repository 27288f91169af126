"""FluidSynth, the reference SoundFont player, through ctypes: a dozen of its functions.

pip has no package of it. pygame-ce carries the shared library in its wheels for Linux, macOS and Windows, and is
installed for that alone; without it, the system's own is taken (Debian's libfluidsynth3, Homebrew's fluid-synth).
pyfluidsynth, the binding on PyPI, looks for the library while it is imported, and only in the system's places.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from melodify_lib.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

SAMPLE_RATE = 44_100
"""Hz."""
BLOCK = 64
"""Samples: FluidSynth's own; what happens within a block is heard from its beginning on."""
_GAIN = 0.5  # of full scale is 1.0; the output is floating point and does not clip
_BANK_DRUMS, _CHANNEL_DRUMS = 128, 1
_SWITCHES = {
    "reverb.active": 0, "chorus.active": 0,  # the mix has its own
    "threadsafe-api": 0,
    "dynamic-sample-loading": 1,  # only what is played: a font of 150 MB costs 20
    # Of one part, and notes that were let go give way first. Without it the tails of a hundred strings sound at once:
    # half of a synth pluck's time, for what is 41 dB under it.
    "polyphony": 48,
}  # fmt: skip
_LOG_LEVELS = 5


class Synth:
    """A SoundFont open in FluidSynth, that plays one part after another. For one thread at a time."""

    def __init__(self, font: Path) -> None:
        """Raises `SettingsError` when there is no FluidSynth, or it cannot read the font."""
        self._library = _library()
        self._settings = self._library.new_fluid_settings()
        for name, value in _SWITCHES.items():
            self._library.fluid_settings_setint(self._settings, f"synth.{name}".encode(), value)
        for name, number in (("sample-rate", SAMPLE_RATE), ("gain", _GAIN)):
            self._library.fluid_settings_setnum(self._settings, f"synth.{name}".encode(), float(number))
        # This one reads the font and is silent.
        self._owner = self._library.new_fluid_synth(self._settings)
        self._font: int | None = None
        self._synth: int | None = None
        if self._library.fluid_synth_sfload(self._owner, str(font).encode(), 1) < 0:
            raise SettingsError(f"FluidSynth cannot read the SoundFont {font}")
        self._font = self._library.fluid_synth_get_sfont(self._owner, 0)

    def begin(self, program: int, *, is_drum: bool, modulation: int) -> None:
        """A part begins: a General MIDI program or kit, and the place of the modulation wheel.

        Each has a synthesiser of its own, for 0.3 ms: one that has played before, and was reset, plays the same notes
        with other last bits, as its voices keep what their filters were at.
        """
        self._end()
        self._synth = self._library.new_fluid_synth(self._settings)
        self._library.fluid_synth_add_sfont(self._synth, self._font)
        self._library.fluid_synth_set_channel_type(self._synth, 0, _CHANNEL_DRUMS if is_drum else 0)
        self._library.fluid_synth_bank_select(self._synth, 0, _BANK_DRUMS if is_drum else 0)
        self._library.fluid_synth_program_change(self._synth, 0, program)
        self._library.fluid_synth_cc(self._synth, 0, 1, modulation)

    def _end(self) -> None:
        if self._synth:
            self._library.fluid_synth_remove_sfont(self._synth, self._font)  # or it would be closed with it
            self._library.delete_fluid_synth(self._synth)
            self._synth = None

    def __del__(self) -> None:
        if hasattr(self, "_owner"):
            self._end()
            self._library.delete_fluid_synth(self._owner)
            self._library.delete_fluid_settings(self._settings)

    def press(self, pitch: int, velocity: int) -> None:
        self._library.fluid_synth_noteon(self._synth, 0, pitch, velocity)

    def release(self, pitch: int) -> None:
        self._library.fluid_synth_noteoff(self._synth, 0, pitch)

    def write(self, audio: npt.NDArray[np.float32], start: int, stop: int) -> None:
        """What sounds now into ``audio[:, start:stop]``, float32 ``[2, samples]`` of zeros, C-contiguous."""
        row = audio.strides[0]
        first = audio.ctypes.data + start * audio.itemsize
        sides = (ctypes.c_void_p * 2)(first, first + row)
        self._library.fluid_synth_process(self._synth, stop - start, 0, None, 2, sides)


def version() -> str:
    """FluidSynth's, such as "2.5.6"."""
    return str(_library().fluid_version_str().decode())


_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "fluid_version_str": (ctypes.c_char_p, []),
    "fluid_set_log_function": (ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]),
    "new_fluid_settings": (ctypes.c_void_p, []),
    "delete_fluid_settings": (None, [ctypes.c_void_p]),
    "fluid_settings_setint": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]),
    "fluid_settings_setnum": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_double]),
    "new_fluid_synth": (ctypes.c_void_p, [ctypes.c_void_p]),
    "delete_fluid_synth": (None, [ctypes.c_void_p]),
    "fluid_synth_sfload": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]),
    "fluid_synth_get_sfont": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_uint]),
    "fluid_synth_add_sfont": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_void_p]),
    "fluid_synth_remove_sfont": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_void_p]),
    "fluid_synth_set_channel_type": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]),
    "fluid_synth_bank_select": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]),
    "fluid_synth_program_change": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]),
    "fluid_synth_cc": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int]),
    "fluid_synth_noteon": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int]),
    "fluid_synth_noteoff": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]),
    "fluid_synth_process": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p],
    ),
}
"""Name → what it gives back and takes, from fluidsynth.h of version 2."""


@cache
def _library() -> ctypes.CDLL:
    carried = [file.locate() for file in _files_of("pygame-ce") if file.name.startswith("libfluidsynth")]
    path = next((str(file) for file in carried), None) or ctypes.util.find_library("fluidsynth")
    try:
        library = ctypes.CDLL(path or "libfluidsynth.so.3")
        for name, (gives, takes) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = gives, takes
    except (OSError, AttributeError) as error:
        raise SettingsError(
            f"no FluidSynth to play with ({error}); run `pip install pygame-ce`, which carries it, "
            "or install version 2 of it (Debian: libfluidsynth3)"
        ) from None
    for level in range(_LOG_LEVELS):
        library.fluid_set_log_function(level, None, None)  # it would write to standard error
    return library


def _files_of(package: str) -> list[Any]:
    try:
        return list(metadata.files(package) or [])
    except metadata.PackageNotFoundError:
        return []
