"""Chords: roman numerals to notes, progressions over bars, and voice leading.

Numerals count from the major scale in both modes, as players write them: in C minor, bVI is Ab and
bVII is Bb. Upper case is a major third, lower case a minor one. What may follow:

    5  6  7  maj7  9  maj9  11  13  add9  69  sus2  sus4  7sus4  9sus4  b5 (half-diminished: iib5)
    o  o7  +  7b9  7#9          /3 /5 /7: that chord tone in the bass          V7/ii: the dominant of ii
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

_DEGREES = {"I": 0, "II": 2, "III": 4, "IV": 5, "V": 7, "VI": 9, "VII": 11}
_NUMERAL = re.compile(r"([b#]?)(VII|VI|V|IV|III|II|I|vii|vi|v|iv|iii|ii|i)([^/]*)(?:/([357]|[b#]?[ivIV]+))?")
_MAJOR_SUFFIXES = {
    "": (0, 4, 7), "5": (0, 7), "6": (0, 4, 7, 9), "7": (0, 4, 7, 10), "maj7": (0, 4, 7, 11), "9": (0, 4, 7, 10, 14),
    "maj9": (0, 4, 7, 11, 14), "13": (0, 4, 7, 10, 14, 21), "add9": (0, 4, 7, 14), "69": (0, 4, 7, 9, 14),
    "sus2": (0, 2, 7), "sus4": (0, 5, 7), "7sus4": (0, 5, 7, 10), "9sus4": (0, 5, 7, 10, 14), "+": (0, 4, 8),
    "7b9": (0, 4, 7, 10, 13), "7#9": (0, 4, 7, 10, 15), "maj13": (0, 4, 7, 11, 14, 21), "o": (0, 3, 6),
}  # fmt: skip
_MINOR_SUFFIXES = {
    "": (0, 3, 7), "5": (0, 7), "6": (0, 3, 7, 9), "7": (0, 3, 7, 10), "maj7": (0, 3, 7, 11), "9": (0, 3, 7, 10, 14),
    "11": (0, 3, 7, 10, 14, 17), "add9": (0, 3, 7, 14), "69": (0, 3, 7, 9, 14), "b5": (0, 3, 6, 10), "o": (0, 3, 6),
    "o7": (0, 3, 6, 9), "sus2": (0, 2, 7), "sus4": (0, 5, 7), "maj9": (0, 3, 7, 11, 14),
}  # fmt: skip

SCALES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "major pentatonic": (0, 2, 4, 7, 9),
    "minor pentatonic": (0, 3, 5, 7, 10),
    "blues": (0, 3, 5, 6, 7, 10),
    "major blues": (0, 2, 3, 4, 7, 9),
}
"""Semitones above the tonic."""


# Probe-tone ratings of Krumhansl & Kessler (1982), from the tonic.
_PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
# What the first eight harmonics of a tone add to the pitch classes above it: why a fifth too high is heard so easily.
_OVERTONES = {0: 1.0, 7: 0.42, 4: 0.18, 10: 0.1}


@dataclass(frozen=True)
class Chord:
    """A chord in semitones above the tonic of the key: `root` and `bass` from 0 to 11, `tones` above the root."""

    name: str
    root: int
    tones: tuple[int, ...]
    bass: int

    @property
    def classes(self) -> tuple[int, ...]:
        """The chord's tones as semitones above the tonic, 0 to 11."""
        return tuple((self.root + tone) % 12 for tone in self.tones)

    @property
    def restful(self) -> tuple[int, ...]:
        """Those of its first four that a melody can rest on: not the root above a major seventh, which rubs it."""
        tones = self.tones[:4]
        return tuple((self.root + tone) % 12 for tone in tones if (tone - 1) % 12 not in tones)


@cache
def parse_chord(text: str) -> Chord:
    """Read a roman numeral. Raises `ValueError` for what is not one."""
    match = _NUMERAL.fullmatch(text)
    if match is None:
        raise ValueError(f"not a chord: {text!r}; write a roman numeral such as ii7, bVII or V7/ii")
    accidental, numeral, suffix, slash = match.groups()
    table = _MAJOR_SUFFIXES if numeral.isupper() else _MINOR_SUFFIXES
    if suffix not in table:
        raise ValueError(f"no chord {text!r}: {suffix!r} is not among {', '.join(filter(None, table))}")
    root = _DEGREES[numeral.upper()] + {"": 0, "b": -1, "#": 1}[accidental]
    tones = table[suffix]
    bass = root
    if slash and slash.isdigit():
        wanted = {"3": (3, 4, 5), "5": (6, 7, 8), "7": (9, 10, 11)}[slash]
        bass = root + next((tone for tone in tones if tone in wanted), 0)
    elif slash:
        root += parse_chord(slash).root
        bass = root
    return Chord(text, root % 12, tones, bass % 12)


