"""Plays notes with the samples of a SoundFont: one part in, stereo audio out.

A note of one pitch on one instrument is rendered once (a *tone*: pitched, looped, enveloped,
filtered) and then only scaled and added wherever it is played, which is what makes thirty seconds
of a full arrangement take a few tenths of a second in numpy.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from melodify_lib.music.arranger.soundfont import DRUM_BANK, Envelope, SoundFont, Zone

if TYPE_CHECKING:
    import numpy.typing as npt

    Mono = npt.NDArray[np.float32]

SAMPLE_RATE = 44_100
_TONES_BYTES = 96 * 2**20
_INAUDIBLE_DB = 72.0
_LAYERS = ((56, -1300), (88, -500), (127, 0))
"""(highest velocity, cents by which the filter closes): softer notes are duller, as on real instruments."""


@dataclass(frozen=True)
class Voice:
    """How a part plays the font: preset, and what the font does not know of the instrument.

    `attack` and `release` in seconds are added to the font's own; `vibrato` is in cents, and comes
    in after 0.3 s; `cutoff_hz` closes the filter further (0: as the font has it).
    """

    program: int
    is_drum: bool = False
    attack: float = 0.0
    release: float = 0.0
    vibrato: float = 0.0
    cutoff_hz: float = 0.0


@dataclass(frozen=True)
class Hit:
    """A note in seconds, ready to be played."""

    start: float
    duration: float
    pitch: int
    velocity: int


class Sampler:
    """A SoundFont, ready to play; keeps the tones it has rendered (up to 96 MB)."""

    def __init__(self, font: SoundFont) -> None:
        self.font = font
        self._tones: OrderedDict[tuple[int, int, int, int, Voice], Mono] = OrderedDict()
        self._bytes = 0

    def play(self, hits: Iterable[Hit], voice: Voice, samples: int) -> npt.NDArray[np.float32]:
        """Audio float32 ``[2, samples]`` of a part; what rings past the end is cut."""
        zones = self.font.zones(DRUM_BANK if voice.is_drum else 0, voice.program)
        plan = _plan(hits, zones, voice, samples)
        longest: dict[tuple[int, int, int], int] = {}
        for entry in plan:
            tone = (entry.zone.index, entry.hit.pitch, entry.layer)
            longest[tone] = max(longest.get(tone, 0), entry.held + entry.release)
        out = np.zeros((3, samples), dtype=np.float32)  # left, right, and what is in the middle
        for entry in plan:
            length = longest[entry.zone.index, entry.hit.pitch, entry.layer]
            tone = self._tone(entry.zone, entry.hit.pitch, entry.layer, length, voice)
            _add(out, tone, entry)
        return out[:2] + out[2]

    def _tone(self, zone: Zone, pitch: int, layer: int, length: int, voice: Voice) -> Mono:
        # Lengths come in steps so that few tones differ by length alone. A longer tone is never used for a
        # shorter one: bytes must not depend on what was played before.
        steps = 1 << max(int(np.ceil(np.log2(max(length, 1) / 5512.5) * 2)), 0)
        length = int(5512.5 * np.sqrt(steps)) + 1
        key = (zone.index, pitch, layer, length, voice)
        tone = self._tones.pop(key, None)
        if tone is None:
            tone = _make_tone(self.font.samples, zone, pitch, _LAYERS[layer][1], length, voice)
            self._bytes += tone.nbytes
        self._tones[key] = tone
        while self._bytes > _TONES_BYTES and len(self._tones) > 1:
            self._bytes -= self._tones.popitem(last=False)[1].nbytes
        return tone


@dataclass(frozen=True)
class _Entry:
    """A hit on one zone. Times in samples."""

    hit: Hit
    zone: Zone
    layer: int
    start: int
    held: int
    release: int
    release_seconds: float


def _plan(hits: Iterable[Hit], zones: tuple[Zone, ...], voice: Voice, samples: int) -> list[_Entry]:
    """Which zones sound when and for how long; a closing hi-hat stops the open one (exclusive classes)."""
    plan: list[_Entry] = []
    ringing: dict[int, list[int]] = {}
    for hit in sorted(hits, key=lambda hit: (hit.start, hit.pitch)):
        start = round(hit.start * SAMPLE_RATE)
        if start >= samples or hit.velocity <= 0:
            continue
        layer = next(index for index, (highest, _) in enumerate(_LAYERS) if hit.velocity <= highest)
        matching = [
            zone
            for zone in zones
            if zone.keys[0] <= hit.pitch <= zone.keys[1] and zone.velocities[0] <= hit.velocity <= zone.velocities[1]
        ]
        stopped: set[int] = set()
        for zone in matching:
            if zone.exclusive_class and zone.exclusive_class not in stopped:
                stopped.add(zone.exclusive_class)
                for index in ringing.pop(zone.exclusive_class, []):
                    plan[index] = _stop(plan[index], start)
        for zone in matching:
            release = max(zone.volume.release, 0.02) + voice.release
            held = round(hit.duration * SAMPLE_RATE)
            if voice.is_drum:
                held = max(held, (zone.end - zone.start) * SAMPLE_RATE // zone.sample_rate if zone.loop is None else 0)
            held = max(min(held, samples - start), 64)
            tail = int(min(release * _INAUDIBLE_DB / 100, 8.0) * SAMPLE_RATE)
            if zone.exclusive_class:
                ringing.setdefault(zone.exclusive_class, []).append(len(plan))
            plan.append(_Entry(hit, zone, layer, start, held, max(min(tail, samples - start - held), 0), release))
    return plan


def _stop(entry: _Entry, at: int) -> _Entry:
    held = min(entry.held, max(at - entry.start, 64))
    return _Entry(entry.hit, entry.zone, entry.layer, entry.start, held, SAMPLE_RATE // 40, 0.035)


def _add(out: npt.NDArray[np.float32], tone: Mono, entry: _Entry) -> None:
    # Velocity to loudness: 40 · log10(127 / velocity) dB, the default of section 8.4.1.
    gain = np.float32((entry.hit.velocity / 127) ** 2 * 10 ** (-entry.zone.attenuation_db / 20))
    held, start, pan = entry.held, entry.start, entry.zone.pan
    piece = tone[: held + entry.release] * gain
    tail = piece[held:]
    if tail.size:
        falling = np.arange(1, tail.size + 1, dtype=np.float32) * np.float32(
            -100 / 20 * np.log(10) / (entry.release_seconds * SAMPLE_RATE)
        )
        tail *= np.exp(falling) * np.linspace(1, 0, tail.size, dtype=np.float32) ** np.float32(0.25)
    elif piece.size > 64:
        piece[-64:] *= np.linspace(1, 0, 64, dtype=np.float32)
    piece = piece[: out.shape[1] - start]
    stop = start + piece.size
    if abs(pan) < 0.02:
        out[2, start:stop] += piece * np.float32(np.sqrt(0.5))
    else:
        angle = (pan + 1) * np.pi / 4
        out[0, start:stop] += piece * np.float32(np.cos(angle))
        out[1, start:stop] += piece * np.float32(np.sin(angle))


def _make_tone(
    pool: npt.NDArray[np.int16], zone: Zone, pitch: int, layer_cents: float, length: int, voice: Voice
) -> Mono:
    """The zone at a pitch for `length` samples: pitched, filtered and enveloped, but for its release."""
    decay_factor = 2 ** (zone.decay_cents_per_key * (60 - pitch) / 1200)
    audible = _audible(zone.volume, decay_factor, voice.attack)
    sounding = min(length, int(audible * SAMPLE_RATE) + 1) if np.isfinite(audible) else length
    step = 2 ** (((pitch - zone.root) * zone.scale + zone.semitones) / 12) * zone.sample_rate / SAMPLE_RATE
    if zone.loop is None:
        sounding = min(sounding, int((zone.end - zone.start - 2) / step))
    positions = _positions(step, sounding, voice.vibrato)
    tone = _interpolate(_unrolled(pool, zone, int(positions[-1]) + 3), positions)
    tone = _filter(tone, zone, layer_cents, voice.cutoff_hz)
    tone *= _loudness(zone.volume, tone.size, decay_factor, voice.attack)
    return np.concatenate([tone, np.zeros(length - tone.size, dtype=np.float32)])


def _positions(step: float, length: int, vibrato_cents: float) -> npt.NDArray[np.float64]:
    """Where in the sample each output sample is read."""
    if not vibrato_cents:
        return np.arange(length, dtype=np.float64) * step
    times = _at_points(length) / SAMPLE_RATE
    depth = vibrato_cents * np.clip((times - 0.3) / 0.4, 0, 1) * np.log(2) / 1200
    bend = _between(1 + depth * np.sin(2 * np.pi * 5.3 * times), length)
    return np.cumsum(bend, dtype=np.float64) * step


def _unrolled(pool: npt.NDArray[np.int16], zone: Zone, wanted: int) -> Mono:
    """At least `wanted` samples of the zone, its loop repeated as often as that takes."""
    if zone.loop is None:
        source = pool[zone.start : zone.end]
        return np.asarray(source, dtype=np.float32) * np.float32(2**-15)
    head = pool[zone.start : zone.loop[1]]
    if head.size >= wanted:
        return np.asarray(head[:wanted], dtype=np.float32) * np.float32(2**-15)
    loop = np.asarray(pool[zone.loop[0] : zone.loop[1]], dtype=np.float32)
    repeats = -(-(wanted - head.size) // loop.size)
    return np.concatenate([head.astype(np.float32), np.tile(loop, repeats)]) * np.float32(2**-15)


def _interpolate(source: Mono, positions: npt.NDArray[np.float64]) -> Mono:
    whole = positions.astype(np.int64)
    fraction = (positions - whole).astype(np.float32)
    here = source.take(whole, mode="clip")
    whole += 1
    return np.asarray(here + (source.take(whole, mode="clip") - here) * fraction, dtype=np.float32)


_SWEEP = np.concatenate([[0], np.round(SAMPLE_RATE * 0.004 * 1.45 ** np.arange(22)).astype(int)])
"""Sample numbers at which a filter takes new coefficients: often at the onset, seldom later."""


def _filter(tone: Mono, zone: Zone, layer_cents: float, closed_hz: float) -> Mono:
    """The zone's low-pass filter, swept by its envelope; `layer_cents` closes it for soft notes."""
    rest = zone.cutoff_hz * 2 ** (layer_cents / 1200)
    if closed_hz:
        rest = min(rest, closed_hz)
    if min(rest, rest * 2 ** (zone.cutoff_envelope_cents * zone.modulation.sustain / 1200)) > _WIDE_OPEN_HZ:
        return tone
    from scipy.signal import lfilter

    out, state = np.empty_like(tone), np.zeros(2)
    starts = _SWEEP[_SWEEP < tone.size] if zone.cutoff_envelope_cents else _SWEEP[:1]
    middles = np.append((starts[1:] + starts[:-1]) / 2, starts[-1] + SAMPLE_RATE * 0.002) / SAMPLE_RATE
    cutoffs = rest * 2 ** (zone.cutoff_envelope_cents * _share(zone.modulation, middles) / 1200)
    if closed_hz:
        cutoffs = np.minimum(cutoffs, 2 * closed_hz)
    for start, stop, cutoff in zip(starts, np.append(starts[1:], tone.size), cutoffs, strict=True):
        b, a = _low_pass(float(cutoff), zone.resonance_db)
        out[start:stop], state = lfilter(b, a, tone[start:stop].astype(np.float64), zi=state)
    return out


