"""One step of MusicGen's decoder as a graph over rows that each have a position of their own.

A row is one sequence: a song has two, with and without its prompt. ``B`` rows of ``S`` positions go in;
``S`` is 1 but for a prompt of known codes, which a single row reads several positions at a time.
Keys and values live in buffers that the caller binds as input and output alike, so nothing is copied.

Cross-attention is the same operator as self-attention, over the text's keys and values with the last one
handed in anew: so each row has a text of its own length, and none depends on its neighbours' padding.
For it, each position is a row.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from melodify_lib.music.musicgen.onnx.graph import MICROSOFT, Graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from melodify_lib.music.musicgen.checkpoint import Weights

CACHES = ("self_key", "self_value", "text_key", "text_value")
"""What each layer keeps: ``[rows, heads, length, head_dim]`` each."""
BLOCK = 128
"""Weights that share a scale. 32 is more exact under heavy tails, and a tenth slower."""
PREFIX = "decoder.model.decoder"


def decoder_graph(
    weights: Weights,
    config: dict[str, Any],
    bits: int,
    scales: dict[str, npt.NDArray[np.float32]] | None,
) -> Graph:
    """Weights of 32 or 8 `bits`; caches in 8-bit integers under `scales`, in floats without.

    `scales` maps each of `CACHES` to ``[layers, heads, head_dim]``: the value that the integer 1 stands for.
    """
    graph = Graph()
    layers, heads, width = config["num_hidden_layers"], config["num_attention_heads"], config["hidden_size"]
    books, head = config["num_codebooks"], width // heads
    graph.input("tokens", np.int64, ["B", "S", books])
    graph.input("positions", np.int64, ["B", "S"])
    graph.input("last", np.int32, ["B"])  # each row's last position
    graph.input("self_length", np.int32, [])  # of the longest row
    graph.input("text_last", np.int32, ["R"])  # each text's last position; R = B * S
    graph.input("text_length", np.int32, [])
    graph.input("text_ends", np.float32, [2 * layers, "R", width])  # key and value of each text's last position
    ends = [f"text_end_{index}" for index in range(2 * layers)]
    if layers:
        graph.ops("Split", "text_ends", outputs=ends, axis=0, num_outputs=2 * layers)
    kind = np.float32 if scales is None else np.int8

    def attend(layer: int, caches: Sequence[str], inputs: Sequence[str], rows: str) -> str:
        extra: dict[str, Any] = {}
        names = [f"{cache}_{layer}" for cache in caches]
        for name in names:
            graph.input(name, kind, [rows, heads, f"length_{name}", head])
        optional: list[str] = []
        if scales is not None:
            optional = [""] * 5 + [graph.weight(scales[cache][layer][None, :, None]) for cache in caches]
            extra = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
        query, key, value, last, length = inputs
        output = f"attention_{names[0]}"
        graph.ops(
            "GroupQueryAttention",
            *(query, key, value, *names, last, length, *optional),
            outputs=[output, *(f"{name}_next" for name in names)],
            domain=MICROSOFT,
            num_heads=heads,
            kv_num_heads=heads,
            scale=1 / math.sqrt(head),
            **extra,
        )
        for name in names:
            graph.output(f"{name}_next", f"{name}_next", kind, [rows, heads, f"length_{name}", head])
        return output

    def linear(x: str, *names: str) -> str:
        return graph.linear(x, np.concatenate([weights[f"{PREFIX}.{name}.weight"] for name in names]), bits, BLOCK)

    def norm(x: str, residual: str, name: str) -> tuple[str, str]:
        """``LayerNorm(x + residual)`` and the sum."""
        outputs = [f"{name}_out", f"{name}_sum"]
        parameters = [graph.weight(weights[f"{PREFIX}.{name}.{part}"]) for part in ("weight", "bias")]
        graph.ops(
            "SkipLayerNormalization",
            *(x, residual, *parameters),
            outputs=[outputs[0], "", "", outputs[1]],
            domain=MICROSOFT,
            epsilon=1e-5,
        )
        return outputs[0], outputs[1]

    tables = [weights[f"{PREFIX}.embed_tokens.{book}.weight"] for book in range(books)]
    starts = np.arange(books) * len(tables[0])
    # In 16 bits: the rows of a table are looked up, not multiplied, and take half the memory.
    table = graph.weight(np.concatenate(tables).astype(np.float32 if bits == 32 else np.float16))
    embedded = graph.op("Gather", table, graph.op("Add", "tokens", graph.weight(starts)))
    if bits != 32:
        embedded = graph.op("Cast", embedded, to=1)
    embedded = graph.op("ReduceSum", embedded, graph.ints(2), keepdims=0)
    x = graph.op("Gather", graph.weight(sinusoids(config["max_position_embeddings"], width)), "positions")
    by_position, by_row = graph.ints(-1, 1, width), graph.op("Shape", x)
    update = embedded
    for layer in range(layers):
        name = f"layers.{layer}"
        y, x = norm(update, x, f"{name}.self_attn_layer_norm")
        y = linear(y, *(f"{name}.self_attn.{part}_proj" for part in "qkv"))
        y = attend(layer, CACHES[:2], (y, "", "", "last", "self_length"), "B")
        update = linear(y, f"{name}.self_attn.out_proj")
        y, x = norm(update, x, f"{name}.encoder_attn_layer_norm")
        y = graph.op("Reshape", linear(y, f"{name}.encoder_attn.q_proj"), by_position)
        key, value = (graph.op("Reshape", ends[2 * layer + part], by_position) for part in range(2))
        y = attend(layer, CACHES[2:], (y, key, value, "text_last", "text_length"), "R")
        update = linear(graph.op("Reshape", y, by_row), f"{name}.encoder_attn.out_proj")
        y, x = norm(update, x, f"{name}.final_layer_norm")
        update = linear(graph.op("Gelu", linear(y, f"{name}.fc1")), f"{name}.fc2")
    y, _ = norm(update, x, "layer_norm")
    y = graph.op("Gather", y, graph.weight(np.int64(-1)), axis=1)
    heads_weight = np.concatenate([weights[f"decoder.lm_heads.{book}.weight"] for book in range(books)])
    logits = graph.op("Reshape", graph.linear(y, heads_weight, bits, BLOCK), graph.ints(0, books, -1))
    graph.output("logits", logits, np.float32, ["B", books, heads_weight.shape[0] // books])
    return graph


def sinusoids(length: int, width: int) -> npt.NDArray[np.float32]:
    """Position embeddings ``[length, width]``: cosines, then sines, as transformers' Musicgen has them."""
    half = width // 2
    rates = np.exp(np.arange(half, dtype=np.float32) * np.float32(-math.log(10000) / (half - 1)))
    angles = np.arange(length, dtype=np.float32)[:, None] * rates
    return np.concatenate([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
