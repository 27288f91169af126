"""From a grid to a performance: swing, touch, and time that a person could have kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from melodify_lib.music.arranger.score import Note
from melodify_lib.music.arranger.styles import Feel


def humanize(
    notes: Iterable[Note], held_over: float, feel: Feel, late_ms: float, bpm: float, last_start: float,
    last_end: float, rng: np.random.Generator, one_voice: bool = False,
) -> tuple[Note, ...]:  # fmt: skip
    """Swing, then spread in time and touch. Notes that start together stay together to a few milliseconds.

    `held_over` is by how many beats each is held beyond its length; where there is but `one_voice`, at most
    until the next, so that neither a grace nor a step rings on under it. Nothing starts before 0, or at
    `last_start` or after, or ends after `last_end`; the spread shrinks where the tempo leaves less room.
    """
    ordered = sorted(notes, key=lambda note: (note.start, note.pitch))
    per_ms = bpm / 60_000
    spread = min(feel.timing_ms * per_ms, 0.04)
    late = min(late_ms * per_ms, 0.08)
    performed, moment, drift = [], -1.0, 0.0
    for note in ordered:
        if note.start > moment + 1e-6:
            moment = note.start
            drift = min(max(float(rng.normal(0, spread)), -2 * spread), 2 * spread)
        start = swing(note.start, feel) + late + drift + float(rng.normal(0, spread / 5))
        end = swing(note.start + note.duration, feel) + late + drift + held_over
        start = max(start, 0.0)
        if max(start, note.start) >= last_start:  # what is written after the end is not played a little before it
            continue
        velocity = note.velocity + float(rng.normal(0, feel.velocity))
        performed.append(
            Note(start, max(min(end, last_end) - start, 0.02), note.pitch, min(max(round(velocity), 1), 127))
        )
    return tuple(_in_one_voice(performed) if one_voice else performed)


def _in_one_voice(notes: list[Note]) -> list[Note]:
    ordered = sorted(notes, key=lambda note: note.start)
    ends = [*(note.start for note in ordered), float("inf")][1:]
    return [
        replace(note, duration=max(min(note.duration, end - note.start), 0.02))
        for note, end in zip(ordered, ends, strict=True)
    ]


def swing(beat: float, feel: Feel) -> float:
    """Where a beat on the even grid lies when swung: the first half of each pair lasts longer, the second shorter."""
    if not feel.swing:
        return beat
    unit = 4.0 / feel.swing_unit
    pair, within = divmod(beat, 2 * unit)
    longer = unit * (1 + feel.swing)
    within = within / unit * longer if within < unit else longer + (within - unit) / unit * (2 * unit - longer)
    return pair * 2 * unit + within
