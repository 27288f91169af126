"""T5's encoder and what the decoder makes of it: a prompt's tokens → each layer's keys and values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from melodify_lib.music.musicgen.onnx.decoder import PREFIX
from melodify_lib.music.musicgen.onnx.graph import Graph

if TYPE_CHECKING:
    import numpy.typing as npt

    from melodify_lib.music.musicgen.checkpoint import Weights

BLOCK = 32
"""Weights that share a scale: few, as T5's activations have heavy tails, and it runs once a song."""


def text_graph(weights: Weights, text: dict[str, Any], decoder: dict[str, Any], bits: int) -> Graph:
    """``tokens [1, S], distances [S, S] → keys_values [2 * layers, S, width]``, keys and values in turn.

    `distances` is `distance_buckets(S, …)`. Weights of 32 or 8 `bits`.
    """
    graph = Graph()
    graph.input("tokens", np.int64, [1, "S"])
    graph.input("distances", np.int64, ["S", "S"])
    heads, head = text["num_heads"], text["d_kv"]
    name = "text_encoder.encoder.block.{}.layer.{}"

    def linear(x: str, *names: str) -> str:
        weight = np.concatenate([weights[f"{name}.weight"] for name in names])
        return graph.linear(x, weight, bits, BLOCK)

    def norm(x: str, name: str) -> str:
        scale = graph.weight(weights[f"{name}.weight"])
        return graph.op("SimplifiedLayerNormalization", x, scale, axis=-1, epsilon=text["layer_norm_epsilon"])

    names = ("text_encoder.shared.weight", "text_encoder.encoder.embed_tokens.weight")  # the same, by either name
    table = weights[next((name for name in names if name in weights), names[0])].astype(
        np.float32 if bits == 32 else np.float16
    )
    x = graph.op("Cast", graph.op("Gather", graph.weight(table), "tokens"), to=1)
    bias = graph.weight(weights[f"{name.format(0, 0)}.SelfAttention.relative_attention_bias.weight"])
    bias = graph.op("Transpose", graph.op("Gather", bias, "distances"), perm=[2, 0, 1])
    split, joined = graph.ints(1, -1, heads, head), graph.ints(1, -1, heads * head)
    for block in range(text["num_layers"]):
        layer = name.format(block, 0)
        y = norm(x, f"{layer}.layer_norm")
        q, k, v = (graph.op("Reshape", linear(y, f"{layer}.SelfAttention.{part}"), split) for part in "qkv")
        q, v = (graph.op("Transpose", part, perm=[0, 2, 1, 3]) for part in (q, v))
        y = graph.op("Add", graph.op("MatMul", q, graph.op("Transpose", k, perm=[0, 2, 3, 1])), bias)
        y = graph.op("MatMul", graph.op("Softmax", y, axis=-1), v)
        y = graph.op("Reshape", graph.op("Transpose", y, perm=[0, 2, 1, 3]), joined)
        x = graph.op("Add", x, linear(y, f"{layer}.SelfAttention.o"))
        layer = name.format(block, 1)
        y = graph.op("Relu", linear(norm(x, f"{layer}.layer_norm"), f"{layer}.DenseReluDense.wi"))
        x = graph.op("Add", x, linear(y, f"{layer}.DenseReluDense.wo"))
    x = norm(x, "text_encoder.encoder.final_layer_norm")
    if "enc_to_dec_proj.weight" in weights:
        x = graph.op("Add", linear(x, "enc_to_dec_proj"), graph.weight(weights["enc_to_dec_proj.bias"]))
    parts = [
        linear(x, f"{PREFIX}.layers.{layer}.encoder_attn.{part}_proj")
        for layer in range(decoder["num_hidden_layers"])
        for part in "kv"
    ]
    graph.output(
        "keys_values", graph.op("Concat", *parts, axis=0), np.float32, [len(parts), "S", decoder["hidden_size"]]
    )
    return graph


def distance_buckets(length: int, buckets: int, furthest: int) -> npt.NDArray[np.int64]:
    """T5's bucket of the distance from each position to each other, int64 ``[length, length]``.

    Source: `T5Attention._relative_position_bucket` in transformers, bidirectional.
    """
    distance = np.arange(length)[None] - np.arange(length)[:, None]
    half = buckets // 2
    near = half // 2
    size = np.abs(distance)
    octaves = np.log(np.maximum(size, 1).astype(np.float32) / near) / np.float32(np.log(furthest / near))
    far = np.minimum(near + (octaves * (half - near)).astype(np.int64), half - 1)
    return np.asarray(np.where(distance > 0, half, 0) + np.where(size < near, size, far))
