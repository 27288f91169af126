"""What each kind of part plays over the form: drums, bass, chords, arpeggios, pads, counter-lines.

All take the bars and give back notes on the even grid, in beats; `humanize` makes them a
performance. The lead has its own module, `melody`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from melodify_lib.music.arranger import patterns
from melodify_lib.music.arranger.casting import Player
from melodify_lib.music.arranger.expression import Expression
from melodify_lib.music.arranger.form import Bar, Span
from melodify_lib.music.arranger.harmony import SCALES, Chord, scale_over, voice
from melodify_lib.music.arranger.instruments import drums
from melodify_lib.music.arranger.score import Note
from melodify_lib.music.arranger.styles import Level, Mode, Style

LEVEL_DYNAMICS: dict[Level, float] = {"low": 0.84, "mid": 0.94, "high": 1.04}
_KNEE = 95
"""The velocity above which an accent has less and less to add."""
_Option = TypeVar("_Option")
_NEAREST: dict[Level, tuple[Level, ...]] = {
    "low": ("low", "mid", "high"),
    "mid": ("mid", "high", "low"),
    "high": ("high", "mid", "low"),
}


@dataclass(frozen=True)
class Piece:
    """What everybody who plays has to know of the piece. `tonic` is a pitch class.

    `dice` gives those of a purpose, the same each time. `lead` is the melody, once it is written.
    """

    style: Style
    bars: tuple[Bar, ...]
    tonic: int
    mode: Mode
    bpm: float
    expression: Expression
    ring_beats: float
    dice: Callable[[str], np.random.Generator]
    lead: tuple[Note, ...] = ()

    def grid(self, player: Player) -> int:
        return player.style.grid or self.style.steps_per_beat

    def sounding(self, player: Player) -> Iterator[Bar]:
        """The bars in which a player plays, but for the last. One who is in no section of the form joins its last.

        Who only adds to what there is waits until a section comes again, if it does: so the second time is fuller.
        """
        body = [bar for bar in self.bars if not bar.is_final]
        chosen = [bar for bar in body if not bar.parts or player.part in bar.parts]
        if player.style.plays in ("answer", "counter"):
            last = {bar.name: bar.section for bar in chosen}
            first = {bar.name: bar.section for bar in reversed(chosen)}
            chosen = [bar for bar in chosen if bar.section != first[bar.name] or first[bar.name] == last[bar.name]]
        if not chosen:
            chosen = [bar for bar in body if bar.section == body[-1].section] if body else []
        yield from chosen


def options_at(by_level: dict[Level, tuple[_Option, ...]], level: Level) -> tuple[_Option, ...]:
    """What there is at a level, or at the nearest that there is anything at."""
    return next((by_level[near] for near in _NEAREST[level] if by_level.get(near)), ())


def _chosen(options: Sequence[_Option], player: Player, piece: Piece, bar: Bar) -> _Option:
    """One choice per section name and level, so that a verse sounds like the verse before.

    Who follows another part has its dice, and chooses the same of as many.
    """
    throw = piece.dice(f"{player.style.follows or player.part}: {bar.name}, {bar.level}").random()
    return options[int(throw * len(options))]


def _pattern(player: Player, piece: Piece, bar: Bar, otherwise: str = "") -> str:
    """What a part plays in a bar, from the options of its level; `otherwise` where there are none."""
    options = options_at(player.style.patterns, bar.level) or (otherwise,)
    pattern = patterns.clean(_chosen(options, player, piece, bar))
    return patterns.bar_of(pattern, bar.index, piece.style.beats_per_bar * piece.grid(player))


def velocity_of(player: Player, bar: Bar, piece: Piece, accent: float = 1.0) -> int:
    """The usual touch of a part, as the section, the moods and an accent change it: 12 to 125, ever harder to reach."""
    rise = 1 + 0.04 * (bar.index / max(bar.of - 1, 1))  # every section grows a little
    velocity = player.style.velocity * LEVEL_DYNAMICS[bar.level] * piece.expression.dynamics * rise * accent
    if velocity > _KNEE:
        velocity = _KNEE + (125 - _KNEE) * np.tanh((velocity - _KNEE) / (125 - _KNEE))
    return max(round(velocity), 12)


def gate_of(player: Player, piece: Piece) -> float:
    """The share of a note's length that sounds; at slow tempi notes are held, or holes would open."""
    gate = player.style.gate * piece.expression.articulation
    return min(max(gate, 1.0 if piece.bpm < 56 else 0.1), 1.3)


