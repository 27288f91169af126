"""The lead: a motif that is stated, repeated, varied and resolved.

A *cell* is a bar of melody: a rhythm from the style and a contour in scale steps. A section has cells
a and b; a phrase is a row of them such as ``a a' b c``, where a prime is a variation (a step higher or
lower, another ending) and c the close: the opening rhythm, then a long chord tone and a breath. A motif
is known by its rhythm, which no variation touches, and by its return: a section's phrases have the same
cells, a section that comes again has the same notes. Downbeats are pulled to chord tones, so the same
cell follows the harmony, and where the chord is the same its notes are. What would leave its range turns
back there, and no tone is struck three times in a row but by a close.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from melodify_lib.music.arranger import patterns
from melodify_lib.music.arranger.casting import Player
from melodify_lib.music.arranger.form import Bar
from melodify_lib.music.arranger.harmony import SCALES, Chord, scale_over
from melodify_lib.music.arranger.players import Piece, gate_of, options_at, velocity_of
from melodify_lib.music.arranger.score import Note
from melodify_lib.music.arranger.styles import PartStyle


@dataclass(frozen=True)
class Cell:
    """A bar of melody: onsets as (beat, length, accented), and scale steps from the first note."""

    rhythm: tuple[tuple[float, float, bool], ...]
    contour: tuple[int, ...]


def play_melody(player: Player, piece: Piece, register: tuple[int, int], rng: np.random.Generator) -> list[Note]:
    """The lead over the whole form. Players who share it take phrases in turn, of the same motifs."""
    motifs: dict[str, dict[str, Cell]] = {}
    forms: dict[str, list[str]] = {}
    anchors: dict[tuple[Cell, Chord], int] = {}
    notes: list[Note] = []
    sung = [_home(register)]
    phrase = -1
    for bar in piece.sounding(player):
        if bar.in_phrase == 0 or phrase < 0:
            phrase += 1
        # A section sings as it did before: its dice are its own.
        own = piece.dice(f"{player.part}: {bar.name}, {bar.index - bar.of}")
        if bar.name not in motifs:
            first = {name: _cell(player, piece, bar, rng) for name in "ab"}
            motifs[bar.name] = {
                **first, **{f"{name}'": _varied(cell, piece.dice(f"{player.part}: {bar.name}, {name}"))
                            for name, cell in first.items()},
            }  # fmt: skip
            forms[bar.name] = _pick(player.style.phrases, rng).split()
        letter = _letter(forms[bar.name], bar)
        cell = motifs[bar.name]["a" if letter[0] == "c" else letter]
        if letter == "c":
            cell = _closing(cell, bar, own)
        height = {"a": 0, "b": 3, "c": -1}[letter[0]] + (2 if bar.level == "high" else 0)
        line = _sing(cell, bar, player, piece, register, sung, anchors, height, letter == "c", own)
        if phrase % player.turns == player.turn:
            notes += line
    final = piece.bars[-1]
    pitch = _nearest([p for p in range(register[0], register[1] + 1) if (p - piece.tonic) % 12 == 0], sung[-1])
    notes.append(Note(final.start, 0.8 * piece.ring_beats, pitch, velocity_of(player, final, piece)))
    return notes


def _letter(form: Sequence[str], bar: Bar) -> str:
    """What a phrase has in a bar: from its beginning on, and where it is longer than its form, that once more."""
    if bar.ends_phrase:
        return "c"
    over = max(bar.phrase_bars - len(form), 0)
    letter = form[max(bar.in_phrase - over, 0)]
    return letter if letter != "c" or bar.in_phrase < len(form) - 1 else "b"


def _home(register: tuple[int, int]) -> int:
    return (register[0] + register[1]) // 2


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _rhythm(player: Player, piece: Piece, bar: Bar, rng: np.random.Generator) -> tuple[tuple[float, float, bool], ...]:
    grid = piece.grid(player)
    pattern = patterns.clean(_pick(options_at(player.style.patterns, bar.level), rng))
    pattern = patterns.bar_of(pattern, int(rng.integers(16)), piece.style.beats_per_bar * grid)
    onsets = [(event.step / grid, event.length / grid, event.symbol == "X") for event in patterns.events(pattern)]
    return tuple(onsets) or ((0.0, float(piece.style.beats_per_bar), False),)


def _cell(player: Player, piece: Piece, bar: Bar, rng: np.random.Generator) -> Cell:
    rhythm = _rhythm(player, piece, bar, rng)
    return Cell(rhythm, _contour(len(rhythm), player.style, len(SCALES[player.style.scale[piece.mode]]), rng))


def _contour(count: int, style: PartStyle, tones: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Mostly steps in one direction that turns once; a leap is followed by a step back (gap fill, Meyer 1956).

    Its range is about an octave, in steps of a scale of so many `tones`; at an edge it turns back.
    """
    reach = 4 if tones > 6 else 3
    direction = 1 if rng.random() < 0.5 else -1
    turn = int(rng.integers(1, max(count, 2)))
    steps, position, leapt = [0], 0, 0
    for index in range(1, count):
        if index == turn:
            direction = -direction
        if leapt:
            move, leapt = -leapt, 0
        elif rng.random() < style.leap:
            move = direction * int(rng.integers(2, 5))
            leapt = 1 if move > 0 else -1
        else:
            move = direction * int(rng.choice([0, 1, 1, 1, 2]))
        if abs(position + move) > reach:
            direction = -direction
        position = _reflected(position + move, -reach, reach)
        steps.append(position)
    return tuple(steps)


def _reflected(step: int, low: int, high: int) -> int:
    """A step as it is folded back at the edges of a range."""
    if high <= low:
        return low
    within = (step - low) % (2 * (high - low))
    return low + min(within, 2 * (high - low) - within)


