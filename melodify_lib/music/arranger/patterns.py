"""Patterns: one bar (or a few) of rhythm as a string, one character a step.

``"x.x.|x-x."`` – bars and spaces are only for the eye. In every pattern ``.`` is a rest and ``-`` holds the
note before; what other characters mean, and which are allowed, depends on who plays:

    drums     x hit    X accent    , ghost note    ? now and then
    bass      1–8 degree of the chord's scale    R same as 1    8 the octave    5 below with v    a approach note
              w a step of a walking line    g ghost note    n the next bar's root, which rests at its beginning
                (``-``) are tied to
    chords    x chord    X accent    , soft    b bass note    f its fifth    m muted root
    arpeggio  1–8 tones of the chord, upwards
    melody    x note    X accent
    counter   x note of the chord    X accent    s a step up the scale
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

REST, HOLD = ".", "-"


@dataclass(frozen=True)
class Event:
    """A character of a pattern: from `step`, held for `length` steps."""

    step: int
    length: int
    symbol: str


def clean(pattern: str) -> str:
    return pattern.replace("|", "").replace(" ", "")


def events(pattern: str) -> Iterator[Event]:
    """The events of a cleaned pattern."""
    step = 0
    while step < len(pattern):
        symbol = pattern[step]
        length = 1
        if symbol not in (REST, HOLD):
            while step + length < len(pattern) and pattern[step + length] == HOLD:
                length += 1
            yield Event(step, length, symbol)
        step += length


def bar_of(pattern: str, bar: int, steps_per_bar: int) -> str:
    """The bar of a pattern of one or more bars that is played in bar `bar` of a section."""
    start = bar * steps_per_bar % len(pattern)
    return pattern[start : start + steps_per_bar]
