"""EnCodec's decoder as two graphs: codes → features (convolution and LSTM), features → samples (upsampling).

They are apart because the first has a memory, the LSTM's state, and the second only looks a few frames
to either side; so a song can be decoded as it comes, and sounds as if it had been decoded whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from melodify_lib.music.musicgen.onnx.graph import Graph

if TYPE_CHECKING:
    import numpy.typing as npt

    from melodify_lib.music.musicgen.checkpoint import Weights


def features_graph(weights: Weights, config: dict[str, Any]) -> Graph:
    """``codes [K, 1, T], start, end, h, c → features [1, D, end - start], h, c``; frames outside of it are context."""
    graph = Graph()
    codebooks = weights.count("audio_encoder.quantizer.layers.", ".codebook.embed")
    layers = config["num_lstm_layers"]
    codes = graph.input("codes", np.int64, [codebooks, "T"])
    start, end = graph.input("start", np.int64, [1]), graph.input("end", np.int64, [1])
    embedded = []
    for book in range(codebooks):
        table = weights[f"audio_encoder.quantizer.layers.{book}.codebook.embed"]
        index = graph.op("Gather", codes, graph.weight(np.array(book)), axis=0)
        embedded.append(graph.op("Gather", graph.weight(table), index))
    x = graph.op("Sum", *embedded)  # [T, codebook_dim]
    x = graph.op("Unsqueeze", graph.op("Transpose", x, perm=[1, 0]), graph.ints(0))
    x = _conv(graph, x, weights, "audio_encoder.decoder.layers.0", config)
    x = graph.op("Slice", x, start, end, graph.ints(2))
    x = graph.op("Transpose", x, perm=[2, 0, 1])  # [T, 1, D]
    y, width = x, weights["audio_encoder.decoder.layers.1.lstm.weight_hh_l0"].shape[1]
    states: dict[str, list[str]] = {"h": [], "c": []}
    for kind in states:
        graph.input(kind, np.float32, [layers, 1, width])
    for layer in range(layers):
        name = "audio_encoder.decoder.layers.1.lstm.{}_l" + str(layer)
        first = [graph.op("Slice", kind, graph.ints(layer), graph.ints(layer + 1), graph.ints(0)) for kind in states]
        w, r = (_gates(weights[name.format(part)])[None] for part in ("weight_ih", "weight_hh"))
        b = np.concatenate([_gates(weights[name.format(part)]) for part in ("bias_ih", "bias_hh")])[None]
        outputs = [f"lstm_{layer}_{part}" for part in ("y", *states)]
        graph.ops("LSTM", y, *map(graph.weight, (w, r, b)), "", *first, outputs=outputs, hidden_size=width)
        y = graph.op("Squeeze", outputs[0], graph.ints(1))
        for state, output in zip(states.values(), outputs[1:], strict=True):
            state.append(output)
    y = graph.op("Transpose", graph.op("Add", y, x), perm=[1, 2, 0])
    graph.output("features", y, np.float32, [1, width, "N"])
    for part, parts in states.items():
        graph.output(f"{part}_next", graph.op("Concat", *parts, axis=0), np.float32, [layers, 1, width])
    return graph


def samples_graph(weights: Weights, config: dict[str, Any]) -> Graph:
    """``features [1, D, T] → samples [1, 1, T * hop]``."""
    graph = Graph()
    width = weights["audio_encoder.decoder.layers.1.lstm.weight_hh_l0"].shape[1]
    x, index = graph.input("features", np.float32, [1, width, "T"]), 2
    for ratio in config["upsampling_ratios"]:
        x = graph.op("Elu", x)
        x = _upsample(graph, x, weights, f"audio_encoder.decoder.layers.{index + 1}", ratio)
        index += 2
        for residual in range(config["num_residual_layers"]):
            x = _residual(graph, x, weights, f"audio_encoder.decoder.layers.{index}", residual, config)
            index += 1
    x = graph.op("Elu", x)
    x = _conv(graph, x, weights, f"audio_encoder.decoder.layers.{index + 1}", config)
    graph.output("samples", x, np.float32, [1, 1, "N"])
    return graph


def _residual(graph: Graph, x: str, weights: Weights, name: str, depth: int, config: dict[str, Any]) -> str:
    y = _conv(graph, graph.op("Elu", x), weights, f"{name}.block.1", config, config["dilation_growth_rate"] ** depth)
    y = _conv(graph, graph.op("Elu", y), weights, f"{name}.block.3", config)
    if config["use_conv_shortcut"]:
        x = _conv(graph, x, weights, f"{name}.shortcut", config)
    return graph.op("Add", x, y)


def _conv(graph: Graph, x: str, weights: Weights, name: str, config: dict[str, Any], dilation: int = 1) -> str:
    weight = weights.weight_norm(f"{name}.conv")
    total = (weight.shape[-1] - 1) * dilation
    if total:
        right = total // 2
        x = graph.op("Pad", x, graph.ints(0, 0, total - right, 0, 0, right), mode=config["pad_mode"])
    return graph.op("Conv", x, graph.weight(weight), graph.weight(weights[f"{name}.conv.bias"]), dilations=[dilation])


def _upsample(graph: Graph, x: str, weights: Weights, name: str, ratio: int) -> str:
    weight = weights.weight_norm(f"{name}.conv")
    total = weight.shape[-1] - ratio
    right = total // 2
    bias = graph.weight(weights[f"{name}.conv.bias"])
    return graph.op("ConvTranspose", x, graph.weight(weight), bias, strides=[ratio], pads=[total - right, right])


def _gates(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """torch keeps an LSTM's gates in the order i f g o, ONNX in the order i o f c."""
    i, f, g, o = np.split(array, 4)
    return np.concatenate([i, o, f, g])
