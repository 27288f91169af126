"""Measuring and mastering, against signals whose tempo, key, loudness and peak are known."""

import io

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from melodify_lib.errors import InputError
from melodify_lib.music import measure
from melodify_lib.music.finish import check_request, encode_wav, finish_track, master
from melodify_lib.nouns import MusicDescription, StageVersion

RATE = 44_100
Audio = npt.NDArray[np.float32]


def tone(frequency: float, seconds: float, amplitude: float = 0.5, phase: float = 0.0) -> Audio:
    time = np.arange(round(seconds * RATE)) / RATE
    return (amplitude * np.sin(2 * np.pi * frequency * time + phase)).astype(np.float32)


def pulse(bpm: float, seconds: float = 20) -> Audio:
    """Bursts of noise on each beat over a C minor triad."""
    noise = np.random.default_rng(0).normal(size=6000) * np.exp(-np.arange(6000) / 1500)
    audio = sum(tone(frequency, seconds, 0.1) for frequency in (130.81, 261.63, 311.13, 392.0))
    for start in np.arange(0, audio.size - noise.size, RATE * 60 / bpm).astype(int):
        audio[start : start + noise.size] += 0.3 * noise
    return np.stack([audio, 0.8 * audio]).astype(np.float32)


@pytest.mark.parametrize("bpm", [52, 71.5, 96, 128, 174])
def test_tempo_of_a_pulse_is_found_within_a_percent(bpm: float) -> None:
    assert measure.tempo(pulse(bpm).mean(axis=0), RATE, near_bpm=bpm) == pytest.approx(bpm, rel=0.01)


def test_key_of_a_triad_is_found() -> None:
    assert measure.key(pulse(100).mean(axis=0), RATE) == "C minor"


def test_loudness_follows_bs1770() -> None:
    # EBU Tech 3341, case 1: a stereo sine of 1 kHz at −23 dBFS measures −23 LUFS.
    audio = np.stack([tone(1000, 20, 10 ** (-23 / 20))] * 2)
    assert measure.integrated_loudness(audio, RATE) == pytest.approx(-23.0, abs=0.1)


def test_true_peak_sees_between_samples() -> None:
    # EBU Tech 3341, case 16: a quarter of the sampling rate, at 45°, peaks 3 dB above its samples.
    audio = tone(RATE / 4, 1, 0.5, phase=np.pi / 4) * np.hanning(RATE).astype(np.float32)
    assert 20 * np.log10(np.abs(audio).max()) == pytest.approx(-9.03, abs=0.05)
    assert measure.true_peak(audio[None]) == pytest.approx(-6.02, abs=0.2)


def test_silence_measures_as_nothing() -> None:
    measures = measure.measure(np.zeros((2, 5 * RATE), np.float32), RATE)
    assert (measures.bpm, measures.key, measures.loudness_lufs, measures.true_peak_dbtp) == (None,) * 4
    assert measures.longest_silence_s == pytest.approx(5.0, abs=0.1)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.001, 4.0), st.integers(0, 2**31))
def test_mastering_reaches_its_loudness_and_never_its_ceiling(level: float, seed: int) -> None:
    bursts = np.random.default_rng(seed).normal(size=(2, 6 * RATE)) * (np.sin(np.arange(6 * RATE) / 9000) ** 8 + 0.05)
    mastered = master((level * bursts).astype(np.float32), RATE)
    assert measure.integrated_loudness(mastered, RATE) == pytest.approx(-14, abs=0.5)
    assert measure.true_peak(mastered) <= -0.99


def test_a_finished_track_opens_in_another_program_and_matches_its_card() -> None:
    audio = pulse(96)
    track = finish_track(
        audio, RATE,
        description=MusicDescription(
            description="A pulse", genre="electronic", bpm=96, key="C minor", moods=["calm"], instruments=["drums"]
        ),
        seconds=20, seed=0, musician=StageVersion(name="test", version="1"), licence="CC0-1.0", permitted_use="any",
    )  # fmt: skip
    samples, rate = soundfile.read(io.BytesIO(track.files["track.wav"]))
    assert (samples.shape, rate) == ((20 * RATE, 2), RATE)
    assert track.card.measured.bpm == pytest.approx(96, rel=0.01)
    assert track.card.measured.loudness_lufs == pytest.approx(-14, abs=0.5)


def test_wav_keeps_channels_and_samples() -> None:
    audio = np.stack([tone(440, 1), tone(880, 1, 0.25)])
    samples, _ = soundfile.read(io.BytesIO(encode_wav(audio, RATE)), dtype="float32")
    np.testing.assert_allclose(samples.T, audio, atol=1 / 32_000)


@pytest.mark.parametrize(("seconds", "seed"), [(3.9, 0), (301, 0), (float("nan"), 0), (20, -1), (20, 2**63)])
def test_requests_out_of_range_are_refused(seconds: float, seed: int) -> None:
    with pytest.raises(InputError, match="must be"):
        check_request(seconds, seed)