# Drums ---------------------------------------------------------------------------------------------------

_STROKES = {"X": 1.18, "x": 1.0, ",": 0.5, "?": 0.62}


def play_drums(player: Player, piece: Piece, rng: np.random.Generator) -> list[Note]:
    """Grooves by energy, a fill where a section ends, a crash where a full one begins."""
    style, notes = player.style, []
    before: Bar | None = None
    grid = piece.grid(player)
    for bar in piece.sounding(player):
        groove = _chosen(options_at(style.grooves, bar.level), player, piece, bar)
        filling = bar.ends_section or (bar.ends_phrase and bar.level != "low" and rng.random() < 0.4)
        if style.fills and filling and bar.of > 1 and bar.beats == piece.style.beats_per_bar:
            groove = style.fills[int(rng.integers(len(style.fills)))]
        new_section = before is None or before.section != bar.section
        if style.crash and new_section and (bar.level == "high" or (before is not None and bar.level == "mid")):
            notes += _hit(player, "crash", bar.start, velocity_of(player, bar, piece, 1.05))
        for drum, text in groove.items():
            pattern = patterns.clean(text)
            for event in patterns.events(patterns.bar_of(pattern, bar.index, piece.style.beats_per_bar * grid)):
                if event.symbol == "?" and rng.random() < 0.55:
                    continue
                beat = event.step / grid
                if beat < bar.beats:
                    velocity = velocity_of(player, bar, piece, _STROKES[event.symbol])
                    notes += _hit(player, drum, bar.start + beat, velocity)
        before = bar
    final = piece.bars[-1]
    velocity = velocity_of(player, final, piece, 1.05)
    played = {drum for grooves in style.grooves.values() for groove in grooves for drum in groove}
    last = played & ({"kick", "snare"} if final.is_stop else {"kick"}) | ({"crash"} if style.crash else set())
    for drum in sorted(last):
        notes += _hit(player, drum, final.start, velocity)
    return notes


def _hit(player: Player, drum: str, start: float, velocity: int) -> list[Note]:
    instrument = player.instrument
    keys = {**drums(), **instrument.hits} if instrument.is_drum else instrument.hits
    return [Note(start, 0.25, keys[drum], velocity)] if drum in keys else []


# Bass ----------------------------------------------------------------------------------------------------


def play_bass(player: Player, piece: Piece, register: tuple[int, int], rng: np.random.Generator) -> list[Note]:
    """Bass lines: degrees over each chord, walking where the pattern walks."""
    notes, grid, gate = [], piece.grid(player), gate_of(player, piece)
    scale = SCALES[player.style.scale[piece.mode]]
    root = at = register[0] + 5
    bars = list(piece.sounding(player))
    is_anticipated = False
    for number, bar in enumerate(bars):
        events = list(patterns.events(_pattern(player, piece, bar)))
        events = [event for event in events if event.step / grid < bar.beats]
        for span in bar.spans:
            inside = [e for e in events if 0 <= e.step / grid - span.start + 1e-6 < span.duration]
            symbols = [event.symbol for event in inside]
            root = _root(span.chord, symbols, piece, register, root)
            following = _next_chord(piece, bar, span)
            if symbols and symbols[0] not in "1R8g" and not (is_anticipated and span is bar.spans[0]):
                symbols[0] = "1"  # a new chord is told by its root
            for index, (event, symbol) in enumerate(zip(inside, symbols, strict=True)):
                beat, length = event.step / grid, min(event.length / grid, bar.beats - event.step / grid)
                if symbol == "n" and number + 1 < len(bars):
                    length += _tied(_pattern(player, piece, bars[number + 1])) / grid
                is_last = index + 1 == len(inside)
                pitch = _bass_pitch(symbol, span.chord, following, scale, piece, register, root, at, is_last, rng)
                at = at if symbol == "g" else pitch
                accent = 0.55 if symbol == "g" else 1.06 if beat == 0 else 1.0
                sounding = min(length, 0.12) if symbol == "g" else length * gate
                notes.append(Note(bar.start + beat, sounding, pitch, velocity_of(player, bar, piece, accent)))
                is_anticipated = symbol == "n"
    final = piece.bars[-1]
    root = _root(final.spans[0].chord, (), piece, register, root)
    notes.append(Note(final.start, piece.ring_beats, root, velocity_of(player, final, piece, 1.05)))
    return notes


