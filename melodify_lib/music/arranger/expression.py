"""How moods steer the playing.

What carries emotion in music, strongest first: mode, tempo, register, dynamics, articulation,
timbre; the effects add up (Eerola, Friberg & Bresin 2013, "Emotional expression in music",
Frontiers in Psychology 4:487). Mode and tempo are in the description; this is the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

from melodify_lib.moods import affect


@dataclass(frozen=True)
class Expression:
    """`dynamics` and `articulation` are factors on velocity and on note length; `register` is in semitones
    for the lead; `energy` shifts every section's level by −1, 0 or 1; `brightness_db` is a high shelf.
    """

    dynamics: float
    articulation: float
    register: int
    energy: int
    brightness_db: float


def expression_of(moods: tuple[str, ...]) -> Expression:
    """Happy music lies higher, is louder, more detached and brighter than sad; excited more so than calm."""
    valence, arousal = affect(moods)
    return Expression(
        dynamics=1 + 0.16 * arousal + 0.03 * valence,
        articulation=1 - 0.18 * arousal - 0.05 * valence,
        register=round(3.0 * valence + 1.5 * arousal),
        energy=1 if arousal > 0.65 else -1 if arousal < -0.45 else 0,
        brightness_db=2.5 * arousal + 1.5 * valence,
    )
