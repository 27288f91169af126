"""From score to sound: every part played by the sampler, balanced by its measured loudness, mixed.

Parts are levelled by what they measure while they play, not by fixed volumes: any instrument can
take any part, in any SoundFont, and the balance stays the style's.

All that follows the levelled parts is either linear (pan, echo, room, tone) or a gain that changes with time and is
the same for all. So the mix can be taken apart: a part alone, through the same and under the same gain, is its stem,
and the stems add up to the mix.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from threading import Event
from typing import TYPE_CHECKING

import numpy as np

from melodify_lib.music.arranger.fluidsynth import BLOCK, SAMPLE_RATE
from melodify_lib.music.arranger.sampler import Hit, Sampler, Voice
from melodify_lib.music.arranger.score import Part, Score

if TYPE_CHECKING:
    import numpy.typing as npt
    import pedalboard

    from melodify_lib.stages import OnProgress

    Audio = npt.NDArray[np.float32]

_LONGEST_RELEASE = 3.0  # seconds
_THREADS = 2
"""Parts that are played at once: what takes the time, FluidSynth and pedalboard, lets other threads run."""
_AHEAD = 5
"""Parts that are played, or wait for it, before the mix takes the first of them: a long one holds nobody up."""
_LOOK_S = 0.1
"""How often `on_progress` hears, and may end the song."""
_PARTS_SHARE = 0.7
"""Of the time that a song takes; the rest is its mix and its mastering."""
_JOIN = SAMPLE_RATE // 20
"""Samples over which a loop's beginning is faded into what its end leads to."""
_LEAD_RMS_DB = -21.0
"""Loudness of a part at 0 dB: leaves the mix of a dozen parts under full scale."""
_THRESHOLD_DB, _RATIO = -14.0, 1.8
"""Of the compressor on the whole mix."""


@dataclass(frozen=True)
class Rendered:
    """A mix and, where they were asked for, its stems by part's name: float32 ``[2, samples]`` at `SAMPLE_RATE`."""

    mix: Audio
    stems: dict[str, Audio]


def render(
    score: Score, sampler: Sampler, on_progress: OnProgress = lambda share: None, *, stems: bool = False
) -> Rendered:
    """The mix, ``round(seconds · 44100)`` samples long, faded at its end; not yet mastered.

    A loop is played twice and a little more, and the second time is kept: it begins with what rings on from the first.
    What moves in a time of its own, such as a chorus, is not where it was when it comes round: so the loop's beginning
    is faded in under the beginning of the third time, which its end leads to. `on_progress` hears often which
    share of the work is done.
    """
    once = round(score.seconds * SAMPLE_RATE)
    samples = 2 * once + _JOIN if score.is_loop else once
    ducking = _ducking(score, samples)
    desk = _Desk(score, samples)
    alone: dict[str, Audio] = {}
    kept = slice(once, 2 * once + _JOIN) if score.is_loop else slice(None)
    for part, played in _played(score, sampler, samples, on_progress):
        gain: np.float32 | Audio = _balance(played, part.mix.level_db)
        if part.mix.duck_db and ducking is not None:
            gain = gain * (1 - ducking * np.float32(1 - 10 ** (-part.mix.duck_db / 20)))
        audio = _panned(played * gain, part.mix.pan)
        desk.add(audio, part)
        if stems:
            own = _Desk(score, samples)
            own.add(audio, part)
            alone[part.name] = own.mix()[:, kept].copy()
    on_progress(_PARTS_SHARE)
    mix = desk.mix()
    gain = _bus_gain(mix, score)
    mix, gain = (mix * gain)[:, kept], gain[kept]
    return Rendered(_joined(mix, score), {name: _joined(audio * gain, score) for name, audio in alone.items()})


def _times(score: Score) -> tuple[float, ...]:
    """When it begins, in seconds: a loop three times."""
    return (0.0, score.seconds, 2 * score.seconds) if score.is_loop else (0.0,)


def _joined(audio: Audio, score: Score) -> Audio:
    """A loop's second time, its beginning cross-faded with that of the third, which follows it; else all."""
    if not score.is_loop:
        return audio
    loop = audio[:, :-_JOIN].copy()
    share = np.linspace(0, 1, _JOIN, dtype=np.float32)
    loop[:, :_JOIN] = share * loop[:, :_JOIN] + (1 - share) * audio[:, -_JOIN:]
    return loop


