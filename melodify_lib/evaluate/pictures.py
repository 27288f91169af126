"""Pictures to measure alignment on: photographs at hand, the same in other light, and made ones; and how to change one.

All are made by a seed, need no download, and are RGB pictures as `melodify_lib.image.open_image` returns them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from melodify_lib.image import open_image
from melodify_lib.samples import SAMPLES, sample_picture

if TYPE_CHECKING:
    Floats = npt.NDArray[np.float64]

Axis = Literal["valence", "arousal"]
SIDE = 256


@dataclass(frozen=True)
class Change:
    """A way to change a picture in steps, and which way its music must go: `axis` up (+1) or down (−1).

    Directions: Valdez & Mehrabian (1994) for light (pleasure + .69 B) and saturation (arousal + .60 S); Palmer et al.
    (2013), PNAS 110(22), for yellow, which went with happy music.
    """

    name: str
    apply: Callable[[Image.Image, int], Image.Image]
    axis: Axis
    sign: int


def brighten(image: Image.Image, step: int) -> Image.Image:
    """Lightened by a power curve, which keeps black, white and what lies between apart."""
    return _curve(image, 0.8**step)


def darken(image: Image.Image, step: int) -> Image.Image:
    """The other way."""
    return _curve(image, 1.25**step)


def saturate(image: Image.Image, step: int) -> Image.Image:
    """Colours further from the grey of the same luma."""
    return ImageEnhance.Color(image).enhance(1 + 0.3 * step)


def warm(image: Image.Image, step: int) -> Image.Image:
    """More red and green and less blue at the same luma, as under a lower sun."""
    gains = np.array([1 + 0.06 * step, 1 + 0.02 * step, 1 - 0.12 * step])
    luma = np.array([0.299, 0.587, 0.114])
    pixels = np.asarray(image, np.float64)
    warmed = pixels * gains
    warmed *= ((pixels @ luma + 1) / (warmed @ luma + 1))[..., None]
    return _picture(warmed / 255)


CHANGES = (
    Change("brighten", brighten, "valence", +1),
    Change("darken", darken, "valence", -1),
    Change("warm", warm, "valence", +1),
    Change("saturate", saturate, "arousal", +1),
)


def default_pictures(count: int = 60, seed: int = 0) -> dict[str, Image.Image]:
    """`count` pictures by name: photographs, each also dark, light, vivid and grey, then made ones of three kinds."""
    photographs = {name: open_image(sample_picture(name)) for name in SAMPLES}
    pictures: dict[str, Image.Image] = dict(photographs)
    looks: Mapping[str, Callable[[Image.Image], Image.Image]] = {
        "dark": lambda image: darken(image, 4),
        "light": lambda image: brighten(image, 4),
        "vivid": lambda image: saturate(image, 4),
        "grey": lambda image: ImageEnhance.Color(image).enhance(0.1),
    }
    for look, change in looks.items():
        pictures |= {f"{name}, {look}": change(image) for name, image in photographs.items()}
    chance = np.random.default_rng(seed)
    kinds = {"field": _field, "gradient": _gradient, "texture": _texture}
    for number in range(max(count - len(pictures), 0)):
        kind = list(kinds)[number % len(kinds)]
        pictures[f"{kind} {number // len(kinds) + 1}"] = _picture(kinds[kind](chance))
    return dict(list(pictures.items())[:count])


def _field(chance: np.random.Generator) -> Floats:
    """Three to six rectangles of colours that are near each other, on a ground."""
    ground = _colour(chance)
    canvas = np.tile(ground, (SIDE, SIDE, 1))
    for _ in range(chance.integers(3, 7)):
        top, left = chance.integers(0, SIDE - 40, 2)
        height, width = chance.integers(30, SIDE // 2, 2)
        canvas[top : top + height, left : left + width] = np.clip(ground + chance.normal(0, 0.15, 3), 0, 1)
    return canvas


def _gradient(chance: np.random.Generator) -> Floats:
    """From one colour to another, in any direction."""
    angle = chance.uniform(0, 2 * np.pi)
    down, across = np.mgrid[0:SIDE, 0:SIDE] / SIDE - 0.5
    share = np.clip(0.5 + 0.75 * (np.cos(angle) * across + np.sin(angle) * down), 0, 1)[..., None]
    gradient: Floats = share * _colour(chance) + (1 - share) * _colour(chance)
    return gradient


def _texture(chance: np.random.Generator) -> Floats:
    """Noise of any grain between two colours."""
    cells = int(chance.choice([8, 16, 32, 64, 128]))
    small = Image.fromarray((255 * chance.random((cells, cells))).astype(np.uint8))
    share = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float64)[..., None] / 255
    texture: Floats = share * _colour(chance) + (1 - share) * _colour(chance)
    return texture


def _colour(chance: np.random.Generator) -> Floats:
    """Any hue, as dark or light and as grey or vivid as any other."""
    import colorsys

    hue, lightness, saturation = chance.random(), chance.uniform(0.08, 0.92), chance.random()
    return np.array(colorsys.hls_to_rgb(hue, lightness, saturation))


def _curve(image: Image.Image, power: float) -> Image.Image:
    return _picture((np.asarray(image, np.float64) / 255) ** power)


def _picture(pixels: Floats) -> Image.Image:
    return Image.fromarray(np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8))
