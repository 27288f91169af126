"""EnCodec's decoder over a song that is still being made: what is decoded in pieces sounds as if decoded whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from melodify_lib.music.musicgen.architecture import Architecture

    Floats = npt.NDArray[np.float32]
    Codes = npt.NDArray[np.int64]

PIECE_FRAMES = 50
"""Frames that are decoded at a time: the context around a piece costs an eighth of it."""


class CodecBackend(Protocol):
    """The two halves of EnCodec's decoder."""

    def features(self, codes: Codes, start: int, end: int, state: Any) -> tuple[Floats, Any]:
        """Codes ``[codebooks, frames]`` → features ``[width, end - start]`` and the LSTM's new state.

        Frames before `start` and from `end` on are context; `state` is None at a song's beginning.
        """
        ...

    def samples(self, features: Floats) -> Floats:
        """Features ``[width, frames]`` → samples ``[frames * hop]``."""
        ...


def margin_frames(shape: Architecture) -> int:
    """How far to either side, in frames, a sample depends on features: the decoder's receptive field."""
    residual = sum((shape.residual_kernel - 1) * shape.dilation_growth**layer for layer in range(shape.residual_layers))
    reach = shape.kernel // 2  # in samples, after the last convolution
    for ratio in reversed(shape.upsampling):
        reach = -(-(reach + residual) // ratio) + 1  # a transposed convolution reaches one further
    return reach


class CodecStream:
    """One channel of one song. `push` takes frames and gives the samples that they settle."""

    def __init__(self, backend: CodecBackend, shape: Architecture) -> None:
        self._backend, self._hop = backend, shape.hop
        self._code_margin, self._margin = shape.kernel // 2, margin_frames(shape)
        self._codes: list[Codes] = []
        self._features = np.zeros((shape.codec_width, 0), np.float32)
        self._first_code = self._first_feature = 0  # frame of the first column that is kept
        self._state: Any = None
        self._featured = self._played = 0  # frames

    def push(self, codes: Codes, *, is_last: bool = False) -> Floats:
        """Codes ``[codebooks, frames]`` → samples ``[n]``; `is_last` gives all that is left."""
        self._codes.append(codes)
        known = np.concatenate(self._codes, 1)
        end = self._first_code + known.shape[1] - (0 if is_last else self._code_margin)
        if end > self._featured:
            start = self._featured - self._first_code
            features, self._state = self._backend.features(known, start, end - self._first_code, self._state)
            self._features = np.concatenate([self._features, features], 1)
            self._featured = end
            drop = max(0, self._featured - self._code_margin - self._first_code)
            known, self._first_code = known[:, drop:], self._first_code + drop
        self._codes = [known]
        end = self._featured - (0 if is_last else self._margin)
        if end <= self._played:
            return np.zeros(0, np.float32)
        samples = self._backend.samples(self._features)
        first = self._first_feature
        samples = samples[(self._played - first) * self._hop : (end - first) * self._hop]
        drop = max(0, end - self._margin - first)
        self._features, self._first_feature, self._played = self._features[:, drop:], first + drop, end
        return samples
