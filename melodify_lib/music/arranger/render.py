"""From score to sound: every part played by the sampler, balanced by its measured loudness, mixed.

Parts are levelled by what they measure while they play, not by fixed volumes: any instrument can
take any part, in any SoundFont, and the balance stays the style's.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from melodify_lib.music.arranger.sampler import SAMPLE_RATE, Hit, Sampler, Voice
from melodify_lib.music.arranger.score import Part, Score

if TYPE_CHECKING:
    import numpy.typing as npt

    from melodify_lib.stages import OnProgress

    Audio = npt.NDArray[np.float32]

_LONGEST_RELEASE = 3.0  # seconds
OUTPUT_RATE = 44_100
"""Hz: what the arranger hands on."""
_PARTS_SHARE = 0.8
"""Of the time that a song takes; the rest is its mix and its mastering."""
_LEAD_RMS_DB = -21.0
"""Loudness of a part at 0 dB: leaves the mix of a dozen parts under full scale."""


def render(score: Score, sampler: Sampler, on_progress: OnProgress = lambda share: None) -> Audio:
    """The mix, float32 ``[2, round(seconds · 44100)]``, faded at its end; not yet mastered.

    `on_progress` hears after each part which share of the work is done.
    """
    samples = round(score.seconds * SAMPLE_RATE) + SAMPLE_RATE // 100
    mix = np.zeros((2, samples), dtype=np.float32)
    reverb, delay = np.zeros_like(mix), np.zeros_like(mix)
    ducking = _ducking(score, samples)
    for number, (part, played) in enumerate(_played(score, sampler, samples)):
        on_progress(_PARTS_SHARE * number / len(score.parts))
        gain: np.float32 | Audio = _balance(played, part.mix.level_db)
        if part.mix.duck_db and ducking is not None:
            gain = gain * (1 - ducking * np.float32(1 - 10 ** (-part.mix.duck_db / 20)))
        audio = _panned(played * gain, part.mix.pan)
        mix += audio
        if part.mix.reverb:
            reverb += audio * np.float32(part.mix.reverb)
        if part.mix.delay:
            delay += audio * np.float32(part.mix.delay)
    if delay.any():
        echoes = _echo(delay, score.delay_beats * score.beat_seconds)
        mix += echoes
        reverb += echoes * np.float32(0.3)
    if reverb.any():
        mix += _room(reverb, score.reverb_seconds)
    return _finish(_resampled(mix, round(score.seconds * OUTPUT_RATE)), score)


def _resampled(mix: Audio, samples: int) -> Audio:
    """From the synthesiser's rate to `OUTPUT_RATE`: once, at the end, for the whole mix."""
    from scipy.signal import resample_poly

    return np.asarray(resample_poly(mix, 147, 160, axis=1)[:, :samples], dtype=np.float32)


def _played(score: Score, sampler: Sampler, samples: int) -> Iterator[tuple[Part, Audio]]:
    """Each part through its effects, while the next is being played: only the effects let other threads run."""
    with ThreadPoolExecutor(1) as pool:
        pending: tuple[Part, Future[Audio]] | None = None
        for part in score.parts:
            audio = _play(part, score, sampler, samples)
            if pending is not None:
                yield pending[0], pending[1].result()
            pending = part, pool.submit(_insert, audio, part)
        if pending is not None:
            yield pending[0], pending[1].result()


def _play(part: Part, score: Score, sampler: Sampler, samples: int) -> Audio:
    beat = score.beat_seconds
    hits = [Hit(note.start * beat, note.duration * beat, note.pitch, note.velocity) for note in part.notes]
    # Only the stretch in which the part plays is rendered: silence costs as much as music.
    first = max(int((min(hit.start for hit in hits) - 0.02) * SAMPLE_RATE), 0)
    last = int((max(hit.start + hit.duration for hit in hits) + _LONGEST_RELEASE) * SAMPLE_RATE)
    offset = first / SAMPLE_RATE
    hits = [Hit(hit.start - offset, hit.duration, hit.pitch, hit.velocity) for hit in hits]
    voice = Voice(part.program, part.is_drum, part.vibrato_cents)
    audio = np.zeros((2, samples), dtype=np.float32)
    audio[:, first:last] = sampler.play(hits, voice, min(last, samples) - first)
    return audio


def _insert(audio: Audio, part: Part) -> Audio:
    """What the part goes through before its fader: drive, chorus, and no rumble."""
    import pedalboard
    from pedalboard import Pedalboard  # type: ignore[attr-defined]

    chain: list[pedalboard.Plugin] = []
    if part.mix.drive_db:
        # A small amplifier: drive, then the roll-off of a loudspeaker, which takes the fizz away.
        gain = 0.25 / max(float(np.abs(audio).max()), 1e-6)
        audio = audio * np.float32(gain)
        chain += [
            pedalboard.HighpassFilter(90),
            pedalboard.Distortion(part.mix.drive_db),
            pedalboard.LowpassFilter(5500),
            pedalboard.LowpassFilter(7000),
        ]
    if part.mix.chorus:
        chain.append(pedalboard.Chorus(rate_hz=0.8, depth=0.18, centre_delay_ms=8, feedback=0, mix=part.mix.chorus / 2))
    if part.mix.lowpass_hz:
        chain += [pedalboard.LowpassFilter(part.mix.lowpass_hz), pedalboard.LowpassFilter(part.mix.lowpass_hz)]
    if part.mix.highpass_hz:
        chain.append(pedalboard.HighpassFilter(part.mix.highpass_hz))
    return np.asarray(Pedalboard(chain)(audio, SAMPLE_RATE)) if chain else audio


