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
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from melodify_lib.music.musicgen.checkpoint import Weights

    Scales = Mapping[str, npt.NDArray[np.float32]]

CACHES = ("self_key", "self_value", "text_key", "text_value")
"""What each layer keeps: ``[rows, heads, length, head_dim]`` each."""
BLOCK = 128
"""Weights that share a scale. 32 is more exact under heavy tails, and a tenth slower."""
PREFIX = "decoder.model.decoder"


def decoder_graph(weights: Weights, config: dict[str, Any], bits: int, scales: Scales | None) -> Graph:
    """Weights of 32 or 8 `bits`; caches in 8-bit integers under `scales`, in floats without.

    `scales` maps each of `CACHES` to ``[layers, heads, head_dim]``: the value that the integer 1 stands for.
    """
    graph = Graph()
    layers, width, books = config["num_hidden_layers"], config["hidden_size"], config["num_codebooks"]
    graph.input("tokens", np.int64, ["B", "S", books])
    graph.input("positions", np.int64, ["B", "S"])
    graph.input("last", np.int32, ["B"])  # each row's last position
    graph.input("self_length", np.int32, [])  # of the longest row
    graph.input("text_last", np.int32, ["R"])  # each text's last position; R = B * S
    graph.input("text_length", np.int32, [])
    graph.input("text_ends", np.float32, ["R", 2 * layers, width])  # key and value of each text's last position
    ends = [f"text_end_{index}" for index in range(2 * layers)]
    graph.ops("Split", "text_ends", outputs=ends, axis=1, num_outputs=2 * layers)
    writer = _Writer(graph, weights, config, bits, scales)
    update, x = writer.embedding("tokens"), writer.positions("positions")
    for layer in range(layers):
        update, x = writer.layer(layer, update, x, ends[2 * layer : 2 * layer + 2])
    y, _ = writer.norm(update, x, "layer_norm")
    y = graph.op("Gather", y, graph.weight(np.array(-1)), axis=1)
    heads = np.concatenate([weights[f"decoder.lm_heads.{book}.weight"] for book in range(books)])
    logits = graph.op("Reshape", graph.linear(y, heads, bits, BLOCK), graph.ints(0, books, -1))
    graph.output("logits", logits, np.float32, ["B", books, len(heads) // books])
    return graph


class _Writer:
    """Writes the parts of the decoder into a graph."""

    def __init__(
        self, graph: Graph, weights: Weights, config: dict[str, Any], bits: int, scales: Scales | None
    ) -> None:
        self._graph, self._weights, self._bits, self._scales = graph, weights, bits, scales
        self._config, self._width, self._heads = config, config["hidden_size"], config["num_attention_heads"]

    def embedding(self, tokens: str) -> str:
        """The sum of each codebook's embedding."""
        graph, books = self._graph, self._config["num_codebooks"]
        tables = [self._weights[f"{PREFIX}.embed_tokens.{book}.weight"] for book in range(books)]
        first = np.arange(books) * len(tables[0])
        # In 16 bits: rows of the table are looked up, not multiplied, and take half the memory.
        table = graph.weight(np.concatenate(tables).astype(np.float32 if self._bits == 32 else np.float16))
        x = graph.op("Gather", table, graph.op("Add", tokens, graph.weight(first)))
        return graph.op("ReduceSum", graph.op("Cast", x, to=1), graph.ints(2), keepdims=0)

    def positions(self, positions: str) -> str:
        """Where each position is."""
        table = sinusoids(self._config["max_position_embeddings"], self._width)
        return self._graph.op("Gather", self._graph.weight(table), positions)

    def layer(self, layer: int, update: str, x: str, ends: Sequence[str]) -> tuple[str, str]:
        """The layer's own update, and what it is to be added to: ``x + update``, and so on."""
        graph, name = self._graph, f"layers.{layer}"
        y, x = self.norm(update, x, f"{name}.self_attn_layer_norm")
        y = self._linear(y, *(f"{name}.self_attn.{part}_proj" for part in "qkv"))
        y = self._attend(layer, CACHES[:2], (y, "", "", "last", "self_length"), "B")
        y, x = self.norm(self._linear(y, f"{name}.self_attn.out_proj"), x, f"{name}.encoder_attn_layer_norm")
        each = graph.ints(-1, 1, self._width)  # a row for each position
        y = graph.op("Reshape", self._linear(y, f"{name}.encoder_attn.q_proj"), each)
        y = self._attend(layer, CACHES[2:], (y, *ends, "text_last", "text_length"), "R")
        y = graph.op("Reshape", y, graph.op("Shape", x))
        y, x = self.norm(self._linear(y, f"{name}.encoder_attn.out_proj"), x, f"{name}.final_layer_norm")
        return self._linear(graph.op("Gelu", self._linear(y, f"{name}.fc1")), f"{name}.fc2"), x

    def norm(self, update: str, x: str, name: str) -> tuple[str, str]:
        """``LayerNorm(update + x)``, and the sum. Faster apart than as one SkipLayerNormalization."""
        total = self._graph.op("Add", update, x)
        parameters = [self._graph.weight(self._weights[f"{PREFIX}.{name}.{part}"]) for part in ("weight", "bias")]
        return self._graph.op("LayerNormalization", total, *parameters, axis=-1, epsilon=1e-5), total

    def _linear(self, x: str, *names: str) -> str:
        weight = np.concatenate([self._weights[f"{PREFIX}.{name}.weight"] for name in names])
        return self._graph.linear(x, weight, self._bits, BLOCK)

    def _attend(self, layer: int, caches: Sequence[str], inputs: Sequence[str], rows: str) -> str:
        """Attention over the two caches, which take in a new key and value.

        `inputs`: query, key, value (or all three in the first), each row's last position, and the longest row.
        """
        graph, names = self._graph, [f"{cache}_{layer}" for cache in caches]
        head = self._width // self._heads
        kind: type = np.float32
        optional: list[str] = []
        attributes: dict[str, Any] = {}
        if self._scales is not None:
            kind = np.int8
            optional = [""] * 5 + [graph.weight(self._scales[cache][layer][None, :, None]) for cache in caches]
            attributes = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
        for name in names:
            graph.input(name, kind, [rows, self._heads, f"length_{name}", head])
            graph.output(f"{name}_next", f"{name}_next", kind, [rows, self._heads, f"length_{name}", head])
        query, key, value, last, length = inputs
        output = f"attention_{names[0]}"
        graph.ops(
            "GroupQueryAttention",
            *(query, key, value, *names, last, length, *optional),
            outputs=[output, *(f"{name}_next" for name in names)],
            domain=MICROSOFT,
            num_heads=self._heads,
            kv_num_heads=self._heads,
            scale=1 / math.sqrt(head),
            **attributes,
        )
        return output


def sinusoids(length: int, width: int) -> npt.NDArray[np.float32]:
    """Position embeddings ``[length, width]``: cosines, then sines, as transformers' Musicgen has them."""
    half = width // 2
    rates = np.exp(np.arange(half, dtype=np.float32) * np.float32(-math.log(10000) / (half - 1)))
    angles = np.arange(length, dtype=np.float32)[:, None] * rates
    return np.concatenate([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