def _tied(pattern: str) -> int:
    """The steps at a bar's beginning through which the note before it is held."""
    return len(pattern) - len(pattern.lstrip(patterns.HOLD))


def _root(chord: Chord, symbols: Sequence[str], piece: Piece, register: tuple[int, int], before: int) -> int:
    """The bass note that all that a bar plays over a chord is counted from.

    It is near the one `before`, and low, and what the symbols ask for above and below it can be reached.
    """
    lowest = register[0] + (5 if "v" in symbols else 0)
    lowest += (piece.tonic + chord.bass - lowest) % 12
    reach = max((_REACH.get(symbol, 0) for symbol in symbols), default=0)
    candidates = [root for root in (lowest, lowest + 12) if root + reach <= register[1] + _OVER] or [lowest]
    return min(candidates, key=lambda root: abs(root - before) + 0.7 * abs(root - register[0] - 5))


_REACH = {"8": 12, "7": 11, "6": 9, "5": 7, "4": 5, "3": 4, "2": 2}
"""Semitones above a root to a degree of its chord."""
_OVER = 5
"""Semitones by which these may pass a bass's compass."""


def _next_chord(piece: Piece, bar: Bar, span: Span) -> Chord:
    index = bar.spans.index(span)
    if index + 1 < len(bar.spans):
        return bar.spans[index + 1].chord
    position = next(i for i, other in enumerate(piece.bars) if other.start == bar.start)
    return piece.bars[min(position + 1, len(piece.bars) - 1)].spans[0].chord


def _bass_pitch(
    symbol: str, chord: Chord, following: Chord, scale: Sequence[int], piece: Piece, register: tuple[int, int],
    root: int, at: int, is_last: bool, rng: np.random.Generator,
) -> int:  # fmt: skip
    if symbol in "wan":
        target = _root(following, (), piece, register, root)
        if symbol == "w":
            return _walk(chord, target, scale, piece, register, at, is_last, rng)
        if symbol == "a":
            return _approach(chord, target, scale, piece, register, target < root or rng.random() < 0.25)
        return target
    if symbol in "1Rg":
        return root
    if symbol == "8":
        return root + 12
    degree = 5 if symbol == "v" else int(symbol)
    above = (chord.root + _degree(chord, degree, scale) - chord.bass) % 12
    return root + above - (12 if symbol == "v" and root + above - 12 >= register[0] else 0)


def _approach(
    chord: Chord, target: int, over: Sequence[int], piece: Piece, register: tuple[int, int], from_above: bool
) -> int:
    """The step of the scale beside the next root; it takes a walking line to come from outside the key."""
    scale = scale_over(over, chord)
    sides = (target + 1, target + 2, target + 3) if from_above else (target - 1, target - 2, target - 3)
    return _clamp(next((p for p in sides if (p - piece.tonic) % 12 in scale), sides[1]), register)


def _degree(chord: Chord, degree: int, over: Sequence[int]) -> int:
    """Semitones above the root of a degree of the chord's scale."""
    wanted = {3: (3, 4, 5, 2), 5: (7, 6, 8), 7: (10, 11, 9)}.get(degree, ())
    for tone in chord.tones:
        if tone in wanted:
            return tone
    scale = scale_over(over, chord)
    above = sorted((step - chord.root) % 12 for step in scale)
    usual = {2: 2, 3: 4, 4: 5, 5: 7, 6: 9, 7: 10}[degree]
    return min(above, key=lambda step: (abs(step - usual), step))


def _walk(
    chord: Chord, target: int, over: Sequence[int], piece: Piece, register: tuple[int, int], at: int, is_last: bool,
    rng: np.random.Generator,
) -> int:  # fmt: skip
    """The next step of a walking line: on towards the next root, and last a semitone or a step beside it."""
    if is_last:
        sides = [target - 1, target + 1, target - 2, target + 2, target + 7]
        weights = np.array([4.0, 2.5, 1.5, 1.5, 1.0]) * [abs(side - at) in range(1, 8) for side in sides]
        if weights.sum():
            return _clamp(sides[int(rng.choice(5, p=weights / weights.sum()))], register)
    scale = scale_over(over, chord)
    near = [pitch for pitch in range(at - 5, at + 6) if (pitch - piece.tonic) % 12 in scale and pitch != at]
    near = [pitch for pitch in near if register[0] <= pitch <= register[1]] or [_clamp(at, register)]
    chordal = [1.8 if (pitch - piece.tonic) % 12 in chord.classes else 1.0 for pitch in near]
    towards = [2.2 if (pitch - at) * ((target - at) or rng.choice([-1, 1])) > 0 else 1.0 for pitch in near]
    stepwise = [1.6 if abs(pitch - at) <= 2 else 1.0 for pitch in near]
    weights = np.array(chordal) * towards * stepwise
    return near[int(rng.choice(len(near), p=weights / weights.sum()))]


