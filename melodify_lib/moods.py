"""Mood words and where they lie on Russell's circumplex (valence, arousal), both in [-1, 1].

One vocabulary for all stages: captions are named by it, descriptions list it, the arranger steers
by it. The figures are our own placement of each word by quadrant and strength on the circumplex of
Russell (1980), "A circumplex model of affect"; they are not ratings from a study.
"""

from __future__ import annotations

import math

MOODS: dict[str, tuple[float, float]] = {
    # pleasant and excited
    "joyful": (0.9, 0.6), "euphoric": (0.9, 0.9), "energetic": (0.5, 0.9), "playful": (0.7, 0.5),
    "uplifting": (0.8, 0.4), "triumphant": (0.7, 0.8), "adventurous": (0.5, 0.6), "festive": (0.8, 0.8),
    "groovy": (0.6, 0.5), "confident": (0.5, 0.4), "sunny": (0.8, 0.3), "sensual": (0.5, 0.1),
    # pleasant and calm
    "peaceful": (0.6, -0.7), "calm": (0.4, -0.8), "serene": (0.6, -0.8), "dreamy": (0.4, -0.5),
    "tender": (0.5, -0.5), "romantic": (0.6, -0.2), "warm": (0.6, -0.3), "cosy": (0.6, -0.6),
    "hopeful": (0.6, -0.1), "nostalgic": (0.1, -0.4), "relaxed": (0.6, -0.6), "elegant": (0.4, -0.3),
    # unpleasant and calm
    "melancholic": (-0.5, -0.5), "sad": (-0.8, -0.5), "lonely": (-0.6, -0.5), "wistful": (-0.2, -0.4),
    "sombre": (-0.6, -0.4), "gloomy": (-0.7, -0.4), "bleak": (-0.7, -0.3), "mysterious": (-0.2, 0.0),
    # unpleasant and excited
    "dark": (-0.6, 0.1), "tense": (-0.5, 0.6), "ominous": (-0.7, 0.3), "dramatic": (-0.1, 0.6),
    "restless": (-0.3, 0.5), "aggressive": (-0.6, 0.9), "angry": (-0.8, 0.8), "gritty": (-0.3, 0.4),
    "intense": (-0.2, 0.8), "epic": (0.2, 0.8), "rebellious": (-0.1, 0.8), "majestic": (0.4, 0.4),
}  # fmt: skip


OPPOSITE = 1.0
"""Further apart than this on the circumplex, two moods are not of one picture."""


def apart(mood: str, other: str) -> float:
    """Distance of two mood words on the circumplex, 0 to about 2.5."""
    return math.dist(MOODS[mood], MOODS[other])


def affect(moods: tuple[str, ...]) -> tuple[float, float]:
    """Mean (valence, arousal) of the moods that are known; (0, 0) when none is."""
    known = [MOODS[mood] for mood in moods if mood in MOODS]
    if not known:
        return 0.0, 0.0
    return sum(v for v, _ in known) / len(known), sum(a for _, a in known) / len(known)


def nearest(valence: float, arousal: float, count: int = 2) -> tuple[str, ...]:
    """The `count` mood words nearest to a point, nearest first."""

    def distance(mood: str) -> float:
        return math.dist(MOODS[mood], (valence, arousal))

    return tuple(sorted(MOODS, key=distance)[:count])
