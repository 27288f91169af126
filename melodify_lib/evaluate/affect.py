"""Valence and arousal of audio and of pictures, from what is measured in them and never from what was asked for.

Audio: the signs are published, the combination is plain. Eerola, Friberg & Bresin (2013), "Emotional expression in
music", Frontiers in Psychology 4:487, had listeners rate music whose cues were set one by one: mode mattered most, then
tempo, then register; cues add up linearly. So valence is mode, tempo and register, weighted by that rank (3, 2, 1).
Arousal is what makes music fast, busy and bright (Gabrielsson & Lindström 2010, "The role of structure in the musical
expression of emotions"; Schubert 2004, Music Perception 21(4)): tempo, onsets, flux and brightness, in equal parts.
Loudness, the strongest cue of arousal, is gone: every track is brought to the same. Each cue is standardised over the
set, so a figure says where a track lies among the others, in standard deviations, and not how it would be rated.

Pictures: Valdez & Mehrabian (1994), pleasure = .69 B + .22 S, arousal = −.31 B + .60 S, over mean brightness and
saturation standardised over the set. The captioner begins with the same formula, but takes other weights for arousal
(brightness raises it), adds hue, detail and what the picture shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from melodify_lib.caption.look import look_at
from melodify_lib.evaluate.listen import Cues

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

    Floats = npt.NDArray[np.float64]

AUDIO: Mapping[str, Mapping[str, float]] = {
    "valence": {"mode": 3.0, "tempo": 2.0, "register": 1.0},
    "arousal": {"tempo": 1.0, "onsets": 1.0, "flux": 1.0, "brightness": 1.0},
}
"""Axis → cue → weight."""
PICTURE = np.array([[0.69, 0.22], [-0.31, 0.60]])
"""Valence and arousal by brightness and saturation."""


@dataclass(frozen=True, eq=False)
class Scale:
    """Mean and deviation of each cue over a set, by which others are placed on the same axes."""

    mean: dict[str, float]
    deviation: dict[str, float]

    @classmethod
    def of(cls, cues: Sequence[Cues]) -> Scale:
        names = sorted({name for weights in AUDIO.values() for name in weights})
        columns = {name: np.array([getattr(one, name) for one in cues]) for name in names}
        known = {name: column[~np.isnan(column)] for name, column in columns.items()}
        return cls(
            {name: float(column.mean()) if column.size else 0.0 for name, column in known.items()},
            {name: float(column.std()) or 1.0 if column.size else 1.0 for name, column in known.items()},
        )

    def place(self, cues: Sequence[Cues]) -> Floats:
        """``[tracks, (valence, arousal)]``: weighted means of standardised cues; one that is missing says nothing."""
        return np.array([[self._mean(one, weights) for weights in AUDIO.values()] for one in cues])

    def _mean(self, cues: Cues, weights: Mapping[str, float]) -> float:
        standard = {name: (getattr(cues, name) - self.mean[name]) / self.deviation[name] for name in weights}
        return sum(weights[name] * (0.0 if np.isnan(one) else one) for name, one in standard.items()) / sum(
            weights.values()
        )


def of_pictures(images: Sequence[Image]) -> Floats:
    """``[pictures, (valence, arousal)]`` by Valdez & Mehrabian, among these pictures."""
    looks = [look_at(image) for image in images]
    places: Floats = standardised(np.array([[look.brightness, look.saturation] for look in looks])) @ PICTURE.T
    return places


def standardised(values: Floats) -> Floats:
    """Each column with mean 0 and deviation 1; a column without deviation becomes 0."""
    deviation = values.std(axis=0)
    standard: Floats = (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    return standard