# Chords, arpeggios, pads, answers ---------------------------------------------------------------------------


def play_chords(player: Player, piece: Piece, register: tuple[int, int], rng: np.random.Generator) -> list[Note]:
    """Voiced chords in rhythm, under the lead; an answer plays the same only where the lead breathes."""
    style, notes, grid, gate = player.style, [], piece.grid(player), gate_of(player, piece)
    before: tuple[int, ...] = ()
    strum = style.strum_ms * piece.bpm / 60_000
    is_answer = style.plays == "answer"
    under = {} if is_answer else _under_the_lead(piece, register)
    for bar in piece.sounding(player):
        if is_answer and not (bar.ends_phrase or bar.in_phrase % 2):
            continue
        pattern = _pattern(player, piece, bar, "x" + "-" * (piece.style.beats_per_bar * grid - 1))
        room = under.get(bar.section, register)
        for event, start, length, span in _pieces(pattern, bar, grid):
            if is_answer and not _breathes(piece.lead, bar.start + start):
                continue
            accent = {"X": 1.15, ",": 0.7, "m": 0.85}.get(event.symbol, 1.0)
            velocity = velocity_of(player, bar, piece, accent)
            if event.symbol in "bfm":
                pitch = _low_note(event.symbol, span.chord, piece, register)
                sounding = length * (0.45 if event.symbol == "m" else gate)
                pitches: Sequence[int] = (pitch, pitch + 7) if event.symbol == "m" else (pitch,)
                notes += [Note(bar.start + start, sounding, p, velocity) for p in pitches]
                continue
            before = voice(span.chord, piece.tonic, style.voices, room, before, style.spread)
            sounding = min(length * gate, length) if style.plays != "sustain" else length
            notes += _strummed(before, bar.start + start, sounding, velocity, strum, event.step)
    final = piece.bars[-1]
    before = voice(final.spans[0].chord, piece.tonic, style.voices, register, before, style.spread)
    velocity = velocity_of(player, final, piece)
    notes += _strummed(before, final.start, piece.ring_beats, velocity, 1.5 * strum, 0)
    return notes


