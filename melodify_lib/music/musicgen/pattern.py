"""The delay pattern: in one step the decoder names a frame of the first codebook, the frame before it of the second…

Source: Copet et al. 2023, "Simple and Controllable Music Generation", section 2.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Codes = npt.NDArray[np.int64]

TO_SAMPLE = -1
"""Where the decoder has yet to choose."""


def delayed(known: Codes, frames: int, delays: Codes, pad: int) -> Codes:
    """The columns that a decoder reads for `frames` frames, of which the first are `known`.

    `known` is ``[codebooks, n]``, `delays` ``[codebooks]``; gives int64 ``[codebooks, frames + longest delay + 1]``.
    Column 0 is all `pad`; the decoder reads column c and chooses what of column c + 1 is `TO_SAMPLE`.
    """
    columns = np.full((len(delays), frames + int(delays.max()) + 1), pad, np.int64)
    for row, delay, codes in zip(columns, delays, known, strict=True):
        row[1 + delay : 1 + delay + frames] = TO_SAMPLE
        row[1 + delay : 1 + delay + len(codes)] = codes
    return columns


def undelayed(columns: Codes, delays: Codes, start: int, stop: int) -> Codes:
    """Frames `start` to `stop` of what `delayed` laid out, int64 ``[codebooks, stop - start]``."""
    return np.stack([row[1 + delay + start : 1 + delay + stop] for row, delay in zip(columns, delays, strict=True)])
