"""Form: which section every bar belongs to, so that the piece lasts as long as it is asked to.

The music is counted back from its end: a final chord that rings out, or on which all stop, before it as many whole
bars as fit, one short bar if the tempo is so slow that a whole one would leave a hole.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from melodify_lib.music.arranger.harmony import Chord, key_clarity, parse_chord, parse_progression
from melodify_lib.music.arranger.styles import Level, Mode, SectionStyle, Style

RING_SECONDS = 2.3
"""Least time for a final chord that rings: long enough to be heard as the end, not as a cut."""
_LONGEST_RING_SECONDS = 4.6
_STOP_SECONDS = (0.9, 2.2)
"""Time from a last beat on which all stop: for the room to fall silent, and not so long that silence is waited for."""


@dataclass(frozen=True)
class Span:
    """A chord and the beats it lasts, from `start` within its bar."""

    start: float
    duration: float
    chord: Chord


@dataclass(frozen=True)
class Bar:
    """A bar of the piece. `start` and `beats` in beats; `index` and `of` place it in its section, `in_phrase`
    and `phrase_bars` in its phrase."""

    start: float
    beats: int
    section: int
    name: str
    level: Level
    parts: tuple[str, ...]
    index: int
    of: int
    in_phrase: int
    phrase_bars: int
    spans: tuple[Span, ...]
    is_final: bool = False
    is_stop: bool = False

    @property
    def ends_phrase(self) -> bool:
        return self.in_phrase == self.phrase_bars - 1

    @property
    def ends_section(self) -> bool:
        return self.index == self.of - 1

    def chord_at(self, beat: float) -> Chord:
        """The chord `beat` beats into the bar."""
        return next((span.chord for span in reversed(self.spans) if span.start <= beat + 1e-6), self.spans[0].chord)


def plan_form(
    style: Style, mode: Mode, bpm: float, seconds: float, shift: int, rng: np.random.Generator, *, loop: bool = False
) -> list[Bar]:
    """The bars of a piece; the last one holds the final chord. `shift` raises or lowers every section's level.

    A loop's bars are whole and come nearest to `seconds`; the final chord stands after its end.
    """
    beat_seconds = 60.0 / bpm
    bars, extra, is_stop = _counted(style, beat_seconds, seconds, loop)
    sections = _choose_sections(style, bars, rng, loop)
    progressions = _progressions(style, mode, sections, rng)
    shift = _kept_apart([style.sections[name].energy for name, _ in sections], shift)
    form: list[Bar] = []
    beat = 0.0
    for number, (name, length) in enumerate(sections):
        kind = style.sections[name]
        harmonies = _repeated(progressions[kind.progression], length)
        of = length + 1 if extra and number == len(sections) - 1 else length
        if number == len(sections) - 1 and not extra:
            harmonies = _with_cadence(style, mode, harmonies, rng)
        for index, chords in enumerate(harmonies):
            form.append(_bar(style, kind, name, number, index, of, beat, style.beats_per_bar, chords, shift))
            beat += style.beats_per_bar
    name = sections[-1][0] if sections else style.plans[0].split()[0]
    kind = style.sections[name]
    if extra:
        chords = _short_bar(style, mode, extra, bars == 0, rng)
        number, index = max(len(sections) - 1, 0), sections[-1][1] if sections else 0
        form.append(_bar(style, kind, name, number, index, index + 1, beat, extra, chords, shift))
        beat += extra
    ring_beats = max(int(np.ceil(seconds / beat_seconds - beat)), 1)
    final = (parse_chord(style.final[mode]),)
    last = _bar(style, kind, "end", len(sections) + 1, 0, 1, beat, ring_beats, final, shift)
    form.append(replace(last, is_final=True, is_stop=is_stop))
    return form


def final_beats(final: Bar, beat_seconds: float, left: float) -> float:
    """How long the final chord is held of the `left` seconds; not to the end, so that its release can be heard."""
    if final.is_stop:
        return min(max(0.5, 0.2 / beat_seconds), (left - 0.5) / beat_seconds)
    return max((left - 0.7) / beat_seconds, 0.25)


def _counted(style: Style, beat_seconds: float, seconds: float, loop: bool) -> tuple[int, int, bool]:
    """The whole bars before the final chord, the beats of a short one after them, and whether all stop then."""
    if loop:
        return max(round(seconds / beat_seconds / style.beats_per_bar), 1), 0, False
    if style.ending == "stop":
        shortest, longest = _STOP_SECONDS
        bars = int((seconds - shortest) / beat_seconds / style.beats_per_bar + 1e-6)
        if bars and seconds - bars * style.beats_per_bar * beat_seconds <= longest:
            return bars, 0, True
    ring = min(RING_SECONDS, 0.42 * seconds)
    bars, extra = divmod(max(int((seconds - ring) / beat_seconds + 1e-6), 0), style.beats_per_bar)
    if bars and extra * beat_seconds + ring <= _LONGEST_RING_SECONDS:
        extra = 0  # the final chord may as well ring a little longer
    return bars, extra, False


def _short_bar(style: Style, mode: Mode, beats: int, is_all: bool, rng: np.random.Generator) -> tuple[Chord, ...]:
    """Chords of a bar cut short: the last of a cadence, after the tonic where there is no bar before."""
    cadence = parse_progression(_pick(style.cadence[mode], rng))[-1]
    if is_all:
        return (parse_chord(style.final[mode]), *cadence)[:beats]
    return cadence[-beats:]


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _choose_sections(style: Style, bars: int, rng: np.random.Generator, loop: bool) -> list[tuple[str, int]]:
    """Names and lengths in bars of the sections that fill `bars`: the plan whose own length is nearest, stretched.

    Sections are whole fours; what is over is an opening of its own, or bars that lead into the first. A loop has no
    opening, or it would fall back to it each time.
    """
    if bars == 0:
        return []

    def own_length(plan: str) -> int:
        return sum(style.sections[name].bars for name in plan.split())

    # 0.65: rather more sections that are shorter than they might be than few long ones.
    distances = [abs(np.log(0.65 * own_length(plan) / bars)) for plan in style.plans]
    fitting = [plan for plan, distance in zip(style.plans, distances, strict=True) if distance < min(distances) + 0.1]
    names = _pick(tuple(fitting), rng).split()
    openings = _openings(style)
    if loop:
        names = [name for name in names if name not in openings] or names[-1:]
    while own_length(" ".join(names)) * 1.5 < bars:  # longer than every plan: go round again from the middle
        names += names[len(names) // 2 :]
    unit = 4 if bars >= 8 else 2 if bars >= 5 else 1
    over = bars % unit
    names = names[-(bars // unit) :]
    is_opened = over > 1 and not loop and len(openings) > 0 and not set(names) <= set(openings)
    if is_opened:
        names = [name for name in names if name not in openings]
    ideal = np.array([style.sections[name].bars for name in names], dtype=float)
    ideal *= (bars - over) / ideal.sum()
    lengths = np.maximum(np.floor(ideal / unit), 1).astype(int) * unit
    while lengths.sum() > bars:
        lengths[int(np.argmax(lengths - ideal))] -= unit
    while lengths.sum() + unit <= bars:
        lengths[int(np.argmax(ideal - lengths))] += unit
    if is_opened:
        names, lengths = [openings[0], *names], np.array([over, *lengths])
    else:
        lengths[0] += over
    return [(name, int(length)) for name, length in zip(names, lengths, strict=True) if length > 0]


def _openings(style: Style) -> list[str]:
    """The sections that only ever come first, and are softer than others or not for all players."""
    plans = [plan.split() for plan in style.plans]
    later = {name for plan in plans for name in plan[1:]}
    first = dict.fromkeys(plan[0] for plan in plans if plan[0] not in later)
    return [name for name in first if style.sections[name].parts or style.sections[name].energy == "low"]


def _progressions(
    style: Style, mode: Mode, sections: list[tuple[str, int]], rng: np.random.Generator
) -> dict[str, tuple[tuple[Chord, ...], ...]]:
    """A progression for every section, such that together they tell the key: one of the plainest sets, drawn."""
    lengths: dict[str, int] = {}
    bars: dict[str, int] = {}
    for name, length in sections:
        progression = style.sections[name].progression
        lengths[progression] = max(lengths.get(progression, 0), length)
        bars[progression] = bars.get(progression, 0) + length
    if not lengths:
        return {}
    names = list(lengths)
    sets = list(itertools.product(*(_fitting(style, mode, name, lengths[name]) for name in names)))
    if len(sets) > _MOST_SETS:
        sets = [sets[index] for index in rng.choice(len(sets), _MOST_SETS, replace=False)]
    clarity = np.array([key_clarity(_weighed(chosen, [bars[name] for name in names]), mode) for chosen in sets])
    plain = np.flatnonzero(clarity >= min(0.8 * float(clarity.max()), _PLAIN) if clarity.max() > 0 else clarity.max())
    return dict(zip(names, sets[int(rng.choice(plain))], strict=True))


_MOST_SETS = 40
_PLAIN = 0.2
"""A margin of correlation by which a key is beyond doubt; more is not asked of a progression."""


def _weighed(chosen: Sequence[tuple[tuple[Chord, ...], ...]], bars: Sequence[int]) -> list[tuple[Chord, float]]:
    return [
        (chord, 1 / len(bar))
        for progression, length in zip(chosen, bars, strict=True)
        for bar in _repeated(progression, length)
        for chord in bar
    ]


def _fitting(style: Style, mode: Mode, name: str, length: int) -> list[tuple[tuple[Chord, ...], ...]]:
    """The progressions of a name that have room in the section, or most of them; the twelve bars, where they have."""
    options = [parse_progression(text) for text in style.progressions[name][mode]]
    fitting = [option for option in options if len(option) <= 1.5 * length] or options
    longest = max(len(option) for option in fitting)
    return [option for option in fitting if len(option) == longest] if longest > 8 else fitting


def _repeated(progression: Sequence[tuple[Chord, ...]], length: int) -> list[tuple[Chord, ...]]:
    """So often that its end is the section's: what is over is its last bars, as a pickup."""
    return [progression[(index - length) % len(progression)] for index in range(length)]


