"""Writes the score: description, length and seed in; form, harmony, parts and mix out. No sound yet."""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import replace
from functools import partial

import numpy as np

from melodify_lib.music.arranger.casting import Player, cast
from melodify_lib.music.arranger.expression import expression_of
from melodify_lib.music.arranger.fluidsynth import BLOCK, SAMPLE_RATE
from melodify_lib.music.arranger.form import Bar, final_beats, plan_form
from melodify_lib.music.arranger.humanize import humanize
from melodify_lib.music.arranger.melody import play_melody
from melodify_lib.music.arranger.players import (
    Piece,
    Play,
    play_arpeggio,
    play_bass,
    play_chords,
    play_counter,
    play_drums,
)
from melodify_lib.music.arranger.score import Mix, Note, Part, Score, Section
from melodify_lib.music.arranger.styles import Plays, style_of
from melodify_lib.nouns import MusicDescription

_PLAYS: dict[Plays, Play] = {
    "bass": play_bass,
    "chords": play_chords,
    "sustain": play_chords,
    "answer": play_chords,
    "arpeggio": play_arpeggio,
    "counter": play_counter,
    "melody": play_melody,
}


def write_score(description: MusicDescription, seconds: float, seed: int, *, loop: bool = False) -> Score:
    """The score of a description. The same arguments give the same score, on any machine.

    A loop has as many whole bars as come nearest to `seconds`, and no final chord.
    """
    style = style_of(description.genre)
    expression = expression_of(description.moods)
    beat_seconds = 60.0 / description.bpm
    dice = partial(_generator, description.genre, seed)
    bars = plan_form(style, description.mode, description.bpm, seconds, expression.energy, dice("form"), loop=loop)
    if loop:
        # Whole blocks of the synthesiser: what begins together once begins together each time.
        blocks = round(bars[-1].start * beat_seconds * SAMPLE_RATE / BLOCK)
        seconds = blocks * BLOCK / SAMPLE_RATE
    ring_beats = final_beats(bars[-1], beat_seconds, seconds - bars[-1].start * beat_seconds)
    piece = Piece(
        style, tuple(bars), description.tonic, description.mode, description.bpm, expression, ring_beats, dice
    )
    players = cast(style, description.instruments, dice("casting"))
    melody = {number: _notes(player, piece) for number, player in enumerate(players) if player.style.plays == "melody"}
    # The others hear it before they play.
    piece = replace(piece, lead=tuple(sorted(itertools.chain(*melody.values()), key=lambda note: note.start)))
    notes = [melody.get(number) or _notes(player, piece) for number, player in enumerate(players)]
    end = bars[-1].start if loop else (seconds - 0.05) * piece.bpm / 60
    parts = [_perform(player, its, piece, end, loop) for player, its in zip(players, notes, strict=True)]
    if loop:
        bars = bars[:-1]
    return Score(
        title=f"{description.genre} in {description.key}",
        bpm=float(description.bpm),
        key=description.key,
        seconds=seconds,
        bars=tuple(bar.beats for bar in bars),
        sections=_sections(bars),
        parts=_named_apart([part for part in parts if part.notes]),
        brightness_db=style.tilt_db + expression.brightness_db,
        reverb_seconds=style.reverb_seconds,
        delay_beats=style.delay_beats,
        is_loop=loop,
    )


def _generator(genre: str, seed: int, purpose: str) -> np.random.Generator:
    """Each purpose has dice of its own, so that an instrument more does not change the others' notes.

    They are the genre's and the seed's, and nobody else's: a picture that is a little brighter, whose description has
    a few other words, gets the same piece a little brighter, and not another one.
    """
    digest = hashlib.sha256(f"{genre}\n{seed}\n{purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _notes(player: Player, piece: Piece) -> list[Note]:
    style, instrument = player.style, player.instrument
    rng = piece.dice(_purpose(player))
    if style.plays == "drums":
        return play_drums(player, piece, rng)
    if instrument.is_unpitched:
        return []
    return _in_range(_PLAYS[style.plays](player, piece, _register(player, piece), rng), player)


def _purpose(player: Player) -> str:
    """Whoever takes a part plays the same in it, those who share the lead phrases of one melody."""
    return f"{player.part}, beside" if player.doubles and player.turns == 1 else player.part


def _perform(player: Player, notes: list[Note], piece: Piece, end: float, loop: bool) -> Part:
    style, instrument = player.style, player.instrument
    held_over = (style.release + instrument.release) * piece.bpm / 60
    performed = humanize(
        notes, held_over, piece.style.feel, style.late_ms, piece.bpm, end, math.inf if loop else end,
        piece.dice(f"touch: {_purpose(player)}"),
        one_voice=style.plays in ("melody", "counter"),
    )  # fmt: skip
    program = instrument.kit if instrument.kit is not None else instrument.program
    return Part(
        name=player.name,
        role=style.role,
        program=program or 0,
        is_drum=instrument.is_drum,
        notes=performed,
        mix=Mix(**style.mix.model_dump() | {"level_db": style.mix.level_db + instrument.level}),
        vibrato_cents=instrument.vibrato if style.plays in ("melody", "counter") else 0.0,
    )


def _register(player: Player, piece: Piece) -> tuple[int, int]:
    """Where a part plays: the style's register as the moods shift it, within what the instrument can do."""
    (low, high), (lowest, highest) = player.style.compass, player.instrument.range
    shift = piece.expression.register if player.style.plays in ("melody", "arpeggio") else 0
    low, high = low + shift, high + shift
    if player.doubles and player.style.plays not in ("melody", "bass"):
        low, high = low + 5, high + 5
    while low + 5 > highest:
        low, high = low - 12, high - 12
    while high - 5 < lowest:
        low, high = low + 12, high + 12
    low, high = max(low, lowest), min(high, highest)
    return (low, high) if high - low >= 12 else (max(lowest, high - 14), min(highest, max(low + 14, high)))


def _in_range(notes: list[Note], player: Player) -> list[Note]:
    """Notes folded by octaves into the instrument's range; of two that then fall together, one."""
    low, high = player.instrument.range
    folded: dict[tuple[float, int], Note] = {}
    for note in notes:
        pitch = note.pitch
        while pitch < low:
            pitch += 12
        while pitch > high:
            pitch -= 12
        folded.setdefault((round(note.start, 4), pitch), Note(note.start, note.duration, pitch, note.velocity))
    return list(folded.values())


def _sections(bars: list[Bar]) -> tuple[Section, ...]:
    sections: list[Section] = []
    for bar in bars:
        if bar.index == 0:
            sections.append(Section(bar.name, bar.start, float(bar.beats)))
        else:
            last = sections[-1]
            sections[-1] = Section(last.name, last.start, last.duration + bar.beats)
    return tuple(sections)


def _named_apart(parts: list[Part]) -> tuple[Part, ...]:
    """Parts of one name are numbered, so that a sequencer's track list can be read."""
    seen: dict[str, int] = {}
    named = []
    for part in parts:
        seen[part.name] = seen.get(part.name, 0) + 1
        name = part.name if seen[part.name] == 1 else f"{part.name} {seen[part.name]}"
        named.append(Part(**{**part.__dict__, "name": name}))
    return tuple(named)
