"""What can be measured in a picture without knowing what it shows: its light, colour and texture.

Measured on a copy of at most 256 pixels a side, so that a picture and a smaller copy of it look alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL.Image import Resampling

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 256
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, for gamma-coded R'G'B'

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """Measures of a picture; colours run from 0 to 1, so an opponent colour runs from -1 to 1.

    Brightness (luma Y) and saturation (max - min of R, G, B) are those of the IHLS colour space,
    in which Machajdik and Hanbury (2010) apply the formulas of Valdez and Mehrabian to photographs:
    its saturation does not blow up in dark pixels as that of HSV does.
    """

    brightness: float
    """Mean luma."""
    middle_brightness: float
    """Mean luma of the middle quarter, where people look first (Tatler 2007, Journal of Vision 7(14):4)."""
    saturation: float
    """Mean of max(R, G, B) - min(R, G, B)."""
    contrast: float
    """Standard deviation of luma."""
    edges: float
    """Mean gradient of luma, |dx| + |dy| from pixel to pixel: how much detail there is."""
    sharpness: float
    """95th percentile of that gradient: how abrupt the detail is."""
    yellowness: float
    """Mean of (R + G) / 2 - B."""
    redness: float
    """Mean of R - (G + B) / 2."""
    greenness: float
    """Mean of G - (R + B) / 2."""
    blueness: float
    """Mean of B - (R + G) / 2."""
    shadows: float
    """Share of pixels with luma under 0.15."""
    highlights: float
    """Share of pixels with luma over 0.85."""
    centre: float
    """Mean luma of the middle quarter less that of the rest."""
    sky_brightness: float
    """Mean luma of the upper third."""
    sky_blueness: float
    """Mean of B - R in the upper third."""
    unevenness: float
    """Standard deviation over mean of `edges` in the 4 × 4 cells of a grid: 0 for a texture without end."""
    patchiness: float
    """Standard deviation of mean luma over the same cells."""
    halftones: float
    """Share of pixels outside the four fullest of 32 bins of luma: near 0 for line art and silhouettes."""
    aspect: float
    """Width over height."""


def look_at(image: Image) -> Look:
    """Measure an RGB picture."""
    pixels = small_pixels(image, SIDE)
    luma = pixels @ _LUMA
    red, green, blue = np.moveaxis(pixels, -1, 0)
    gradient = np.abs(np.diff(luma, axis=1))[:-1] + np.abs(np.diff(luma, axis=0))[:, :-1]
    cell_edges, cell_luma = _cells(gradient), _cells(luma)
    height, width = luma.shape
    middle = luma[height // 4 : height - height // 4, width // 4 : width - width // 4]
    bins = np.sort(np.histogram(luma, 32, (0, 1))[0])
    measures: dict[str, Any] = {
        "brightness": luma.mean(),
        "middle_brightness": middle.mean(),
        "saturation": (pixels.max(axis=-1) - pixels.min(axis=-1)).mean(),
        "contrast": luma.std(),
        "edges": gradient.mean(),
        "sharpness": np.quantile(gradient, 0.95),
        "yellowness": ((red + green) / 2 - blue).mean(),
        "redness": (red - (green + blue) / 2).mean(),
        "greenness": (green - (red + blue) / 2).mean(),
        "blueness": (blue - (red + green) / 2).mean(),
        "shadows": (luma < 0.15).mean(),
        "highlights": (luma > 0.85).mean(),
        "centre": middle.mean() - (luma.sum() - middle.sum()) / (luma.size - middle.size),
        "sky_brightness": luma[: -(-height // 3)].mean(),
        "sky_blueness": (blue - red)[: -(-height // 3)].mean(),
        "unevenness": cell_edges.std() / max(cell_edges.mean(), 1e-9),
        "patchiness": cell_luma.std(),
        "halftones": bins[:-4].sum() / luma.size,
        "aspect": image.width / image.height,
    }
    return Look(**{name: float(value) for name, value in measures.items()})


def small_pixels(image: Image, side: int) -> Floats:
    """The picture as float64 ``[height, width, RGB]`` in 0 to 1, with at most `side` pixels a side."""
    scale = min(1.0, side / max(image.size))
    size = max(2, round(image.width * scale)), max(2, round(image.height * scale))
    # BOX averages: it makes no colour that was not between two others, and no overshoot at edges.
    return np.asarray(image.resize(size, Resampling.BOX, reducing_gap=2.0), dtype=np.float64) / 255


def _cells(values: Floats) -> Floats:
    rows = np.array_split(values, min(4, values.shape[0]), axis=0)
    cells = [cell for row in rows for cell in np.array_split(row, min(4, values.shape[1]), axis=1)]
    return np.array([cell.mean() for cell in cells])