def _varied(cell: Cell, rng: np.random.Generator) -> Cell:
    """The same rhythm a step or two higher or lower, or with its last notes turned another way."""
    shift = int(rng.choice([-2, -1, 1, 2]))
    kept = 0 if rng.random() < 0.5 or len(cell.contour) < 2 else (len(cell.contour) + 1) // 2
    return replace(cell, contour=(*cell.contour[:kept], *(step + shift for step in cell.contour[kept:])))


def _closing(cell: Cell, bar: Bar, rng: np.random.Generator) -> Cell:
    """The first half of a cell, then a long note from the middle of the bar or before, then a breath."""
    last_beat = float(rng.choice([0, 1, 2, 2])) if bar.beats >= 3 else 0.0
    if bar.phrase_bars == 1 and bar.beats >= 3:
        last_beat = 2.0  # a phrase is more than a close
    kept = [index for index, (beat, _, _) in enumerate(cell.rhythm) if beat < last_beat]
    rhythm = [cell.rhythm[index] for index in kept]
    if rhythm:
        beat, length, accent = rhythm[-1]
        rhythm[-1] = (beat, min(length, last_beat - beat), accent)
    long = max(min(bar.beats - last_beat - 0.5, 2.0), 0.75)
    contour = [cell.contour[index] for index in kept]
    return Cell((*rhythm, (last_beat, long, True)), (*contour, (contour[-1] if contour else 0) - 1))


def _sing(
    cell: Cell, bar: Bar, player: Player, piece: Piece, register: tuple[int, int], sung: list[int],
    anchors: dict[tuple[Cell, Chord], int], height: int, closing: bool, rng: np.random.Generator,
) -> list[Note]:  # fmt: skip
    """A cell's notes in one bar. `sung` are the pitches before it, to which its own are added; `anchors` where cells
    began over which chord, so that they do so again."""
    scale = SCALES[player.style.scale[piece.mode]]
    home = min(_home(register) + height, register[1] - 4)
    gate = gate_of(player, piece)
    notes: list[Note] = []
    anchor = None
    for index, ((beat, written, accent), step) in enumerate(zip(cell.rhythm, cell.contour, strict=True)):
        if beat >= bar.beats:
            break
        chord = bar.chord_at(beat)
        ladder = _ladder(scale_over(scale, chord), piece.tonic, register)
        chordal = _ladder(chord.restful, piece.tonic, register)
        if anchor is None:
            first = ladder.index(_nearest(chordal, round(0.45 * sung[-1] + 0.55 * home)))
            anchor = _nearest(chordal, ladder[_anchor(first - step, cell.contour, len(ladder))])
            anchor = anchors.setdefault((cell, chord), anchor)
        base = ladder.index(_nearest(ladder, anchor))
        wanted = ladder[_reflected(base + step, 0, len(ladder) - 1)]
        pitch = sung[-1]
        is_strong = beat % 2 == 0 or written >= 1.5
        is_last = index == len(cell.rhythm) - 1
        if closing and is_last:
            wanted = _resolution(chord, piece, register, pitch, bar)
        elif is_strong:
            wanted = _nearest(chordal, wanted)
        if abs(wanted - pitch) > 12:
            wanted += 12 if wanted < pitch else -12
        if sung[-2:] == [wanted, wanted] and not (closing and is_last):
            rises = index + 1 < len(cell.contour) and cell.contour[index + 1] > step
            wanted = _beside(chordal if is_strong else ladder, wanted, rises)
        pitch = wanted
        sung.append(pitch)
        length = min(written, bar.beats - beat)
        velocity = velocity_of(player, bar, piece, (1.1 if accent else 1.0) * (1.04 if is_strong else 0.95))
        start = bar.start + beat
        if player.style.grace and length >= 0.5 and rng.random() < player.style.grace:
            short = min(0.08 * piece.bpm / 60, 0.15)
            below = [rung for rung in ladder if pitch - 2 <= rung < pitch] or [pitch - 1]
            if start >= short:  # before the beat, which it leads to
                notes.append(Note(start - short, short, below[-1], max(velocity - 15, 1)))
        sounding = length if closing and is_last else length * gate
        notes.append(Note(start, sounding, pitch, velocity))
    return notes


def _anchor(index: int, contour: Sequence[int], size: int) -> int:
    """Where on a ladder a contour starts from: at `index`, or as near as lets the whole of it fit."""
    lowest, highest = -min(contour), size - 1 - max(contour)
    if lowest > highest:  # it does not fit: the middle, and its ends fold back
        return min(max((lowest + highest) // 2, 0), size - 1)
    return min(max(index, lowest, 0), highest, size - 1)


def _beside(ladder: Sequence[int], pitch: int, rises: bool) -> int:
    """The next rung above or below a pitch; on the other side where there is none."""
    above, below = [p for p in ladder if p > pitch], [p for p in ladder if p < pitch]
    return (min(above) if above and (rises or not below) else max(below)) if above or below else pitch


def _resolution(chord: Chord, piece: Piece, register: tuple[int, int], at: int, bar: Bar) -> int:
    """Where a phrase comes to rest: on the tonic at a section's end, if the chord has it; else on a near tone of it."""
    classes = chord.restful[:3]
    if bar.ends_section and 0 in classes:
        classes = (0,)
    return _nearest(_ladder(classes, piece.tonic, register), at)


def _ladder(classes: Sequence[int], tonic: int, register: tuple[int, int]) -> list[int]:
    return [pitch for pitch in range(register[0], register[1] + 1) if (pitch - tonic) % 12 in classes]


def _nearest(ladder: Sequence[int], pitch: int) -> int:
    return min(ladder, key=lambda other: (abs(other - pitch), other))
