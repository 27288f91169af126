"""What a finished track measures: tempo, key, loudness, true peak, silence, duration.

Runs on every track, so it is written in numpy and scipy alone: librosa's estimators agree (the
tests compare) but take seconds to import and compile, more than making the music takes.
"""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from melodify_lib.nouns import TONICS, Measures

if TYPE_CHECKING:
    import numpy.typing as npt

    Audio = npt.NDArray[np.float32]

SILENCE_DBFS = -60.0
TEMPO_TOLERANCE = 0.02
"""Share by which a tempo may be off and still be the one that was asked for."""
SILENCE_MAX_S = 1.5
"""The longest silence that is no hole in a track."""
_PHASE_TAPS = 12  # of each of the four phases of the oversampling filter, as in annex 2
_FRAME_HZ = 100  # frames a second of the onset envelope

# How often each pitch class is heard, from the tonic: Albrecht & Shanahan (2013), "The use of large
# corpora to train a new type of key-finding algorithm". On 40 tracks of the arranger they found 39 keys,
# the ratings of Krumhansl & Kessler (1982) 36: those take a strong fifth for the tonic.
_MAJOR = (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081)
_MINOR = (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052)


def measure(audio: Audio, sample_rate: int, near_bpm: float | None = None, *, is_loop: bool = False) -> Measures:
    """Measure float32 audio ``[channels, samples]``.

    A pulse at 90 bpm is also one at 45 and at 180: the tempo is given at the octave nearest to
    `near_bpm`, where that is known. `bpm` is None without a pulse, `key` None without pitch,
    `loudness_lufs` and `true_peak_dbtp` None for silence.
    """
    mono = audio.mean(axis=0)
    with ThreadPoolExecutor(1) as pool:  # Fourier transforms let other threads run
        pulse = pool.submit(tempo, mono, sample_rate, near_bpm)
        heard = pool.submit(key, mono, sample_rate)
        loudness, peak = integrated_loudness(audio, sample_rate), true_peak(audio)
        bpm = pulse.result()
    return Measures(
        bpm=None if bpm is None else round(bpm, 1),
        key=heard.result(),
        loudness_lufs=round(loudness, 2) if np.isfinite(loudness) else None,
        true_peak_dbtp=round(peak, 2) if np.isfinite(peak) else None,
        duration_s=round(audio.shape[1] / sample_rate, 3),
        longest_silence_s=round(longest_silence(mono, sample_rate), 2),
        seam_db=round(seam(audio), 1) if is_loop else None,
    )


def seam(audio: Audio) -> float:
    """The step from a loop's last sample to its first, in dB against the 99.9th percentile of its other steps.

    Above 0 a loop clicks; an end that does not meet its beginning gives 20 and more.
    """
    steps = np.abs(np.diff(audio, axis=1))
    usual = np.percentile(steps, 99.9, axis=1)
    across = np.abs(audio[:, 0] - audio[:, -1])
    return float(20 * np.log10(max((across / np.maximum(usual, 1e-9)).max(), 1e-3)))


def integrated_loudness(audio: Audio, sample_rate: int) -> float:
    """Integrated loudness in LUFS (ITU-R BS.1770-4); −inf for silence or less than 0.4 s."""
    import pyloudnorm

    if audio.shape[1] < 0.4 * sample_rate:
        return float("-inf")
    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        warnings.simplefilter("ignore")
        return float(pyloudnorm.Meter(sample_rate).integrated_loudness(audio.T))


def true_peak(audio: Audio) -> float:
    """True peak in dBTP: the largest value after four-fold oversampling (BS.1770-4, annex 2)."""
    largest = float(np.abs(audio).max(initial=0.0))
    if largest == 0:
        return float("-inf")
    # A peak between samples has a neighbour within 3 dB in any real signal: look there only.
    return 20 * float(np.log10(oversampled_peaks(audio, floor=0.7 * largest).max()))


def oversampled_peaks(audio: Audio, floor: float) -> npt.NDArray[np.float32]:
    """Per sample, the largest absolute value over channels: ``[samples]``.

    Where a sample or the next one reaches `floor`, the values between the two count too
    (four-fold oversampling).
    """
    from scipy.signal import firwin

    taps = 4 * firwin(4 * _PHASE_TAPS + 1, 1 / 4, window=("kaiser", 7.0)).astype(np.float32)
    phases = np.stack([taps[phase : phase + 4 * _PHASE_TAPS : 4] for phase in (1, 2, 3)], axis=1)
    peaks: npt.NDArray[np.float32] = np.abs(audio).max(axis=0)
    for channel in audio:
        loud = np.abs(channel) >= floor
        loud[:-1] |= loud[1:]
        padded = np.pad(channel, (_PHASE_TAPS // 2 - 1, _PHASE_TAPS // 2))
        windows = np.lib.stride_tricks.sliding_window_view(padded, _PHASE_TAPS)
        where = np.flatnonzero(loud)
        for chunk in np.split(where, range(1 << 16, where.size, 1 << 16)):
            between = np.abs(windows[chunk] @ phases).max(axis=1)
            peaks[chunk] = np.maximum(peaks[chunk], between)
    return peaks


def longest_silence(mono: npt.NDArray[np.float32], sample_rate: int) -> float:
    """Longest stretch in seconds below `SILENCE_DBFS` (RMS over 50 ms), lead-in and tail included."""
    frame = sample_rate // 20
    frames = mono[: mono.size // frame * frame].reshape(-1, frame)
    silent = np.sqrt(np.mean(np.square(frames, dtype=np.float64), axis=1)) < 10 ** (SILENCE_DBFS / 20)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], silent.astype(np.int8), [0]))))
    return float(np.max(edges[1::2] - edges[::2], initial=0)) * frame / sample_rate