class _Desk:
    """What parts go through together, all of it linear: pan has been, now echo, room and tone."""

    def __init__(self, score: Score, samples: int) -> None:
        self._score = score
        self._dry, self._reverb, self._delay = (np.zeros((2, samples), dtype=np.float32) for _ in range(3))

    def add(self, audio: Audio, part: Part) -> None:
        self._dry += audio
        if part.mix.reverb:
            self._reverb += audio * np.float32(part.mix.reverb)
        if part.mix.delay:
            self._delay += audio * np.float32(part.mix.delay)

    def mix(self) -> Audio:
        import pedalboard

        if self._delay.any():
            echoes = _echo(self._delay, self._score.delay_beats * self._score.beat_seconds)
            self._dry += echoes
            self._reverb += echoes * np.float32(0.3)
        if self._reverb.any():
            self._dry += _room(self._reverb, self._score.reverb_seconds)
        brightness_db = self._score.brightness_db
        return _each_side(
            self._dry, lambda: [pedalboard.HighpassFilter(28), pedalboard.HighShelfFilter(3800, brightness_db)]
        )


def _played(score: Score, sampler: Sampler, samples: int, on_progress: OnProgress) -> Iterator[tuple[Part, Audio]]:
    """Each part through its own effects, in order; some at once. What `on_progress` raises ends them all soon."""
    is_over = Event()

    def go_on() -> None:
        if is_over.is_set():
            raise CancelledError

    def play(part: Part) -> Audio:
        go_on()
        return _insert(_play(part, score, sampler, samples, go_on), part)

    with ThreadPoolExecutor(_THREADS) as pool:
        ahead = deque(score.parts)
        pending = deque(pool.submit(play, ahead.popleft()) for _ in range(min(_AHEAD, len(ahead))))
        try:
            for number, part in enumerate(score.parts):
                first, share = pending.popleft(), _PARTS_SHARE * number / len(score.parts)
                on_progress(share)
                while not wait([first], _LOOK_S).done:
                    on_progress(share)
                audio = first.result()
                if ahead:
                    pending.append(pool.submit(play, ahead.popleft()))
                yield part, audio
        finally:
            is_over.set()


def _play(part: Part, score: Score, sampler: Sampler, samples: int, go_on: Callable[[], None]) -> Audio:
    beat = score.beat_seconds
    hits = [Hit(note.start * beat, note.duration * beat, note.pitch, note.velocity) for note in part.notes]
    hits = [replace(hit, start=hit.start + start) for start in _times(score) for hit in hits]
    hits = [hit for hit in hits if hit.start * SAMPLE_RATE < samples]
    # Only the stretch in which the part plays is rendered: silence costs as much as music.
    first = max(round((min(hit.start for hit in hits) - 0.02) * SAMPLE_RATE), 0) // BLOCK * BLOCK
    last = min(round((max(hit.start + hit.duration for hit in hits) + _LONGEST_RELEASE) * SAMPLE_RATE), samples)
    offset = first / SAMPLE_RATE
    hits = [replace(hit, start=hit.start - offset) for hit in hits]
    audio = np.zeros((2, samples), dtype=np.float32)
    voice = Voice(part.program, part.is_drum, part.vibrato_cents)
    audio[:, first:last] = sampler.play(hits, voice, last - first, go_on)
    return audio


def _insert(audio: Audio, part: Part) -> Audio:
    """What the part goes through before its fader: drive, chorus, and no rumble."""
    import pedalboard
    from pedalboard import Pedalboard  # type: ignore[attr-defined]

    chain: list[pedalboard.Plugin] = []
    if part.mix.drive_db:
        if not part.is_drum:
            audio = audio.mean(axis=0, keepdims=True)  # an amplifier has one input
        gain = 0.5 / max(float(np.abs(audio).max()), 1e-6)
        audio = audio * np.float32(gain)
        chain += _amplifier(part)
    if part.mix.chorus:
        chain.append(pedalboard.Chorus(rate_hz=0.8, depth=0.18, centre_delay_ms=8, feedback=0, mix=part.mix.chorus / 2))
    if part.mix.lowpass_hz:
        chain += [pedalboard.LowpassFilter(part.mix.lowpass_hz), pedalboard.LowpassFilter(part.mix.lowpass_hz)]
    if part.mix.highpass_hz:
        chain.append(pedalboard.HighpassFilter(part.mix.highpass_hz))
    if chain:
        audio = np.asarray(Pedalboard(chain)(audio, SAMPLE_RATE))
    return np.broadcast_to(audio, (2, audio.shape[1]))


