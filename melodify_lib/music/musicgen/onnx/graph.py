"""Writing an ONNX graph node by node, with its weights in one file beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from melodify_lib.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

OPSET = 20
"""The first with ``Gelu``."""
MICROSOFT = "com.microsoft"
"""Domain of the operators that only ONNX Runtime has."""
_EXTERNAL_BYTES = 1024


class Graph:
    """A graph in the making: each method adds to it and returns the name of the value that it gives."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._weights: list[Any] = []
        self._count = 0

    def input(self, name: str, dtype: npt.DTypeLike, shape: Sequence[int | str]) -> str:
        """An input; a dimension that has a name may have any size."""
        self._inputs.append(_value(name, dtype, shape))
        return name

    def output(self, name: str, value: str, dtype: npt.DTypeLike, shape: Sequence[int | str]) -> None:
        """Make `value` an output of this `name`."""
        if value != name:
            self._nodes.append(_node("Identity", [value], [name]))
        self._outputs.append(_value(name, dtype, shape))

    def weight(self, array: npt.NDArray[Any], name: str | None = None) -> str:
        """A constant."""
        from onnx import numpy_helper

        name = name or self._name("weight")
        self._weights.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def ints(self, *values: int) -> str:
        """A constant shape, or a list of axes."""
        return self.weight(np.array(values, np.int64))

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """One node with one output that matters. An input that is left out is ``""``."""
        name = self._name(kind)
        self._nodes.append(_node(kind, inputs, [name], domain, **attributes))
        return name

    def ops(self, kind: str, *inputs: str, outputs: Sequence[str], domain: str = "", **attributes: Any) -> None:
        """One node with several outputs, named by the caller; one that is left out is ``""``."""
        self._nodes.append(_node(kind, inputs, outputs, domain, **attributes))

    def linear(self, x: str, weight: npt.NDArray[np.float32], bits: int, block: int) -> str:
        """``x @ weight.T`` for a weight ``[out, in]``: as it is with 32 `bits`, in 8-bit integers with 8.

        With 8, `block` weights share a scale, and as many of `x`, which is rounded too: products of integers
        are 25 times faster than those of floats here.
        """
        if bits == 32:
            return self.op("MatMul", x, self.weight(weight.T))
        quantized, scales = quantize(weight, block)
        return self.op(
            "MatMulNBits",
            x,
            self.weight(quantized),
            self.weight(scales),
            domain=MICROSOFT,
            K=weight.shape[1],
            N=weight.shape[0],
            bits=bits,
            block_size=block,
            accuracy_level=4,
        )

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"

    def save(self, path: Path) -> None:
        """Write the graph to `path`, and its weights to ``<path>.data``."""
        import onnx

        opsets = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(MICROSOFT, 1)]
        graph = onnx.helper.make_graph(self._nodes, "melodify", self._inputs, self._outputs, self._weights)
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
        path.with_name(f"{path.name}.data").unlink(missing_ok=True)  # onnx would append to it
        onnx.save_model(
            model,
            path,
            save_as_external_data=True,
            location=f"{path.name}.data",
            size_threshold=_EXTERNAL_BYTES,
        )


def quantize(weight: npt.NDArray[np.float32], block: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """A weight ``[out, in]`` as integers ``[out, blocks, block]`` around 128, and the scale of each block.

    Raises `ModelError` for weights that are not finite.
    """
    rows, columns = weight.shape
    blocks = -(-columns // block)
    padded = np.zeros((rows, blocks * block), np.float32)
    padded[:, :columns] = weight
    padded = padded.reshape(rows, blocks, block)
    if not np.isfinite(padded).all():
        raise ModelError("the checkpoint's weights give no numbers: they are damaged")
    scales = np.maximum(np.abs(padded).max(-1), 1e-12) / 127
    return (np.rint(padded / scales[..., None]) + 128).astype(np.uint8), scales.astype(np.float32)


def _node(kind: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "", **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, list(inputs), list(outputs), domain=domain, **attributes)


def _value(name: str, dtype: npt.DTypeLike, shape: Sequence[int | str]) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape))
