"""Other forms of finished audio: MP3 to listen to, and the peaks that a waveform is drawn from."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


def to_mp3(audio: npt.NDArray[np.float32], sample_rate: int) -> bytes:
    """An MP3 file (about 190 kbit/s) of float32 ``[channels, samples]``."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        audio.T,
        sample_rate,
        format="MP3",
        bitrate_mode="VARIABLE",
        compression_level=0.25,
        subtype="MPEG_LAYER_III",
    )
    return buffer.getvalue()


def peaks(audio: npt.NDArray[np.float32], count: int) -> list[float]:
    """The largest magnitude, from 0 to 1, in each of `count` equal stretches of ``[channels, samples]``."""
    magnitude = np.abs(audio).max(axis=0)
    return [round(float(stretch.max(initial=0)), 3) for stretch in np.array_split(magnitude, count)]
