"""The peer of `bench/musicgen.py`: MusicGen's decoder in OpenVINO, with weights in 8-bit integers.

This is the form in which OpenVINO's own tools bring a language model to a CPU: a stateful model, whose attention
it fuses with the cache, and whose weights `nncf` has compressed.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

MODEL = "openvino_int8.xml"
PROPERTIES = {"PERFORMANCE_HINT": "LATENCY"}
TUNED = PROPERTIES | {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "128"}
"""The fastest that was found for one song: a tenth faster than as it comes, which is bfloat16 and groups of 32."""


class OpenVinoDecoder:
    """Steps of rows that all stand at one position."""

    def __init__(self, folder: Path, threads: int, *, is_tuned: bool) -> None:
        import openvino

        properties = (TUNED if is_tuned else PROPERTIES) | {"INFERENCE_NUM_THREADS": threads}
        model = openvino.Core().compile_model(folder / MODEL, "CPU", properties)
        self._request, self._tensor = model.create_infer_request(), openvino.Tensor
        self._layers = sum(port.get_any_name().startswith("text_key_") for port in model.inputs)
        self._books = model.input("tokens").partial_shape[1].get_length()
        self._heads, self._head = (model.input("text_key_0").partial_shape[axis].get_length() for axis in (1, 2))

    def fill(self, rows: int, cached: int, text: int) -> None:
        """Begin with `rows` rows that have `cached` positions behind them and texts of `text` tokens."""
        random = np.random.default_rng(0)
        past, prompt = (
            random.standard_normal((rows, self._heads, size, self._head), np.float32) for size in (cached, text)
        )
        self._inputs: dict[str, Any] = {
            "tokens": np.zeros((rows, self._books), np.int64),
            "position": np.array([cached]),
            "beam_idx": np.arange(rows, dtype=np.int32),
            "text_mask": np.zeros((rows, 1, 1, text), np.float32),
        }
        for layer in range(self._layers):
            self._inputs[f"text_key_{layer}"] = prompt.swapaxes(2, 3).copy()
            self._inputs[f"text_value_{layer}"] = prompt.copy()
        for state in self._request.query_state():
            state.state = self._tensor(past)

    def step(self) -> np.ndarray:
        """Logits ``[rows, codebooks, vocabulary]``."""
        self._request.infer(self._inputs, share_inputs=True)
        return self._request.get_output_tensor(0).data


def export(model: Any, folder: Path) -> None:
    """Write transformers' `model` into `folder`: half a minute and 3 GB for musicgen-small."""
    import nncf
    import openvino
    from openvino._offline_transformations import apply_make_stateful_transformation

    nncf.set_log_level(logging.ERROR)
    decoder = model.decoder
    config = decoder.config
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    head, books = config.hidden_size // heads, config.num_codebooks
    shapes: dict[str, list[int]] = {
        "tokens": [-1, books],
        "position": [1],
        "beam_idx": [-1],
        "text_mask": [-1, 1, 1, -1],
    }
    for layer in range(layers):
        shapes |= {f"text_key_{layer}": [-1, heads, head, -1], f"text_value_{layer}": [-1, heads, -1, head]}
    pasts = [f"past_{index}" for index in range(2 * layers)]
    shapes |= {past: [-1, heads, -1, head] for past in pasts}
    outputs = ["logits", *(f"present_{index}" for index in range(2 * layers))]
    with torch.inference_mode():
        model = openvino.convert_model(_Step(decoder), example_input=tuple(map(_example, shapes, shapes.values())))
    for names, ports in ((shapes, model.inputs), (outputs, model.outputs)):
        for name, port in zip(names, ports, strict=True):
            port.get_tensor().set_names({name})
    model.reshape({port: openvino.PartialShape(shapes[port.get_any_name()]) for port in model.inputs})
    apply_make_stateful_transformation(model, dict(zip(pasts, outputs[1:], strict=True)))
    _begin_empty(model, heads, head)
    model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    openvino.save_model(model, folder / MODEL, compress_to_fp16=False)