def _amplifier(part: Part) -> list[pedalboard.Plugin]:
    """What clips, and the tone around it: drums are only pressed; a bass keeps its lows and loses its fizz.

    A guitar is cut below and pushed in the middle before it clips, or chords turn to mud; then come the thump,
    the scoop and the presence of a closed cabinet, and little above 6 kHz.
    """
    import pedalboard

    clip = pedalboard.Distortion(part.mix.drive_db)
    if part.is_drum:
        return [clip]
    if part.role == "bass":
        return [clip, pedalboard.LowpassFilter(3000)]
    return [
        pedalboard.HighpassFilter(150),
        pedalboard.HighpassFilter(150),
        pedalboard.PeakFilter(900, 5.0, 0.6),
        clip,
        pedalboard.PeakFilter(110, 5.0, 0.8),
        pedalboard.PeakFilter(450, -6.0, 0.7),
        pedalboard.PeakFilter(3000, 6.0, 0.9),
        pedalboard.LowpassFilter(6500),
        pedalboard.LowpassFilter(6500),
    ]


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
        start + note.start * score.beat_seconds
        for start in _times(score)
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
        start = min(int(kick * SAMPLE_RATE), samples)
        piece = out[start : start + length]
        np.maximum(piece, shape[: piece.size], out=piece)
    return out


def _echo(send: Audio, seconds: float) -> Audio:
    import pedalboard

    return _each_side(
        send,
        lambda: [
            pedalboard.HighpassFilter(300),
            pedalboard.Delay(delay_seconds=seconds, feedback=0.32, mix=1.0),
            pedalboard.LowpassFilter(3500),
        ],
    )


def _each_side(audio: Audio, chain: Callable[[], list[pedalboard.Plugin]]) -> Audio:
    """Both channels at once, each through fresh plugins, as these have state; for effects that join no channels."""
    from pedalboard import Pedalboard  # type: ignore[attr-defined]

    with ThreadPoolExecutor(len(audio)) as pool:
        return np.stack(list(pool.map(lambda side: Pedalboard(chain())(side, SAMPLE_RATE), audio)))


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


def _bus_gain(mix: Audio, score: Score) -> Audio:
    """The gain over time of the whole: a touch of compression, headroom, and the last chord's fade into silence.

    The compressor looks at the power over 0.1 s on both sides of a moment, of both channels together.
    """
    from scipy.ndimage import uniform_filter1d

    power = np.square(mix).sum(axis=0)[: mix.shape[1] // BLOCK * BLOCK].reshape(-1, BLOCK).mean(axis=1)
    power = uniform_filter1d(power, round(0.1 * SAMPLE_RATE / BLOCK), mode="wrap" if score.is_loop else "nearest")
    over_db = np.maximum(10 * np.log10(np.maximum(power, 1e-12)) - _THRESHOLD_DB, 0)
    pressed = 10 ** (-over_db * (1 - 1 / _RATIO) / 20)
    blocks = (np.arange(power.size) + 0.5) * BLOCK
    gain: Audio = np.interp(np.arange(mix.shape[1]), blocks, pressed).astype(np.float32)
    peak = float((np.abs(mix).max(axis=0) * gain).max())
    gain *= np.float32(0.98 / max(peak, 0.98))
    if not score.is_loop:
        start = sum(score.bars[:-1]) * score.beat_seconds
        fade = int(min(max(0.6 * (score.seconds - start), 0.4), 2.0) * SAMPLE_RATE)
        gain[-fade:] *= np.cos(np.linspace(0, np.pi / 2, fade, dtype=np.float32)) ** 2
        gain[-1] = 0
    return gain
