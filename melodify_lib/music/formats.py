"""Other forms of a finished track: MP3 to listen to, and the peaks that a waveform is drawn from."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


def to_mp3(wav: bytes) -> bytes:
    """A WAV file as MP3 (about 190 kbit/s). Raises `soundfile.SoundFileError` for what is no audio."""
    import soundfile

    audio, sample_rate = soundfile.read(io.BytesIO(wav), dtype="float32", always_2d=True)
    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        audio,
        sample_rate,
        format="MP3",
        bitrate_mode="VARIABLE",
        compression_level=0.25,
        subtype="MPEG_LAYER_III",
    )
    return buffer.getvalue()


def peaks(wav: bytes, count: int) -> list[float]:
    """The largest magnitude, from 0 to 1, in each of `count` equal stretches of a WAV file."""
    import soundfile

    audio, _ = soundfile.read(io.BytesIO(wav), dtype="float32", always_2d=True)
    magnitude: npt.NDArray[np.float32] = np.abs(audio).max(axis=1)
    return [round(float(stretch.max(initial=0)), 3) for stretch in np.array_split(magnitude, count)]