def _balance(audio: Audio, level_db: float) -> np.float32:
    """The gain that brings a part to its level, measured where it sounds.

    A short cut of ITU-R BS.1770: first difference for the weighting (the ear is less keen on lows),
    blocks of 0.2 s, those more than 16 dB under the loudest left out.
    """
    mono = audio[0] + audio[1]
    weighted = mono[1:] - np.float32(0.55) * mono[:-1]
    block = SAMPLE_RATE // 5
    count = max(weighted.size // block, 1)
    power = np.square(weighted[: count * block]).reshape(count, -1).mean(axis=1)
    loud = power[power > power.max() * 10 ** (-16 / 10)]
    if not loud.size or power.max() <= 0:
        return np.float32(0)
    return np.float32(10 ** ((_LEAD_RMS_DB + level_db) / 20) / np.sqrt(loud.mean()))


def _panned(audio: Audio, pan: float) -> Audio:
    """Constant-power balance: what an instrument has of its own width stays."""
    if not pan:
        return audio
    angle = (pan + 1) * np.pi / 4
    gains = np.array([[np.cos(angle)], [np.sin(angle)]], dtype=np.float32) * np.float32(np.sqrt(2))
    return audio * gains


def _ducking(score: Score, samples: int) -> Audio | None:
    """1 at each kick, falling to 0 within a beat: what a compressor keyed by the kick would take away."""
    kicks = [
        note.start * score.beat_seconds
        for part in score.parts
        if part.is_drum
        for note in part.notes
        if note.pitch in (35, 36)
    ]
    if not kicks or all(not part.mix.duck_db for part in score.parts):
        return None
    length = int(min(score.beat_seconds, 0.5) * 0.9 * SAMPLE_RATE)
    shape = (0.5 + 0.5 * np.cos(np.linspace(0, np.pi, length))).astype(np.float32)
    out = np.zeros(samples, dtype=np.float32)
    for kick in kicks:
        start = int(kick * SAMPLE_RATE)
        piece = out[start : start + length]
        np.maximum(piece, shape[: piece.size], out=piece)
    return out


def _echo(send: Audio, seconds: float) -> Audio:
    import pedalboard
    from pedalboard import Pedalboard  # type: ignore[attr-defined]

    board = Pedalboard(
        [
            pedalboard.HighpassFilter(300),
            pedalboard.Delay(delay_seconds=seconds, feedback=0.32, mix=1.0),
            pedalboard.LowpassFilter(3500),
        ]
    )
    return np.asarray(board(send, SAMPLE_RATE))


def _room(send: Audio, seconds: float) -> Audio:
    """The reverb, at half the sample rate: a room swallows what is above 10 kHz anyway, and it costs half."""
    import pedalboard
    from pedalboard import Pedalboard  # type: ignore[attr-defined]

    half = (send[:, 0::2][:, : send.shape[1] // 2] + send[:, 1::2]) * np.float32(0.5)
    board = Pedalboard(
        [
            pedalboard.HighpassFilter(220),
            pedalboard.LowpassFilter(6500),
            pedalboard.Reverb(
                room_size=min(0.35 + 0.16 * seconds, 0.97),
                damping=0.45,
                wet_level=0.9,
                dry_level=0,
                width=1,
            ),
        ]
    )
    wet = np.asarray(board(half, SAMPLE_RATE // 2))
    out = np.empty_like(send)
    out[:, 0 : 2 * wet.shape[1] : 2] = wet
    following = np.concatenate([wet[:, 1:], wet[:, -1:]], axis=1)
    out[:, 1 : 2 * wet.shape[1] : 2] = (wet + following) * np.float32(0.5)
    out[:, 2 * wet.shape[1] :] = 0
    return out


def _finish(mix: Audio, score: Score) -> Audio:
    """The bus: tone, a touch of compression, and the last chord's fade into silence."""
    import pedalboard
    from pedalboard import Pedalboard  # type: ignore[attr-defined]

    chain: list[pedalboard.Plugin] = [
        pedalboard.HighpassFilter(28),
        pedalboard.HighShelfFilter(3800, score.brightness_db),
        pedalboard.Compressor(threshold_db=-14, ratio=1.8, attack_ms=20, release_ms=150),
    ]
    mix = np.asarray(Pedalboard(chain)(mix, OUTPUT_RATE))
    peak = float(np.abs(mix).max())
    if peak > 0.98:
        mix = mix * np.float32(0.98 / peak)
    end = score.seconds
    start = sum(score.bars[:-1]) * score.beat_seconds
    fade = int(min(max(0.6 * (end - start), 0.4), 2.0) * OUTPUT_RATE)
    mix[:, -fade:] *= np.cos(np.linspace(0, np.pi / 2, fade, dtype=np.float32)) ** 2
    mix[:, -1] = 0
    return mix
