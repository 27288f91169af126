"""From a musician's mix to a finished `Track`: mastered, measured, encoded, with its card.

Every musician ends here, so that every track is as loud as the next and its card tells the same.
"""

from __future__ import annotations

import io
import re
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

from melodify_lib.errors import InputError, ModelError
from melodify_lib.music.measure import integrated_loudness, measure, oversampled_peaks, true_peak
from melodify_lib.nouns import Measures, MusicDescription, PermittedUse, StageVersion, Track, TrackCard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

SOURCES = ("music/finish.py", "music/measure.py", "music/formats.py", "nouns.py")
"""What finishes every track, and so is a part of each musician's version."""
LOUDNESS_LUFS = -14.0
"""What the large streaming services normalise to."""
TRUE_PEAK_DBTP = -1.0
"""Ceiling that EBU R 128 recommends, so that lossy encoders do not clip."""
_MARGIN_DB = 0.1
"""Under the ceiling: meters with other oversampling filters differ by some hundredths of a decibel."""
SECONDS_MIN, SECONDS_MAX = 4.0, 300.0
TAKES_MAX = 20
SEED_LIMIT = 2**53
"""Of a seed that is sent to Vertex AI, where whole numbers are doubles."""


def check_request(seconds: float, seed: int, shortest: float = SECONDS_MIN, takes: int = 1) -> None:
    """Raise `InputError` for a duration, a number of takes or a seed (of the last take) that no musician can use."""
    if not shortest <= seconds <= SECONDS_MAX:
        raise InputError(f"seconds must be between {shortest:g} and {SECONDS_MAX:g}; got {seconds:g}")
    if not 1 <= takes <= TAKES_MAX:
        raise InputError(f"takes must be between 1 and {TAKES_MAX}; got {takes}")
    if not 0 <= seed < 2**63 - (takes - 1):
        last = " less the takes beyond the first" if takes > 1 else ""
        raise InputError(f"the seed must be a whole number from 0 to 2**63 - 1{last}; got {seed}")


def finish_track(
    audio: npt.NDArray[np.float32],
    sample_rate: int,
    *,
    description: MusicDescription,
    seconds: float,
    seed: int,
    musician: StageVersion,
    licence: str,
    permitted_use: PermittedUse,
    midi: bytes | None = None,
    watermark: str | None = None,
    stems: Mapping[str, npt.NDArray[np.float32]] | None = None,
    players: Sequence[str] = (),
    is_loop: bool = False,
) -> Track:
    """Master, measure and encode a mix, float32 ``[channels, samples]``, and write its card.

    `stems` are the mix taken apart, by instrument: they get the same gain, and so are the track taken apart. Raises
    `ModelError` for a mix in which there is nothing to be heard.
    """
    if not np.abs(audio).max(initial=0.0) > 0:
        raise ModelError(f"what {musician.name} {musician.version} played is silent")
    gain = mastering_gain(audio, sample_rate, is_loop=is_loop)
    audio = audio * gain
    files = {} if midi is None else {"track.mid": midi}
    for number, (name, stem) in enumerate((stems or {}).items(), 1):
        # A stem may peak where the mix does not: floating point does not clip.
        plain = re.sub(r"\W+", "-", name).strip("-")
        files[f"stems/{number:02}-{plain}.wav"] = _encode_stem(stem * gain, sample_rate)
    requested = Measures(
        bpm=description.bpm,
        key=description.key,
        loudness_lufs=LOUDNESS_LUFS,
        true_peak_dbtp=TRUE_PEAK_DBTP,
        duration_s=seconds,
    )
    card = TrackCard(
        description=description,
        seed=seed,
        is_loop=is_loop,
        musician=musician,
        libraries=libraries(),
        players=tuple(players),
        licence=licence,
        permitted_use=permitted_use,
        watermark=watermark,
        requested=requested,
        measured=measure(audio, sample_rate, near_bpm=description.bpm, is_loop=is_loop),
        files={},
    )
    return Track(audio=audio, sample_rate=sample_rate, files=files, card=card).with_card()


@cache
def libraries() -> dict[str, str]:
    """The versions of what the last bits of a track depend on, beside the musician's own."""
    return {name: metadata.version(name) for name in ("numpy", "scipy", "pedalboard", "soundfile", "mutagen")}


def master(audio: npt.NDArray[np.float32], sample_rate: int) -> npt.NDArray[np.float32]:
    """Bring audio to `LOUDNESS_LUFS` with its true peak at or under `TRUE_PEAK_DBTP`."""
    return audio * mastering_gain(audio, sample_rate)


def mastering_gain(
    audio: npt.NDArray[np.float32], sample_rate: int, *, is_loop: bool = False
) -> npt.NDArray[np.float32]:
    """The gain over time that `master` applies, float32 ``[samples]``; that of a loop joins on to its own beginning.

    Limiting takes loudness away, so gain and limiter are set together in a few rounds.
    """
    loudness = integrated_loudness(audio, sample_rate)
    if not np.isfinite(loudness):
        return np.ones(audio.shape[1], dtype=np.float32)
    gain = 10 ** ((LOUDNESS_LUFS - loudness) / 20)
    ceiling = 10 ** ((TRUE_PEAK_DBTP - _MARGIN_DB) / 20)
    peaks = oversampled_peaks(audio, floor=0.5 * ceiling / gain)
    for _ in range(6):
        over_time = _limiter_gain(peaks * gain, ceiling, sample_rate, is_loop) * np.float32(gain)
        missing = LOUDNESS_LUFS - integrated_loudness(audio * over_time, sample_rate)
        if abs(missing) < 0.2:
            break
        gain *= 10 ** (1.3 * missing / 20)  # more than is missing: the limiter takes its share again
    # The smoothed gain lets a peak between two samples pass by a few hundredths of a decibel.
    over = 10 ** (true_peak(audio * over_time) / 20) / ceiling
    return over_time / np.float32(max(over, 1.0))


def _limiter_gain(
    peaks: npt.NDArray[np.float32], ceiling: float, sample_rate: int, is_loop: bool
) -> npt.NDArray[np.float32]:
    """Gain per sample of a look-ahead limiter: held over 5 ms around each peak, then smoothed over as much."""
    from scipy.ndimage import minimum_filter1d, uniform_filter1d

    width = sample_rate // 200
    needed = np.minimum(1.0, ceiling / np.maximum(peaks, 1e-9)).astype(np.float32)
    if needed.min() >= 1.0:
        return needed
    mode = "wrap" if is_loop else "reflect"
    held = minimum_filter1d(needed, 2 * width + 1, mode=mode)
    return np.asarray(uniform_filter1d(held, width, mode=mode), dtype=np.float32)


def encode_wav(audio: npt.NDArray[np.float32], sample_rate: int) -> bytes:
    """A 16-bit PCM WAV file of float32 ``[channels, samples]``."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, audio.T, sample_rate, subtype="PCM_16", format="WAV")
    return buffer.getvalue()


def _encode_stem(audio: npt.NDArray[np.float32], sample_rate: int) -> bytes:
    """Floating point, by scipy: libsndfile would write the time into the file."""
    from scipy.io import wavfile

    buffer = io.BytesIO()
    wavfile.write(buffer, sample_rate, np.ascontiguousarray(audio.T))
    return buffer.getvalue()