def _example(name: str, shape: list[int]) -> torch.Tensor:
    """Something to trace with: two rows, three tokens of text, three positions."""
    sizes = [2 if axis == 0 else 3 for axis in range(len(shape))]
    sizes = [free if size == -1 else size for size, free in zip(shape, sizes, strict=True)]
    kinds = {"tokens": torch.int64, "position": torch.int64, "beam_idx": torch.int32}
    return torch.zeros(sizes, dtype=kinds.get(name, torch.float32))


def _begin_empty(model: Any, heads: int, head: int) -> None:
    """Let each state begin with no positions, and as many rows as there are tokens."""
    from openvino import opset13 as op

    tokens = model.input("tokens").get_node()
    rows = op.gather(op.shape_of(tokens), op.constant([0], dtype=np.int64), op.constant(0, dtype=np.int64))
    rest = [op.constant(np.array([size])) for size in (heads, 0, head)]
    for node in model.get_ops():
        if node.get_type_name() == "ReadValue":
            node.set_arguments([op.broadcast(op.constant(np.float32(0)), op.concat([rows, *rest], axis=0))])
    model.validate_nodes_and_infer_types()


class _Step(nn.Module):
    """One step over transformers' weights; ``beam_idx`` is what OpenVINO knows a cache by."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        decoder, config = model.model.decoder, model.config
        self.heads, self.layers, self.norm = config.num_attention_heads, decoder.layers, decoder.layer_norm
        self.table = nn.Parameter(torch.cat([table.weight for table in decoder.embed_tokens]))
        self.starts = torch.arange(config.num_codebooks) * len(decoder.embed_tokens[0].weight)
        self.sinusoids = decoder.embed_positions.weights
        own = [layer.self_attn for layer in decoder.layers]
        self.qkv = nn.ModuleList(_joined([one.q_proj, one.k_proj, one.v_proj]) for one in own)
        self.lm_heads = _joined(model.lm_heads)
        self.books = config.num_codebooks

    def forward(
        self,
        tokens: torch.Tensor,
        position: torch.Tensor,
        beam_idx: torch.Tensor,
        text_mask: torch.Tensor,
        *caches: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Tokens ``[rows, codebooks]`` → logits ``[rows, codebooks, vocabulary]`` and the caches, longer by one."""
        texts, pasts = caches[: 2 * len(self.layers)], caches[2 * len(self.layers) :]
        x = F.embedding(tokens + self.starts, self.table).sum(1, keepdim=True) + F.embedding(position, self.sinusoids)
        presents: list[torch.Tensor] = []
        for index, (layer, qkv) in enumerate(zip(self.layers, self.qkv, strict=True)):
            q, *new = map(self._split, qkv(layer.self_attn_layer_norm(x)).chunk(3, -1))
            old = (torch.index_select(past, 0, beam_idx) for past in pasts[2 * index : 2 * index + 2])
            k, v = (torch.cat(both, 2) for both in zip(old, new, strict=True))
            presents += [k, v]
            x = x + layer.self_attn.out_proj(self._join(F.scaled_dot_product_attention(q, k, v)))
            q = self._split(layer.encoder_attn.q_proj(layer.encoder_attn_layer_norm(x)) * q.shape[-1] ** -0.5)
            k, v = texts[2 * index : 2 * index + 2]
            x = x + layer.encoder_attn.out_proj(self._join(torch.softmax(q @ k + text_mask, -1) @ v))
            x = x + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(x))))
        logits = self.lm_heads(self.norm(x)).unflatten(-1, (self.books, -1))[:, 0]
        return logits, *presents

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _join(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2).flatten(2)


def _joined(layers: Any) -> nn.Linear:
    weight = torch.cat([layer.weight for layer in layers])
    joined = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    joined.weight = nn.Parameter(weight)
    return joined