@cache
def parse_progression(text: str) -> tuple[tuple[Chord, ...], ...]:
    """``"I | ii7 V7 | I"`` as the chords of each bar. Chords in a bar share it evenly."""
    bars = tuple(tuple(parse_chord(chord) for chord in bar.split()) for bar in text.split("|"))
    if not all(bars):
        raise ValueError(f"a bar without a chord in {text!r}")
    return bars


def key_clarity(chords: Sequence[tuple[Chord, float]], mode: str) -> float:
    """How plainly chords, each with its beats, tell their own key: its correlation with the key's profile
    (Krumhansl 1990, chapter 4) less that of the next best key; below 0 another key is heard.
    """
    heard = np.zeros(12)
    for chord, beats in chords:
        for tone in chord.classes:
            for interval, share in _OVERTONES.items():
                heard[(tone + interval) % 12] += share * beats
        for interval, share in _OVERTONES.items():
            heard[(chord.bass + interval) % 12] += 0.8 * share * beats
    rolled = np.array([np.roll(profile, tonic) for profile in _PROFILES.values() for tonic in range(12)])
    fits = np.corrcoef(heard, rolled)[0, 1:]
    own = 0 if mode == "major" else 12
    return float(fits[own] - np.delete(fits, own).max())


def scale_over(scale: Sequence[int], chord: Chord) -> tuple[int, ...]:
    """The scale as bent by a chord: its tones are in, and scale tones that rub a chromatic one are out.

    Over V7 in a minor key the leading tone replaces the seventh degree.
    """
    chromatic = [tone for tone in chord.classes if tone not in scale]
    kept = [step for step in scale if all((step - tone) % 12 not in (1, 11) for tone in chromatic)]
    return tuple(sorted({*kept, *chord.classes}))


@lru_cache(8192)
def voice(
    chord: Chord, tonic: int, count: int, register: tuple[int, int], before: tuple[int, ...], spread: str = "close"
) -> tuple[int, ...]:
    """Voice a chord in `count` notes within `register`, moving as little as can be from the notes `before`.

    `spread`: ``close``; ``open`` (drop 2); ``power`` (root, fifth, octave). A chord of five tones and more leaves its
    root to the bass. Semitones are kept apart where they can be. Returns pitches, lowest first; fewer where they do
    not fit.
    """
    low, high = register
    if spread == "power":
        root = low + (tonic + chord.root - low) % 12
        return tuple(pitch for pitch in (root, root + 7, root + 12)[:count] if pitch <= high + 5)
    classes = _chosen_tones(chord, count)
    center = (low + high) / 2
    best: tuple[int, ...] = ()
    best_cost = float("inf")
    for turn in range(len(classes)):
        order = classes[turn:] + classes[:turn]
        for octave in range(0, 128, 12):
            pitches = _stack(order, tonic, low, octave, count)
            if spread == "open" and len(pitches) >= 3:
                pitches = sorted([*pitches[:-2], pitches[-2] - 12, pitches[-1]])
            if pitches[0] < low or pitches[-1] > high:
                continue
            cost = abs(sum(pitches) / len(pitches) - center) * (0.6 if before else 2.0)
            cost += _RUB * sum(b - a in (1, 13) for a, b in itertools.combinations(pitches, 2))
            if before:
                cost += sum(min(abs(pitch - other) for other in before) for pitch in pitches)
                cost += 1.5 * abs(pitches[-1] - before[-1])
            if cost < best_cost:
                best, best_cost = tuple(pitches), cost
    if best or count == 1:
        return best or tuple(_stack(classes, tonic, low, 0, count))
    return voice(chord, tonic, count - 1, register, before, spread)


_RUB = 40.0
"""What a semitone, or a minor ninth, costs in a voicing, in semitones that the voices move."""


def _chosen_tones(chord: Chord, count: int) -> list[int]:
    """Pitch classes above the tonic, by importance: third, seventh or root, colour, fifth."""
    tones = list(chord.tones)
    importance = [tone for tone in tones if tone in (3, 4, 5, 2)][:1]
    importance += [tone for tone in tones if tone in (10, 11, 9)]
    if len(tones) < 5:
        importance.insert(1, 0)
    importance += [tone for tone in tones if tone > 11]
    importance += [tone for tone in tones if tone not in importance and tone]
    importance += [0]
    chosen = list(dict.fromkeys(importance))[:count]
    return [(chord.root + tone) % 12 for tone in sorted(chosen, key=lambda tone: tone % 12)]


def _stack(classes: Sequence[int], tonic: int, low: int, octave: int, count: int) -> list[int]:
    """The classes one above the other, each as near as it goes, starting within an octave of low + octave."""
    start = low + octave
    pitches = [start + (tonic + classes[0] - start) % 12]
    for index in range(1, count):
        pitch_class = tonic + classes[index % len(classes)]
        pitches.append(pitches[-1] + ((pitch_class - pitches[-1] - 1) % 12 + 1))
    return pitches