_WIDE_OPEN_HZ = 14_000.0


def _low_pass(cutoff_hz: float, resonance_db: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Second-order low-pass of Bristow-Johnson's audio equaliser cookbook; 0 dB of resonance is Butterworth's."""
    angle = 2 * np.pi * min(max(cutoff_hz, 60.0), 18_000.0) / SAMPLE_RATE
    alpha = np.sin(angle) / (2 * 10 ** ((min(resonance_db, 12.0) - 3.01) / 20))
    cosine = np.cos(angle)
    b = np.array([(1 - cosine) / 2, 1 - cosine, (1 - cosine) / 2]) / (1 + alpha)
    return b, np.array([1.0, -2 * cosine / (1 + alpha), (1 - alpha) / (1 + alpha)])


def _loudness(envelope: Envelope, length: int, decay_factor: float, slower: float) -> Mono:
    """Gain over time: the attack straight in amplitude, the decay straight in decibels (section 8.1.2)."""
    attack = max(envelope.attack, 0.001) + slower
    since = _at_points(length) / SAMPLE_RATE - envelope.delay
    rise = np.clip(since / attack, 0, 1)
    decaying = np.clip(since - attack - envelope.hold, 0, None)
    fall_db = np.minimum(decaying * (100 / max(envelope.decay * decay_factor, 0.001)), envelope.sustain)
    return _between(rise * 10 ** (fall_db / -20), length)


def _audible(envelope: Envelope, decay_factor: float, slower: float) -> float:
    """Seconds until the decay has fallen out of hearing; infinite where it never does."""
    if envelope.sustain < _INAUDIBLE_DB:
        return float("inf")
    decay = max(envelope.decay * decay_factor, 0.001) * _INAUDIBLE_DB / 100
    return envelope.delay + max(envelope.attack, 0.001) + slower + envelope.hold + decay


def _share(envelope: Envelope, times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The modulation envelope, 0 to 1, at `times` in seconds."""
    attack = max(envelope.attack, 0.001)
    since = times - envelope.delay
    decaying = np.clip(since - attack - envelope.hold, 0, None)
    fallen = np.minimum(decaying / max(envelope.decay, 0.001), 1 - envelope.sustain)
    return np.asarray(np.clip(since / attack, 0, 1) - fallen)


_POINT = 32
"""Samples between two points at which slow curves are computed: 0.7 ms, shorter than any attack."""


def _at_points(length: int) -> npt.NDArray[np.float64]:
    return np.arange(0, length + _POINT + 1, _POINT, dtype=np.float64)


def _between(points: npt.NDArray[np.float64], length: int) -> Mono:
    """Straight lines between points that lie `_POINT` samples apart."""
    values = points.astype(np.float32)
    ramp = np.arange(_POINT, dtype=np.float32) / np.float32(_POINT)
    return np.asarray((values[:-1, None] + np.diff(values)[:, None] * ramp).ravel()[:length])
