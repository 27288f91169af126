"""MusicGen on a CPU through ONNX Runtime: 8-bit weights, an 8-bit cache, graphs that are made from the checkpoint.

`prepare` makes the graphs once per checkpoint; `OnnxBackend` runs them, without torch.
"""

from melodify_lib.music.musicgen.onnx.backend import OnnxBackend
from melodify_lib.music.musicgen.onnx.recipe import prepare

__all__ = ["OnnxBackend", "prepare"]
