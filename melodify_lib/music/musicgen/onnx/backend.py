"""Running the prepared graphs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from melodify_lib.errors import ModelError
from melodify_lib.music.musicgen.architecture import Architecture
from melodify_lib.music.musicgen.checkpoint import Tokenizer
from melodify_lib.music.musicgen.memory import require
from melodify_lib.music.musicgen.onnx.decoder import CACHES
from melodify_lib.music.musicgen.onnx.text import distance_buckets

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Codes = npt.NDArray[np.int64]

LENGTH_STEP = 256
"""Positions by which the caches grow."""
PREFILL_PIECE = 16
"""Positions of a known prefix that are read at a time."""


class OnnxBackend:
    """A `Backend` over a folder that `prepare` wrote.

    Batch invariant: a song's logits are the same to the bit alone and in company.
    """

    prefill_piece = PREFILL_PIECE

    def __init__(self, folder: Path) -> None:
        """Raises `ModelError` for files that cannot be loaded."""
        import onnxruntime

        try:
            self.shape = Architecture.from_json((folder / "architecture.json").read_text())
            self.scales: dict[str, Floats] | None = None
            if (folder / "scales.npz").exists():
                with np.load(folder / "scales.npz") as scales:
                    self.scales = {cache: scales[cache] for cache in CACHES}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ModelError(f"{folder} is damaged ({error}); remove it, and it is made again") from None
        self._tokenizer = Tokenizer(folder)
        require(sum(path.stat().st_size for path in folder.glob("*.data")), f"the weights in {folder}")
        self._ort = onnxruntime
        # Spinning threads take a third off a step of one song, as a step is 300 short operators; in EnCodec
        # and T5 they only get in the way of the decoder's.
        self._decoder = self._session(folder / "decoder.onnx", spin=True)
        self._text = self._session(folder / "text.onnx", spin=False)
        self._features = self._session(folder / "features.onnx", spin=False)
        self._samples = self._session(folder / "samples.onnx", spin=False)
        self._caches = _Caches(self.shape, np.float32 if self.scales is None else np.int8)
        self._bindings: dict[int, _Binding] = {}

    def _session(self, path: Path, *, spin: bool) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
        try:
            return self._ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common root
            raise ModelError(f"{path} cannot be loaded ({error}); remove {path.parent}, and it is made again") from None

    def tokens(self, prompt: str) -> Codes:
        """A prompt's tokens. Raises `InputError`."""
        return self._tokenizer.encode(prompt)

    def encode(self, tokens: Codes) -> Floats:
        """Keys and values of a prompt, float32 ``[2 * layers, tokens, width]``: each layer's keys, then its values."""
        distances = distance_buckets(len(tokens), self.shape.distance_buckets, self.shape.furthest_distance)
        (keys_values,) = self._text.run(None, {"tokens": tokens[None], "distances": distances})
        return np.asarray(keys_values)

    def reserve(self, songs: int, length: int, text: int) -> None:
        """Make room for `songs` of `length` positions each with prompts of `text` tokens."""
        if self._caches.reserve(2 * songs, -(-length // LENGTH_STEP) * LENGTH_STEP, -(-text // 32) * 32):
            self._bindings.clear()

    def place(self, slot: int, text: Floats) -> None:
        """Give the song in `slot` its prompt, as `encode` returned it."""
        self._caches.place(2 * slot, text, self.scales)

    def move(self, source: int, target: int) -> None:
        """Take the song from one slot to another."""
        self._caches.move(2 * source, 2 * target)

    def step(self, tokens: Codes, positions: Codes) -> Floats:
        """One step of songs in the slots 0, 1, …: tokens ``[songs, codebooks]``, positions ``[songs]``.

        Gives logits, float32 ``[songs, 2, codebooks, vocabulary]``, with the prompt and without; the array is
        overwritten by the next step.
        """
        rows = 2 * len(tokens)
        if rows not in self._bindings:
            caches = {name: cache[:rows] for name, cache in self._caches.arrays.items()}
            self._bindings[rows] = _Binding(self._ort, self._decoder, self.shape, caches, rows, 1, rows)
        binding = self._bindings[rows]
        logits = binding.run(
            np.repeat(tokens, 2, 0)[:, None],
            np.repeat(positions, 2)[:, None],
            self._caches.text_last[:rows],
            self._caches.text_ends[:rows],
        )
        return logits.reshape(len(tokens), 2, *logits.shape[1:])

    def prefill(self, slot: int, tokens: Codes, position: int) -> None:
        """Read known tokens ``[n, codebooks]`` from `position` on; n is at most `prefill_piece`."""
        count = len(tokens)
        positions = np.arange(position, position + count)
        for row in (2 * slot, 2 * slot + 1):  # the operator reads several positions of one row only
            last = self._caches.text_last[row]
            caches = {
                name: cache[row : row + 1]
                if name.startswith("self")
                else np.repeat(cache[row : row + 1, :, : last + 1], count, 0)
                for name, cache in self._caches.arrays.items()
            }
            binding = _Binding(self._ort, self._decoder, self.shape, caches, 1, count, count)
            ends = np.repeat(self._caches.text_ends[row : row + 1], count, 0)
            binding.run(tokens[None], positions[None], np.repeat(last, count), ends)

    def cache_ranges(self) -> dict[str, Floats]:
        """Largest size in each channel of each cache, float32 ``[layers, heads, head_dim]``; of floats only."""
        arrays, layers = self._caches.arrays, range(self.shape.layers)
        return {
            cache: np.stack([np.abs(arrays[f"{cache}_{layer}"]).max((0, 2)) for layer in layers]) for cache in CACHES
        }

    def features(self, codes: Codes, start: int, end: int, state: Any) -> tuple[Floats, Any]:
        if state is None:
            zeros = np.zeros((self.shape.lstm_layers, 1, self.shape.codec_width), np.float32)
            state = (zeros, zeros)
        h, c = state
        features, h, c = self._features.run(
            None, {"codes": codes, "start": np.array([start]), "end": np.array([end]), "h": h, "c": c}
        )
        return features[0], (h, c)

    def samples(self, features: Floats) -> Floats:
        (samples,) = self._samples.run(None, {"features": features[None]})
        return np.asarray(samples[0, 0])


class _Caches:
    """Keys and values of each layer over rows; grows, and never shrinks."""

    def __init__(self, shape: Architecture, kind: type) -> None:
        self._shape, self._kind = shape, kind
        self._rows = self._length = self._text = 0
        self.arrays: dict[str, npt.NDArray[Any]] = {}
        self.text_last = np.zeros(0, np.int32)
        self.text_ends = np.zeros((0, 2 * shape.layers, shape.width), np.float32)

    def reserve(self, rows: int, length: int, text: int) -> bool:
        """Whether anything had to grow."""
        sizes = max(rows, self._rows), max(length, self._length), max(text, self._text)
        if sizes == (self._rows, self._length, self._text):
            return False
        values = 2 * sizes[0] * (sizes[1] + sizes[2]) * self._shape.width * self._shape.layers
        more = values * np.dtype(self._kind).itemsize - sum(array.nbytes for array in self.arrays.values())
        require(more, f"{sizes[0] // 2} songs of {sizes[1]} positions")
        self._rows, self._length, self._text = sizes
        for layer in range(self._shape.layers):
            for cache in CACHES:
                size = self._text if cache.startswith("text") else self._length
                head = self._shape.width // self._shape.heads
                array: npt.NDArray[Any] = np.zeros((self._rows, self._shape.heads, size, head), self._kind)
                if (old := self.arrays.get(f"{cache}_{layer}")) is not None:
                    array[: len(old), :, : old.shape[2]] = old
                self.arrays[f"{cache}_{layer}"] = array
        self.text_last = np.concatenate([self.text_last, np.zeros(self._rows - len(self.text_last), np.int32)])
        ends = np.zeros((self._rows, *self.text_ends.shape[1:]), np.float32)
        ends[: len(self.text_ends)] = self.text_ends
        self.text_ends = ends
        return True

    def place(self, row: int, text: Floats, scales: dict[str, Floats] | None) -> None:
        heads = self._shape.heads
        for layer in range(self._shape.layers):
            for part, cache in enumerate(CACHES[2:]):
                values = text[2 * layer + part]
                values = values.reshape(len(values), heads, -1).transpose(1, 0, 2)
                if scales is not None:
                    values = np.rint(values / scales[cache][layer][:, None]).clip(-128, 127)
                self.arrays[f"{cache}_{layer}"][row, :, : values.shape[1]] = values
        self.text_last[row : row + 2] = text.shape[1] - 1, 0
        self.text_ends[row], self.text_ends[row + 1] = text[:, -1], 0  # without a prompt: one token of zeros

    def move(self, source: int, target: int) -> None:
        rows: list[npt.NDArray[Any]] = [*self.arrays.values(), self.text_last, self.text_ends]
        for array in rows:
            array[target : target + 2] = array[source : source + 2]


class _Binding:
    """The decoder's inputs and outputs for a number of rows, tied to buffers once."""

    def __init__(
        self,
        ort: Any,
        session: Any,
        shape: Architecture,
        caches: dict[str, npt.NDArray[Any]],
        rows: int,
        positions: int,
        texts: int,
    ) -> None:
        self._session, self._io = session, session.io_binding()
        self._inputs: dict[str, npt.NDArray[Any]] = {
            "tokens": np.zeros((rows, positions, shape.codebooks), np.int64),
            "positions": np.zeros((rows, positions), np.int64),
            "last": np.zeros(rows, np.int32),
            "self_length": np.zeros((), np.int32),
            "text_last": np.zeros(texts, np.int32),
            "text_length": np.zeros((), np.int32),
            "text_ends": np.zeros((texts, 2 * shape.layers, shape.width), np.float32),
        }
        self._logits = np.zeros((rows, shape.codebooks, shape.vocabulary), np.float32)
        self._values: list[tuple[Any, npt.NDArray[Any]]] = []  # what onnxruntime points into must stay alive
        for name, array in self._inputs.items():
            self._io.bind_ortvalue_input(name, self._value(ort, array))
        for name, array in caches.items():
            value = self._value(ort, array)
            self._io.bind_ortvalue_input(name, value)
            self._io.bind_ortvalue_output(f"{name}_next", value)
        self._io.bind_ortvalue_output("logits", self._value(ort, self._logits))

    def _value(self, ort: Any, array: npt.NDArray[Any]) -> Any:
        value = ort.OrtValue.ortvalue_from_numpy(array)
        self._values.append((value, array))
        return value

    def run(self, tokens: Codes, positions: Codes, text_last: npt.NDArray[np.int32], text_ends: Floats) -> Floats:
        inputs = self._inputs
        inputs["tokens"][:], inputs["positions"][:] = tokens, positions
        inputs["last"][:], inputs["self_length"][()] = positions[:, -1], positions.max() + 1
        inputs["text_last"][:], inputs["text_length"][()] = text_last, text_last.max() + 1
        inputs["text_ends"][:] = text_ends
        self._session.run_with_iobinding(self._io)
        return self._logits
