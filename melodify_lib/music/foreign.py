"""Audio that another service made, which is not trusted: only plain WAV is read, and not without end."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from melodify_lib.errors import ModelError
from melodify_lib.music.finish import SECONDS_MAX

if TYPE_CHECKING:
    import numpy.typing as npt

_KINDS = [f"{form} PCM_{bits}" for form in ("WAV", "WAVEX") for bits in (16, 24, 32)]
_SAMPLE_RATES = range(8_000, 192_001)
_LONGEST_S = SECONDS_MAX + 1


def read_wav(data: bytes, what: str) -> tuple[npt.NDArray[np.float32], int]:
    """Audio ``[channels, samples]`` and sample rate in Hz. Raises `ModelError`, which calls it `what`, for all else.

    That is another format than PCM, more than two channels, or more than `SECONDS_MAX`, the longest song there is.
    """
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            kind = f"{file.format} {file.subtype}"
            if kind not in _KINDS or file.samplerate not in _SAMPLE_RATES or file.channels > 2:
                raise ModelError(f"{what} is {kind}, {file.samplerate} Hz, {file.channels} channels: not read")
            if file.frames > _LONGEST_S * file.samplerate:
                raise ModelError(f"{what} lasts {file.frames / file.samplerate:,.0f} s: not read")
            return file.read(dtype="float32", always_2d=True).T, int(file.samplerate)
    except soundfile.SoundFileError as error:
        raise ModelError(f"{what} cannot be read: {error}") from None