def _with_cadence(
    style: Style, mode: Mode, chords: list[tuple[Chord, ...]], rng: np.random.Generator
) -> list[tuple[Chord, ...]]:
    """The last bars replaced by a cadence that leads home, leaving the section's first bar as it is.

    Of a chord that has just been heard the cadence makes no second bar: it begins with its next.
    """
    cadence = parse_progression(_pick(style.cadence[mode], rng))
    cadence = cadence[-max(min(len(cadence), len(chords) - 1), 0) :] if len(chords) > 1 else ()
    before = chords[: len(chords) - len(cadence)]
    if len(cadence) > 1 and before[-1][-1].root == cadence[0][0].root:
        before, cadence = chords[: len(chords) - len(cadence) + 1], cadence[1:]
    return [*before, *cadence]


def _bar(
    style: Style, kind: SectionStyle, name: str, number: int, index: int, of: int, start: float, beats: int,
    chords: tuple[Chord, ...], shift: int,
) -> Bar:  # fmt: skip
    level = _shifted(kind.energy, shift)
    duration = beats / len(chords)
    starts = [round(index * duration * 2) / 2 for index in range(len(chords))]
    ends = [*starts[1:], float(beats)]
    spans = tuple(Span(a, b - a, chord) for a, b, chord in zip(starts, ends, chords, strict=True))
    in_phrase = index
    for phrase in _phrases(of, min(style.phrase_bars, 4)):
        if in_phrase < phrase:
            break
        in_phrase -= phrase
    return Bar(start, beats, number, name, level, kind.parts, index, of, in_phrase, phrase, spans)


def _phrases(bars: int, longest: int) -> list[int]:
    """The lengths of a section's phrases, what is over first: 6 bars are 2 and 4; a single one leads into the next."""
    over, whole = bars % longest, [longest] * (bars // longest)
    if over == 1 and whole:
        whole[0] += 1
        over = 0
    return [over] * (over > 0) + whole


_LEVELS: tuple[Level, ...] = ("low", "mid", "high")


def _shifted(level: Level, shift: int) -> Level:
    return _LEVELS[min(max(_LEVELS.index(level) + shift, 0), 2)]


def _kept_apart(levels: Sequence[Level], shift: int) -> int:
    """The shift, if all neighbours that differ in level differ after it: a chorus rises from its verse."""
    merges = any(a != b and _shifted(a, shift) == _shifted(b, shift) for a, b in itertools.pairwise(levels))
    return 0 if merges else shift