def _under_the_lead(piece: Piece, register: tuple[int, int]) -> dict[int, tuple[int, int]]:
    """For each section with a melody, a register with its top under most of it, lowered as far as that takes.

    Not of what begins above the melody: bells are there to be above it.
    """
    rooms: dict[int, tuple[int, int]] = {}
    if not piece.lead or register[0] >= min(note.pitch for note in piece.lead):
        return rooms
    for section in {bar.section for bar in piece.bars}:
        bars = [bar for bar in piece.bars if bar.section == section]
        start, end = bars[0].start, bars[-1].start + bars[-1].beats
        sung = sorted(note.pitch for note in piece.lead if start <= note.start < end)
        if sung:
            top = min(register[1], sung[len(sung) // 4] - 1)
            low = min(register[0], max(top - 14, _MUD))
            rooms[section] = (low, max(top, low + 12))
    return rooms


_MUD = 48
"""The lowest note to which chords give way under a melody: closer than this to the bass they are a rumble."""


def _breathes(lead: Sequence[Note], beat: float) -> bool:
    """Whether at `beat` nobody sings, or a long note has been held for a while."""
    singing = (note for note in lead if note.start - 0.2 < beat < note.start + note.duration - 0.05)
    return all(note.duration >= 1.4 and beat >= note.start + 0.7 for note in singing)


def _pieces(pattern: str, bar: Bar, grid: int) -> Iterator[tuple[patterns.Event, float, float, Span]]:
    """The events of a bar, cut where the chord changes under them: (event, start, length, chord's span)."""
    for event in patterns.events(pattern):
        start, end = event.step / grid, min((event.step + event.length) / grid, bar.beats)
        for span in bar.spans:
            a, b = max(start, span.start), min(end, span.start + span.duration)
            if b - a > 1e-6:
                yield event, a, b - a, span


def _strummed(
    pitches: Sequence[int], start: float, length: float, velocity: int, strum: float, step: int
) -> list[Note]:
    """A chord from its lowest note up on the beat, and down on every second step, as a plectrum goes."""
    order = pitches if step % 2 == 0 else tuple(reversed(pitches))
    late = min(strum, 0.5 * length / max(len(order), 1))
    return [
        Note(start + index * late, max(length - index * late, 0.05), pitch, velocity - (3 if index else 0))
        for index, pitch in enumerate(order)
    ]


def _low_note(symbol: str, chord: Chord, piece: Piece, register: tuple[int, int]) -> int:
    low = register[0] - (0 if symbol == "m" else 5)
    classes = chord.root + 7 if symbol == "f" and 7 in chord.tones else chord.bass
    return low + (piece.tonic + classes - low) % 12


def play_arpeggio(player: Player, piece: Piece, register: tuple[int, int], rng: np.random.Generator) -> list[Note]:
    """Broken chords under the lead: digits count the chord's tones upwards, past the last one an octave higher."""
    style, notes, grid, gate = player.style, [], piece.grid(player), gate_of(player, piece)
    under = _under_the_lead(piece, register)
    before: tuple[int, ...] = ()
    for bar in piece.sounding(player):
        pattern = _pattern(player, piece, bar)
        room = under.get(bar.section, register)
        last: Span | None = None
        for event, start, length, span in _pieces(pattern, bar, grid):
            if span is not last:
                before, last = voice(span.chord, piece.tonic, style.voices, room, before, style.spread), span
            turn, index = divmod(int(event.symbol) - 1, len(before))
            pitch = before[index] + 12 * turn
            pitch = pitch if pitch <= room[1] + 5 else pitch - 12
            accent = 1.08 if start == int(start) else 0.94
            velocity = velocity_of(player, bar, piece, accent)
            hands = (pitch, pitch + 12) if style.octaves else (pitch,)
            notes += [Note(bar.start + start, length * gate, pitch, velocity) for pitch in hands]
    final = piece.bars[-1]
    before = voice(final.spans[0].chord, piece.tonic, max(style.voices, 3), register, before, style.spread)
    roll = 0.0 if final.is_stop else 70 * piece.bpm / 60_000
    velocity = velocity_of(player, final, piece, 0.95)
    for index, pitch in enumerate(before):
        start = final.start + min(index * roll, 0.25 * piece.ring_beats)
        notes.append(Note(start, piece.ring_beats, pitch, velocity))
    return notes


def play_counter(player: Player, piece: Piece, register: tuple[int, int], rng: np.random.Generator) -> list[Note]:
    """A line of guide tones: of each chord the third, seventh or fifth that lies nearest; and runs up the scale."""
    style, notes, grid = player.style, [], piece.grid(player)
    at = (register[0] + register[1]) // 2 + int(rng.integers(-3, 4))
    for bar in piece.sounding(player):
        pattern = _pattern(player, piece, bar, "x" + "-" * (piece.style.beats_per_bar * grid - 1))
        for event, start, length, span in _pieces(pattern, bar, grid):
            if event.symbol == "s":
                scale = scale_over(SCALES[style.scale[piece.mode]], span.chord)
                above = (p for p in range(at + 1, register[1] + 6) if (p - piece.tonic) % 12 in scale)
                at = next(above, at)
            else:
                guides = [tone for tone in span.chord.tones if tone in (3, 4, 10, 11, 9, 7)] or [0]
                near = [_nearest(piece.tonic + span.chord.root + tone, at, register) for tone in guides]
                at = min(near, key=lambda pitch: (abs(pitch - at) + (4 if pitch == at and start else 0), pitch))
            accent = 1.08 if event.symbol == "X" else 1.0
            notes.append(Note(bar.start + start, length, at, velocity_of(player, bar, piece, accent)))
    final = piece.bars[-1]
    chord = final.spans[0].chord
    at = min((_nearest(piece.tonic + tone, at, register) for tone in chord.classes), key=lambda p: (abs(p - at), p))
    notes.append(Note(final.start, piece.ring_beats, at, velocity_of(player, final, piece)))
    return notes


def _nearest(pitch_class: int, at: int, register: tuple[int, int]) -> int:
    """The pitch of a class that is nearest to `at` within the register (which spans an octave)."""
    base = at + (pitch_class - at + 6) % 12 - 6
    return _clamp(base, register)


def _clamp(pitch: int, register: tuple[int, int]) -> int:
    while pitch < register[0]:
        pitch += 12
    while pitch > register[1]:
        pitch -= 12
    return pitch


Play = Callable[[Player, Piece, tuple[int, int], np.random.Generator], list[Note]]
