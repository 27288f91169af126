"""From the decoder's logits to the next codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]


class Sampling(BaseModel):
    """How the next codes are chosen. The defaults are those of MusicGen's authors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    guidance: Annotated[float, Field(ge=1, le=20, description="weight of the prompt; 1 is none")] = 3.0
    temperature: Annotated[float, Field(ge=0, le=5, description="0 takes the likeliest code")] = 1.0
    top_k: Annotated[int, Field(ge=0, description="choose among so many; 0 among all")] = 250
    top_p: Annotated[float, Field(ge=0, le=1, description="among the likeliest that make up so much; 0, 1: all")] = 0.0

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest code is taken; so cold that nothing else would be, too."""
        return self.temperature < 1e-4


def guided(logits: Floats, guidance: float) -> Floats:
    """Classifier-free guidance over ``[2, …]``, with the prompt and without (Ho & Salimans 2022)."""
    with_prompt, without = np.asarray(logits)
    if guidance == 1:
        return np.asarray(with_prompt)
    return np.asarray(without + np.float32(guidance) * (with_prompt - without))


def choose(logits: Floats, sampling: Sampling, noise: Floats | None) -> npt.NDArray[np.int64]:
    """One code for each row of ``[codebooks, vocabulary]``.

    `noise` is exponential, one draw a code: the code with the largest probability over noise is a draw from the
    distribution, and what ``torch.multinomial`` takes. None with temperature 0.
    """
    if noise is None or sampling.is_greedy:
        return np.asarray(logits.argmax(-1))
    logits = logits / np.float32(sampling.temperature)
    kept = None
    if 0 < sampling.top_k < logits.shape[-1]:
        kept = np.argpartition(logits, -sampling.top_k, axis=-1)[:, -sampling.top_k :]
        logits, noise = np.take_along_axis(logits, kept, -1), np.take_along_axis(noise, kept, -1)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    if 0 < sampling.top_p < 1:
        weights = _nucleus(weights, sampling.top_p)
    best = (weights / np.maximum(noise, np.finfo(np.float32).tiny)).argmax(-1)  # a draw can be 0
    return best if kept is None else np.take_along_axis(kept, best[:, None], -1)[:, 0]


def _nucleus(weights: Floats, top_p: float) -> Floats:
    """Zero for all but the likeliest that together make up `top_p` (Holtzman et al. 2020)."""
    order = np.argsort(-weights, axis=-1)
    ordered = np.take_along_axis(weights, order, -1)
    before = np.cumsum(ordered, -1) - ordered
    beyond = before >= top_p * ordered.sum(-1, keepdims=True)
    beyond[:, 0] = False  # the likeliest stays
    ordered[beyond] = 0
    kept = np.empty_like(weights)
    np.put_along_axis(kept, order, ordered, -1)
    return kept
