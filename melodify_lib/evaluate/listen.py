"""Hearing a finished file as somebody else would: nothing here uses the library's own estimators.

A track's card holds what `melodify_lib.music.measure` says, and the arranger was made beside it; an evaluation asks
others. Tempo, onsets and pitch come from librosa, the key from profiles that nothing else here uses, loudness from
pyloudnorm by the standard's own filters (the card's from its other set), true peak from an oversampling of the whole
file. Nothing is told what was asked for: what is heard is compared afterwards
(`same_tempo`, `key_credit`).
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from melodify_lib.errors import MissingDependencyError, install
from melodify_lib.music.measure import TEMPO_TOLERANCE
from melodify_lib.nouns import TONICS, Measures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

RATE = 22_050
HOP = 256  # 11.6 ms
SILENCE_DBFS = -60.0
PULSE = 0.25
"""Least periodicity of onsets that counts as a pulse.

The largest autocorrelation between 40 and 240 bpm; .25 is the most that 200 tracks of 20 s had whose notes begin at
random times, half to eight a second. Noise has .05 to .08.
"""
_BINS = 36  # an octave, as librosa's chroma has it

# Three sets of key profiles, major and minor from the tonic; a key's fit is the mean of theirs. The arranger chooses
# chords by Krumhansl & Kessler's and the card's key comes from Albrecht & Shanahan's, so neither is among them.
_PROFILES = {
    "major": (
        # Temperley (2001), "The cognition of basic musical structures", chapter 7
        (5, 2, 3.5, 2, 4.5, 4, 2, 4.5, 2, 3.5, 1.5, 4),
        # Aarden (2003), "Dynamic melodic expectancy"
        (17.7661, 0.1456, 14.9265, 0.1602, 19.8049, 11.3587, 0.2912, 22.062, 0.1456, 8.1549, 0.233, 4.9512),
        # Bellmann (2005), "About the determination of key of a musical excerpt", after Budge (1943)
        (16.8, 0.86, 12.95, 1.41, 13.49, 11.93, 1.25, 20.28, 1.8, 8.04, 0.62, 10.57),
    ),
    "minor": (
        (5, 2, 3.5, 4.5, 2, 4, 2, 4.5, 3.5, 2, 1.5, 4),
        (18.2648, 0.7376, 14.0499, 16.8599, 0.7025, 14.4362, 0.7025, 18.6161, 4.5662, 1.9319, 7.3762, 1.7562),
        (18.16, 0.69, 12.99, 13.34, 1.07, 11.15, 1.38, 21.07, 7.49, 1.53, 0.92, 10.21),
    ),
}
# Krumhansl & Kessler (1982), "Tracing the dynamic changes in perceived tonal organization": how well each pitch class
# fits a key, as people rated it. What is heard as major or minor goes by these, as in MIRtoolbox.
_RATINGS = {
    "major": ((6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),),
    "minor": ((6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),),
}


def same_tempo(asked: float, got: float | None) -> bool:
    """Is `got` within 2 % of `asked` bpm, of its half or of its double? Nobody agrees which beat is the beat."""
    return got is not None and any(abs(got * octave / asked - 1) <= TEMPO_TOLERANCE for octave in (0.5, 1, 2))


def key_credit(asked: str, got: str | None) -> float:
    """1 for the key that was asked for, ½ for its relative major or minor, which has the same notes, else 0."""
    if got is None or got == asked:
        return float(got == asked)
    (tonic, mode), (other, other_mode) = asked.split(), got.split()
    up = 9 if mode == "major" else 3
    return 0.5 if mode != other_mode and (TONICS.index(tonic) + up) % 12 == TONICS.index(other) else 0.0


@dataclass(frozen=True)
class Cues:
    """What carries emotion in music, as it can be heard in a file whose loudness was evened out.

    `mode` is how much better the best major key fits than the best minor one, as a difference of correlations (the
    "mode" of Lartillot & Toiviainen 2007, MIRtoolbox); `tempo` in octaves of a beat a minute, NaN without a pulse, over
    all that can be tapped and not the one that a tracker settles on: half as fast is no step of its own;
    `onsets` a second; `register` the mean pitch as a MIDI number; `flux` the mean rise of the spectrum in decibels
    from frame to frame; `brightness` the mean spectral centroid in octaves of a hertz.
    """

    mode: float
    tempo: float
    onsets: float
    register: float
    flux: float
    brightness: float


class Sound:
    """A decoded WAV file; each measure is taken when it is asked for.

    Raises `MissingDependencyError` without librosa.
    """

    def __init__(self, wav: bytes) -> None:
        import soundfile

        self._librosa = _librosa()
        samples, self.sample_rate = soundfile.read(io.BytesIO(wav), dtype="float32", always_2d=True)
        self.audio: Floats = samples.T  # [channels, samples]

    @cached_property
    def mono(self) -> Floats:
        """All channels together at `RATE`."""
        mixed: Floats = self._librosa.resample(self.audio.mean(axis=0), orig_sr=self.sample_rate, target_sr=RATE)
        return mixed

    @property
    def measures(self) -> Measures:
        """As on a card, but that silence is counted inside only, not before the first sound or after the last."""
        loudness, peak, bpm = self.loudness, self.true_peak, self.bpm
        return Measures(
            bpm=None if bpm is None else round(bpm, 2),
            key=self.key,
            loudness_lufs=round(loudness, 2) if np.isfinite(loudness) else None,
            true_peak_dbtp=round(peak, 2) if np.isfinite(peak) else None,
            duration_s=round(self.audio.shape[1] / self.sample_rate, 3),
            longest_silence_s=round(self.silence_inside, 2),
        )

    @cached_property
    def pulse(self) -> float:
        """Largest autocorrelation of the onsets between 40 and 240 bpm: 0 for none, 1 for a metronome."""
        correlation = self._onset_correlation
        lags = slice(round(60 / 240 * RATE / HOP), round(60 / 40 * RATE / HOP))
        return float(correlation[lags].max(initial=0.0) / correlation[0]) if correlation[0] > 0 else 0.0

    @property
    def _pace(self) -> float:
        """Mean of the octaves at which onsets repeat, by how much they do, as tapped: around 120 bpm, an octave wide.

        The autocorrelation between 30 and 480 bpm under the window of `Sound.bpm`'s tracker (Ellis 2007).
        """
        if self.pulse < PULSE:
            return float("nan")
        correlation = self._onset_correlation
        lags = np.arange(round(60 / 480 * RATE / HOP), min(round(60 / 30 * RATE / HOP), correlation.size))
        octaves = np.log2(60 * RATE / HOP / lags)
        window = np.exp(-0.5 * (octaves - np.log2(120)) ** 2) / lags  # lags lie closer than octaves
        weights = window * np.maximum(correlation[lags], 0) ** 2
        return float(weights @ octaves / weights.sum())

    @cached_property
    def bpm(self) -> float | None:
        """Beats a minute by librosa's beat tracker (Ellis 2007), or None without a pulse.

        The tracker's own figure is one of few: 117.5 and 123.0 are neighbours. So its beats are counted: their mean
        distance, but for those that are more than a tenth off the median (one skipped, one too many).
        """
        if self.pulse < PULSE:
            return None
        _, beats = self._librosa.beat.beat_track(
            onset_envelope=self._onset_strength, sr=RATE, hop_length=HOP, units="time"
        )
        if len(beats) < 3:
            return None
        gaps = np.diff(beats)
        regular = gaps[np.abs(gaps / np.median(gaps) - 1) <= 0.1]
        return 60 / float(regular.mean())

    @cached_property
    def key(self) -> str | None:
        """The key whose profile fits best."""
        fits = self._fits(_PROFILES)
        return max(fits, key=lambda name: fits[name]) if fits else None

    @property
    def loudness(self) -> float:
        """Integrated loudness in LUFS, by the filters of ITU-R BS.1770 (the card's are pyloudnorm's default ones)."""
        import pyloudnorm

        if self.audio.shape[1] < 0.4 * self.sample_rate:
            return float("-inf")
        with warnings.catch_warnings(), np.errstate(divide="ignore"):
            warnings.simplefilter("ignore")
            meter = pyloudnorm.Meter(self.sample_rate, filter_class="DeMan")
            return float(meter.integrated_loudness(self.audio.T))

    @property
    def true_peak(self) -> float:
        """True peak in dBTP: the largest value of the whole file at four times its rate."""
        from scipy.signal import resample_poly

        with np.errstate(divide="ignore"):
            return float(20 * np.log10(np.abs(resample_poly(self.audio, 4, 1, axis=1)).max(initial=0.0)))

    @property
    def silence_inside(self) -> float:
        """Longest stretch in seconds under −60 dBFS between two sounds."""
        sounding = self._librosa.effects.split(
            self.mono, top_db=-SILENCE_DBFS, ref=1.0, frame_length=RATE // 20, hop_length=HOP
        )
        return float(max(sounding[1:, 0] - sounding[:-1, 1], default=0)) / RATE

    @property
    def cues(self) -> Cues:
        """What carries emotion."""
        fits = self._fits(_RATINGS) or dict.fromkeys((f"C {mode}" for mode in ("major", "minor")), 0.0)
        best = {mode: max(fit for name, fit in fits.items() if name.endswith(mode)) for mode in ("major", "minor")}
        pitches = self._constant_q.sum(axis=1)
        lowest = 24  # MIDI number of C1
        decibels = self._librosa.power_to_db(self._spectrum**2, ref=1.0, amin=1e-8)
        frequencies = self._librosa.fft_frequencies(sr=RATE, n_fft=2048)
        weights = self._spectrum.sum(axis=0)
        heard = weights > 1e-4 * weights.max(initial=0.0)
        centroids = (frequencies @ self._spectrum)[heard] / weights[heard]
        onsets = self._librosa.onset.onset_detect(onset_envelope=self._onset_strength, sr=RATE, hop_length=HOP)
        return Cues(
            mode=best["major"] - best["minor"],
            tempo=self._pace,
            onsets=len(onsets) * RATE / max(self.mono.size, 1),
            register=float(lowest + pitches @ np.arange(pitches.size) / (_BINS / 12) / max(pitches.sum(), 1e-9)),
            flux=float(np.maximum(np.diff(decibels, axis=1), 0).mean()),
            brightness=float(np.log2(centroids).mean()) if centroids.size else 0.0,
        )

    @property
    def features(self) -> npt.NDArray[np.float64]:
        """What genre classifiers commonly start from (Tzanetakis & Cook 2002), as one row.

        Means and deviations over time of 20 MFCCs and their changes, of spectral contrast (Jiang et al. 2002),
        centroid, bandwidth, rolloff, flatness, zero crossings and level; how strong each period of the onsets is; how
        even the chroma is, whichever the key.
        """
        feature, power = self._librosa.feature, self._spectrum**2
        mfcc = feature.mfcc(S=self._librosa.power_to_db(feature.melspectrogram(S=power, sr=RATE)), n_mfcc=20)
        over_time = [
            mfcc,
            np.diff(mfcc, axis=1),
            feature.spectral_contrast(S=self._spectrum, sr=RATE),
            feature.spectral_centroid(S=self._spectrum, sr=RATE),
            feature.spectral_bandwidth(S=self._spectrum, sr=RATE),
            feature.spectral_rolloff(S=self._spectrum, sr=RATE),
            np.log(feature.spectral_flatness(S=self._spectrum)),
            feature.zero_crossing_rate(self.mono),
            np.log(feature.rms(S=self._spectrum) + 1e-6),
        ]
        periods = feature.tempogram(onset_envelope=self._onset_strength, sr=RATE, hop_length=HOP).mean(axis=1)
        chroma = np.sort(self._chroma)[::-1]
        rhythm = [self.pulse, *periods[16:256:12], self._onset_strength.mean(), self._onset_strength.std()]
        cues = self.cues
        return np.concatenate(
            [
                *(np.r_[values.mean(axis=1), values.std(axis=1)] for values in over_time),
                rhythm,
                chroma,
                [cues.onsets, cues.register, cues.flux],
            ]
        ).astype(np.float64)

    @cached_property
    def _spectrum(self) -> Floats:
        """Magnitudes ``[1025, frames]``."""
        magnitudes: Floats = np.abs(self._librosa.stft(self.mono, n_fft=2048, hop_length=512))
        return magnitudes

    @cached_property
    def _onset_strength(self) -> Floats:
        strength: Floats = self._librosa.onset.onset_strength(y=self.mono, sr=RATE, hop_length=HOP)
        return strength

    @cached_property
    def _onset_correlation(self) -> Floats:
        """Autocorrelation of the onsets, less their mean, by lag in frames."""
        correlation: Floats = self._librosa.autocorrelate(self._onset_strength - self._onset_strength.mean())
        return correlation

    @cached_property
    def _constant_q(self) -> Floats:
        """Magnitudes ``[seven octaves from C1, in thirds of a semitone, frames]``."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of silence it says that it has no tuning, of a click that it is short
            magnitudes: Floats = np.abs(
                self._librosa.cqt(self.mono, sr=RATE, bins_per_octave=_BINS, n_bins=7 * _BINS, tuning=None)
            )
        return magnitudes

    @cached_property
    def _chroma(self) -> Floats:
        """How much of each pitch class there is, each moment as much as the next: ``[12]`` from C."""
        chroma: Floats = self._librosa.feature.chroma_cqt(C=self._constant_q, sr=RATE, bins_per_octave=_BINS)
        mean: Floats = chroma.mean(axis=1)
        return mean

    def _fits(self, of: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, float]:
        """Mean correlation of each key's profiles with the chroma; empty without pitch."""
        if np.ptp(self._chroma) <= 1e-6:
            return {}
        return {
            f"{TONICS[tonic]} {mode}": float(
                np.corrcoef([self._chroma, *np.roll(profiles, tonic, axis=1)])[0, 1:].mean()
            )
            for mode, profiles in of.items()
            for tonic in range(12)
        }


def _librosa() -> Any:
    try:
        import librosa
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"an independent ear is needed, librosa: {install('evaluate')}") from error
    return librosa
