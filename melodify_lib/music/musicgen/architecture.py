"""The shape of a MusicGen checkpoint: what an engine must know of it beside its weights."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from melodify_lib.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt

_RANGES = {
    "codebooks": (1, 64),
    "channels": (1, 2),
    "vocabulary": (2, 2**20),
    "pad": (0, 2**20),
    "layers": (1, 1000),
    "heads": (1, 1000),
    "width": (1, 2**16),
    "positions": (128, 2**20),
    "sample_rate": (1000, 192_000),
    "upsampling": (1, 100),
    "hop": (1, 10_000),
    "kernel": (1, 99),
    "residual_kernel": (1, 99),
    "residual_layers": (0, 99),
    "dilation_growth": (1, 9),
    "lstm_layers": (1, 9),
    "distance_buckets": (4, 1000),
    "furthest_distance": (4, 2**20),
}
"""What a config.json may say; beyond, it is damaged or meant to do harm."""


@dataclass(frozen=True)
class Architecture:
    """What an engine must know of a checkpoint beside its weights."""

    codebooks: int
    """Rows of codes in a step; with two channels, left and right in turn."""
    channels: int
    vocabulary: int
    pad: int
    """The code that stands where there is none, at a song's edges."""
    layers: int
    heads: int
    width: int
    positions: int
    """Longest sequence that the position embeddings were made for."""
    sample_rate: int
    hop: int
    """Samples of a frame: 640 at 32 kHz, so 50 frames a second."""
    upsampling: tuple[int, ...]
    kernel: int
    """Of EnCodec's first and last convolution."""
    residual_kernel: int
    residual_layers: int
    dilation_growth: int
    lstm_layers: int
    codec_width: int
    distance_buckets: int
    furthest_distance: int

    @classmethod
    def of(cls, config: dict[str, Any]) -> Self:
        """The shape that a ``config.json`` tells, defaults filled in. Raises `ModelError` for what is not supported."""
        decoder, codec, text = config["decoder"], config["audio_encoder"], config["text_encoder"]
        if (kind := text["model_type"]) != "t5":
            raise ModelError(f"not a checkpoint that this engine knows: its text encoder is a {kind!r} model, not 't5'")
        try:
            shape = cls(
                codebooks=decoder["num_codebooks"],
                channels=decoder["audio_channels"],
                vocabulary=decoder["vocab_size"],
                pad=decoder["pad_token_id"],
                layers=decoder["num_hidden_layers"],
                heads=decoder["num_attention_heads"],
                width=decoder["hidden_size"],
                positions=decoder["max_position_embeddings"],
                sample_rate=codec["sampling_rate"],
                hop=math.prod(codec["upsampling_ratios"]),
                upsampling=tuple(codec["upsampling_ratios"]),
                kernel=max(codec["kernel_size"], codec["last_kernel_size"]),
                residual_kernel=codec["residual_kernel_size"],
                residual_layers=codec["num_residual_layers"],
                dilation_growth=codec["dilation_growth_rate"],
                lstm_layers=codec["num_lstm_layers"],
                codec_width=codec["num_filters"] * 2 ** len(codec["upsampling_ratios"]),
                distance_buckets=text["relative_attention_num_buckets"],
                furthest_distance=text["relative_attention_max_distance"],
            )
            fixed = {
                "audio_encoder.normalize": codec["normalize"],
                "audio_encoder.chunk_length_s": codec["chunk_length_s"],
                "audio_encoder.use_causal_conv": codec["use_causal_conv"],
                "audio_encoder.norm_type": codec["norm_type"] != "weight_norm" and codec["norm_type"],
                "decoder.activation_function": decoder["activation_function"] != "gelu"
                and decoder["activation_function"],
                "decoder.scale_embedding": decoder["scale_embedding"],
                "text_encoder.feed_forward_proj": text["feed_forward_proj"] != "relu" and text["feed_forward_proj"],
            }
        except (KeyError, TypeError) as error:
            raise ModelError(f"not a checkpoint that this engine knows: config.json has no usable {error}") from None
        for name, value in fixed.items():
            if value:
                raise ModelError(f"not a checkpoint that this engine knows: {name} is {value!r}")
        for field, (least, most) in _RANGES.items():
            values = getattr(shape, field)
            for value in values if isinstance(values, tuple) else (values,):
                if not isinstance(value, int) or not least <= value <= most:
                    raise ModelError(
                        f"not a checkpoint that this engine knows: {field} is {value}, not {least} to {most}"
                    )
        if shape.width % shape.heads or shape.codebooks % shape.channels:
            raise ModelError(
                "not a checkpoint that this engine knows: heads or channels do not divide what they should"
            )
        return shape

    @property
    def delays(self) -> npt.NDArray[np.int64]:
        """Steps by which each codebook comes after the first, int64 ``[codebooks]``."""
        return np.arange(self.codebooks) // self.channels

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sample_rate / self.hop

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises `TypeError` or `ValueError` for anything else than what `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "upsampling": tuple(fields["upsampling"])})