def tempo(mono: npt.NDArray[np.float32], sample_rate: int, near_bpm: float | None = None) -> float | None:
    """Tempo in bpm from the autocorrelation of the onset envelope, or None without a pulse.

    The window over tempi is Ellis (2007), "Beat tracking by dynamic programming": log-normal
    around 120 bpm (here around `near_bpm` where known, which decides the octave and no more), with
    the autocorrelation at the double and triple period added, as a beat repeats.
    """
    envelope = _onset_envelope(mono, sample_rate)
    if envelope.size < 3 * _FRAME_HZ or envelope.max(initial=0.0) <= 0:
        return None
    spectrum = np.fft.rfft(envelope - envelope.mean(), 2 * envelope.size)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[: envelope.size]
    correlation = correlation / np.arange(envelope.size, 0, -1)  # unbiased: long lags have fewer terms
    if correlation[0] <= 0:
        return None
    correlation /= correlation[0]

    bpms = np.arange(40.0, 240.0, 0.25)
    lags = 60 * _FRAME_HZ / bpms
    at = np.arange(correlation.size)
    limit = correlation.size * 0.75
    comb = np.zeros_like(bpms)
    for multiple, weight in ((1, 1.0), (2, 0.5), (3, 0.25), (4, 0.5)):
        comb += np.where(lags * multiple < limit, weight * np.interp(lags * multiple, at, correlation), 0.0)
    window = np.exp(-0.5 * (np.log2(bpms / (near_bpm or 120.0)) / 0.9) ** 2)
    best = int(np.argmax(comb * window))
    if comb[best] < 0.1:
        return None
    bpm = _refine(correlation, float(lags[best]), limit)
    if near_bpm:
        bpm *= 2.0 ** round(float(np.log2(near_bpm / bpm)))
    return bpm


def _refine(correlation: npt.NDArray[np.float64], lag: float, limit: float) -> float:
    """Follow the peak out to ever longer multiples of the period: the error shrinks with each."""
    multiple = 1
    while True:
        around = np.arange(round(lag * multiple) - 3, round(lag * multiple) + 4)
        if around[-1] >= limit or around[0] < 1:
            return 60 * _FRAME_HZ / lag
        centre = around[int(np.argmax(correlation[around]))]
        left, middle, right = correlation[centre - 1 : centre + 2]
        bend = left - 2 * middle + right
        shift = 0.5 * (left - right) / bend if bend < 0 else 0.0
        lag = (centre + float(np.clip(shift, -1, 1))) / multiple
        multiple *= 2


def _onset_envelope(mono: npt.NDArray[np.float32], sample_rate: int) -> npt.NDArray[np.float64]:
    """Rise of the log magnitude from frame to frame, summed over frequency: `_FRAME_HZ` values a second."""
    magnitude = _spectrogram(mono, 1024, sample_rate / _FRAME_HZ)
    bands = np.add.reduceat(magnitude, np.unique(np.geomspace(1, magnitude.shape[1] - 1, 40).astype(int)), axis=1)
    rise = np.maximum(np.diff(np.log1p(1000 * bands), axis=0), 0).mean(axis=1)
    # Above the local mean: a crescendo is not an onset.
    width = _FRAME_HZ // 2
    local = np.convolve(rise, np.ones(width) / width, mode="same") if rise.size > width else rise.mean()
    return np.asarray(np.maximum(rise - local, 0))


def key(mono: npt.NDArray[np.float32], sample_rate: int) -> str | None:
    """Key whose pitch-class profile correlates best with the track's, or None without pitch."""
    fits = key_fits(mono, sample_rate)
    return max(fits, key=lambda name: fits[name]) if fits else None


def key_fits(mono: npt.NDArray[np.float32], sample_rate: int) -> dict[str, float]:
    """Of each key the correlation, −1 to 1, of its pitch-class profile with the track's; empty without pitch."""
    size = 1 << int(np.ceil(np.log2(sample_rate * 0.18)))
    frequencies = np.arange(size // 2 + 1) * sample_rate / size
    audible = (frequencies >= 100) & (frequencies <= 2100)
    amplitude = np.sqrt(_spectrogram(mono, size, size / 2)[:, audible])
    if amplitude.max(initial=0.0) <= 0:
        return {}
    # Each moment counts the same, the loud ones no more than the soft.
    amplitude /= np.linalg.norm(amplitude, axis=1, keepdims=True) + 1e-6
    midi = 69 + 12 * np.log2(frequencies[audible] / 440)
    pitches = np.round(midi).astype(int)
    # Bins between two semitones say little about either.
    weight = np.maximum(0, 1 - 2.5 * np.abs(midi - pitches))
    energy, bins = np.bincount(pitches, amplitude.sum(axis=0) * weight, 120), np.bincount(pitches, weight, 120)
    profile = (energy / np.maximum(bins, 1e-9)).reshape(10, 12).sum(axis=0)
    if np.ptp(profile) <= 1e-9:
        return {}
    return {
        f"{TONICS[tonic]} {mode}": float(np.corrcoef(profile, np.roll(shape, tonic))[0, 1])
        for mode, shape in (("major", _MAJOR), ("minor", _MINOR))
        for tonic in range(12)
    }


def _spectrogram(mono: npt.NDArray[np.float32], size: int, hop: float) -> npt.NDArray[np.float32]:
    """Magnitudes ``[frames, size // 2 + 1]`` under a Hann window; `hop` in samples may be fractional."""
    starts = np.arange(0, mono.size - size, hop).astype(int)
    frames = np.lib.stride_tricks.sliding_window_view(mono, size)[starts] if starts.size else np.zeros((0, size))
    return np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=1)).astype(np.float32)
