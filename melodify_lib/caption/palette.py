"""The main colours of a picture, and what they are called."""

from __future__ import annotations

import numpy as np
from PIL import Image

from melodify_lib.caption.look import Floats, small_pixels
from melodify_lib.caption.words import COLOURS

COUNT = 5
_FIRST_COLOURS = 24
_MERGE_DISTANCE = 0.09  # in OKLab; about the step between two neighbouring names of words.yaml
_SMALLEST_SHARE = 0.02
_NAMING = np.array([1.0, 2.5, 2.5])  # names part by hue rather than by lightness; and a grey is to be called a grey


def palette_of(image: Image.Image) -> tuple[str, ...]:
    """One to five main colours of an RGB picture as ``#rrggbb``, the largest first.

    Median cut, then the two nearest colours are merged in OKLab (Ottosson 2020) until all are
    distinct and few. It has no random start, so the same picture gives the same palette.
    """
    pixels = np.round(small_pixels(image, 128) * 255).astype(np.uint8)
    indexed = Image.fromarray(pixels).quantize(_FIRST_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    labels = np.asarray(indexed).ravel()
    used, counts = np.unique(labels, return_counts=True)
    means = [pixels.reshape(-1, 3)[labels == label].mean(axis=0) for label in used]
    colours = [oklab(mean / 255) for mean in means]
    shares = [float(share) for share in counts / counts.sum()]

    while len(colours) > 1:
        distances = np.linalg.norm(np.array(colours)[:, None] - np.array(colours)[None], axis=-1)
        np.fill_diagonal(distances, np.inf)
        first, second = sorted(int(index) for index in np.unravel_index(np.argmin(distances), distances.shape))
        if len(colours) <= COUNT and distances[first, second] >= _MERGE_DISTANCE:
            break
        total = shares[first] + shares[second]
        colours[first] = (colours[first] * shares[first] + colours[second] * shares[second]) / total
        shares[first] = total
        del colours[second], shares[second]

    order = sorted(range(len(colours)), key=lambda index: -shares[index])
    kept = [index for index in order if shares[index] >= _SMALLEST_SHARE] or order[:1]
    return tuple(dict.fromkeys(_to_hex(colours[index]) for index in kept))


def name_of(colour: str) -> str:
    """The nearest name in words.yaml for ``#rrggbb``."""
    here = oklab(_from_hex(colour)) * _NAMING
    return min(COLOURS, key=lambda name: float(np.linalg.norm(oklab(_from_hex(COLOURS[name])) * _NAMING - here)))


def chroma(colour: str) -> float:
    """How far ``#rrggbb`` is from grey, in OKLab: 0 to about 0.3."""
    return float(np.linalg.norm(oklab(_from_hex(colour))[1:]))


# Björn Ottosson (2020), "A perceptual color space for image processing": linear sRGB → cone responses → OKLab.
_TO_CONES = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929],
     [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]]
)  # fmt: skip
_TO_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468],
     [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]]
)  # fmt: skip


def oklab(rgb: Floats) -> Floats:
    """sRGB ``[3]`` in 0 to 1 → OKLab ``[L, a, b]``, L in 0 to 1."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lab: Floats = _TO_LAB @ np.cbrt(_TO_CONES @ linear)
    return lab


def _to_hex(lab: Floats) -> str:
    linear = np.linalg.solve(_TO_CONES, np.linalg.solve(_TO_LAB, lab) ** 3).clip(0, 1)
    rgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#{:02x}{:02x}{:02x}".format(*(round(float(value) * 255) for value in rgb))


def _from_hex(colour: str) -> Floats:
    return np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
