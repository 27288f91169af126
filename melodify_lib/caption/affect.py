"""How a picture feels by its looks: valence and arousal from light, colour and texture.

The core is Valdez and Mehrabian (1994), "Effects of color on emotions", J. Exp. Psychology: General
123(4), in standardised brightness B and saturation S: pleasure = .69 B + .22 S and
arousal = -.31 B + .60 S. The sign of brightness in arousal is disputed: Wilms and Oberfeld (2018),
"Color and emotion", Psychological Research 82, doi 10.1007/s00426-017-0880-8, found that brightness
raises it, and Palmer et al. (2013), PNAS 110(22), that faster music goes with lighter colours. So
each weight is a parameter.

To these are added, with weights of our own: yellow, which Palmer et al. found to go with major and
happy music; red, which Wilms and Oberfeld found the most arousing hue; and the amount of detail and
contrast, since visual complexity arouses (Madan et al. 2018, Frontiers in Psychology 8:2368).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from melodify_lib.caption.look import Look

NATURAL: Mapping[str, tuple[float, float]] = {
    "brightness": (0.45, 0.16),
    "middle_brightness": (0.45, 0.16),
    "saturation": (0.22, 0.13),
    "contrast": (0.21, 0.07),
    "edges": (0.065, 0.027),
    "yellowness": (0.09, 0.12),
    "redness": (0.10, 0.15),
}
"""Mean and standard deviation of each measure over natural pictures, by which it is standardised.

Measured with `look_at` on seven colour photographs that scikit-image and scikit-learn ship (astronaut,
chelsea, coffee, rocket, motorcycle, china, flower), rounded; few, so the spreads are taken a little
wider. The mean brightness of the seven, .40, is moved to .45 towards that of ImageNet
(.46, from its published channel means .485, .456, .406).
"""


@dataclass(frozen=True)
class Weights:
    """What each standardised measure adds to valence and to arousal, before both are squashed."""

    # The .69 of brightness is shared by the whole and its middle: a flower lit in the dark is not a dark picture.
    valence: Mapping[str, float] = field(
        default_factory=lambda: {
            "brightness": 0.345,
            "middle_brightness": 0.345,
            "saturation": 0.22,
            "yellowness": 0.20,
        }
    )
    # Brightness: between the -.31 of Valdez and Mehrabian and the rise that the two later studies found.
    arousal: Mapping[str, float] = field(
        default_factory=lambda: {
            "brightness": 0.10,
            "saturation": 0.60,
            "edges": 0.35,
            "contrast": 0.20,
            "redness": 0.10,
        }
    )
    spread: float = 1.5
    """Standardised sum at which tanh reaches .76."""


def affect_of(look: Look, weights: Weights | None = None) -> tuple[float, float]:
    """(valence, arousal) in [-1, 1].

    Brighter at the same saturation never lowers valence; more saturated at the same brightness
    lowers neither.
    """
    weights = weights or Weights()
    return _squash(look, weights.valence, weights.spread), _squash(look, weights.arousal, weights.spread)


def _squash(look: Look, weights: Mapping[str, float], spread: float) -> float:
    total = 0.0
    for name, weight in weights.items():
        mean, deviation = NATURAL[name]
        total += weight * (getattr(look, name) - mean) / deviation
    return math.tanh(total / spread)
