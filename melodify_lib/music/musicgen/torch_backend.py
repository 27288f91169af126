"""MusicGen in torch, on a CPU or a GPU: the reference, with transformers' own T5 and EnCodec.

The decoder's loop is ours, over transformers' weights, so that each row can stand at a position of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from melodify_lib.errors import InputError, ModelError
from melodify_lib.music.musicgen.checkpoint import Checkpoint, Tokenizer, Weights, quiet_transformers
from melodify_lib.music.musicgen.memory import require

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Codes = npt.NDArray[np.int64]
    Linear = Callable[[torch.Tensor], torch.Tensor]

LENGTH_STEP = 256
"""Positions by which the caches grow."""
PREFILL_PIECE = 64
"""Positions of a known prefix that are read at a time."""


class TorchBackend:
    """A `Backend`. ``float32`` gives transformers' own codes; ``float16`` and ``bfloat16`` are faster.

    Not batch invariant to the bit: matrix products round differently for other numbers of rows.
    """

    prefill_piece = PREFILL_PIECE

    def __init__(self, checkpoint: Checkpoint, *, device: str = "cpu", precision: str = "float32") -> None:
        """Load a checkpoint. On a CPU ``float16`` keeps the decoder's weights so, and computes in float32.

        Raises `ModelError` when it cannot be loaded or there is no such device.
        """
        self.shape = checkpoint.architecture
        self._tokenizer = Tokenizer(checkpoint.folder)
        self._is_compiled = device.startswith("cuda")
        self._kind = getattr(torch, precision) if self._is_compiled else torch.float32
        self._device = torch.device(device)
        if self._is_compiled and not torch.cuda.is_available():
            raise ModelError(f"there is no {device} here: torch {torch.__version__} finds no GPU; MELODIFY_DEVICE=cpu")
        weights = Weights(checkpoint.folder)
        weights.check(self.shape)
        self._require(weights.parameters * self._kind.itemsize, f"the weights of {checkpoint.name}")
        with _one_thread():
            model = _load(checkpoint, self._kind, self._device)
            self._text, self._codec = model.text_encoder, model.audio_encoder
            self._project: Linear = getattr(model, "enc_to_dec_proj", nn.Identity())
            halves = precision == "float16" and not self._is_compiled
            decoder = model.decoder.model.decoder
            self._tables = [table.weight for table in decoder.embed_tokens]
            self._sinusoids = decoder.embed_positions.weights
            self._layers = [_Layer(layer, halves) for layer in decoder.layers]
            self._norm = decoder.layer_norm
            self._heads = _linear([head.weight for head in model.decoder.lm_heads], halves)
            del model, decoder
        self._forward: Callable[..., torch.Tensor] = self._step
        if self._is_compiled:
            torch._dynamo.config.recompile_limit = 64  # numbers of rows, and lengths
            self._forward = torch.compile(self._step, mode="reduce-overhead", dynamic=False)
        self._rows = self._length = self._text_length = 0
        head = self.shape.width // self.shape.heads
        for layer in self._layers:
            layer.caches = [torch.zeros(0, self.shape.heads, 0, head) for _ in range(4)]
        self._text_mask = torch.zeros(0, 0, dtype=torch.bool)

    def tokens(self, prompt: str) -> Codes:
        """A prompt's tokens. Raises `InputError`."""
        return self._tokenizer.encode(prompt)

    @torch.inference_mode()
    def encode(self, tokens: Codes) -> torch.Tensor:
        """What T5 makes of a prompt, as wide as the decoder, ``[1, tokens, width]``."""
        return self._project(self._text(torch.from_numpy(tokens)[None].to(self._device)).last_hidden_state)

    def reserve(self, songs: int, length: int, text: int) -> None:
        """Make room; see `Backend`."""
        rows = max(2 * songs, self._rows)
        if self._is_compiled:  # few shapes, as each is compiled
            rows, text, length = 2 ** (rows - 1).bit_length(), -(-text // 64) * 64, max(length, 1)
        length = max(-(-length // LENGTH_STEP) * LENGTH_STEP, self._length)
        text = max(text, self._text_length)
        if (rows, length, text) == (self._rows, self._length, self._text_length):
            return
        needed = 2 * rows * (length + text) * self.shape.width * len(self._layers) * self._kind.itemsize
        self._require(needed, f"{rows // 2} songs of {length} positions")
        self._rows, self._length, self._text_length = rows, length, text
        for layer in self._layers:
            sizes = (length, length, text, text)
            layer.caches = [self._grown(old, size) for old, size in zip(layer.caches, sizes, strict=True)]
        mask = torch.zeros(rows, text, dtype=torch.bool, device=self._device)
        mask[: self._text_mask.shape[0], : self._text_mask.shape[1]] = self._text_mask
        self._text_mask = mask

    def _require(self, needed: int, what: str) -> None:
        if self._is_compiled:
            require(needed, what, torch.cuda.mem_get_info(self._device)[0])
        else:
            require(needed, what)

    def _grown(self, old: torch.Tensor, size: int) -> torch.Tensor:
        _, heads, length, head = old.shape
        new = torch.zeros(self._rows, heads, size, head, dtype=self._kind, device=self._device)
        new[: len(old), :, :length] = old
        if self._is_compiled:  # CUDA graphs may write to it
            torch._dynamo.mark_static_address(new)
        return new

    @torch.inference_mode()
    def place(self, slot: int, text: torch.Tensor) -> None:
        """Begin a song in `slot`: its prompt's keys and values; without the prompt, they are zeros, as in training."""
        row, length = 2 * slot, text.shape[1]
        for layer in self._layers:
            for cache, project in zip(layer.caches[2:], layer.text_projections, strict=True):
                cache[row, :, :length] = project(text)[0].view(length, cache.shape[1], -1).transpose(0, 1)
                cache[row + 1] = 0
        self._text_mask[row : row + 2] = False
        self._text_mask[row, :length] = True
        self._text_mask[row + 1, 0] = True

    def move(self, source: int, target: int) -> None:
        """Take the song from one slot to another."""
        for cache in (self._text_mask, *(cache for layer in self._layers for cache in layer.caches)):
            cache[2 * target : 2 * target + 2] = cache[2 * source : 2 * source + 2]

    def step(self, tokens: Codes, positions: Codes) -> Floats:
        """One step of the songs in the first slots; see `Backend`."""
        rows, at = np.repeat(tokens, 2, 0)[:, None], np.repeat(positions, 2)[:, None]
        if self._is_compiled:  # all rows that there is room for, so that their number is always the same
            idle = self._rows - len(rows)
            rows, at = np.pad(rows, ((0, idle), (0, 0), (0, 0))), np.pad(at, ((0, idle), (0, 0)))
        logits = self._run(slice(0, len(rows)), rows, at)[: 2 * len(tokens)]
        return logits.float().cpu().numpy().reshape(len(tokens), 2, self.shape.codebooks, -1)

    def prefill(self, slot: int, tokens: Codes, position: int) -> None:
        """Read known tokens; see `Backend`."""
        rows = slice(2 * slot, 2 * slot + 2)
        positions = np.arange(position, position + len(tokens))
        self._run(rows, np.stack([tokens, tokens]), np.stack([positions, positions]), eager=True)

    @torch.inference_mode()
    def _run(self, rows: slice, tokens: Codes, positions: Codes, *, eager: bool = False) -> torch.Tensor:
        at = torch.from_numpy(positions).to(self._device)
        forward = self._step if eager else self._forward
        # A compiled step has one shape for all lengths; otherwise only what is there is read.
        length = self._length if self._is_compiled else int(positions.max()) + 1
        mask = None
        if self._is_compiled or positions.min() != positions.max():
            mask = (torch.arange(length, device=self._device) <= at[..., None])[:, None]
        return forward(rows, torch.from_numpy(tokens).to(self._device), at, mask, length)

    def _step(
        self, rows: slice, tokens: torch.Tensor, at: torch.Tensor, mask: torch.Tensor | None, length: int
    ) -> torch.Tensor:
        """Tokens ``[rows, n, codebooks]`` at positions ``[rows, n]`` → the last one's logits, all books in a row."""
        x = torch.zeros((), dtype=self._kind, device=self._device)
        for book, table in enumerate(self._tables):
            x = x + F.embedding(tokens[..., book], table)
        x = x + self._sinusoids[at]
        text_mask = self._text_mask[rows][:, None, None]
        for layer in self._layers:
            x = layer(x, rows, at, mask, length, text_mask)
        return self._heads(self._norm(x[:, -1]))

    @torch.inference_mode()
    def features(self, codes: Codes, start: int, end: int, state: Any) -> tuple[Floats, Any]:
        """See `CodecBackend`."""
        convolution, lstm = self._codec.decoder.layers[:2]
        books = torch.from_numpy(codes).to(self._device)[:, None]
        x = convolution(self._codec.quantizer.decode(books).to(self._kind))[..., start:end].permute(2, 0, 1)
        y, state = lstm.lstm(x, state)
        return (y + x)[:, 0].T.float().cpu().numpy(), state

    @torch.inference_mode()
    def samples(self, features: Floats) -> Floats:
        """See `CodecBackend`."""
        x = torch.from_numpy(features).to(self._device, self._kind)[None]
        for layer in self._codec.decoder.layers[2:]:
            x = layer(x)
        return np.asarray(x[0, 0].float().cpu().numpy())


class _Layer:
    """One layer over rows at positions of their own. `caches`: keys and values of the song, then of its text."""

    caches: list[torch.Tensor]

    def __init__(self, layer: Any, halves: bool) -> None:
        own, text = layer.self_attn, layer.encoder_attn
        self._norms = layer.self_attn_layer_norm, layer.encoder_attn_layer_norm, layer.final_layer_norm
        self._qkv = _linear([own.q_proj.weight, own.k_proj.weight, own.v_proj.weight], halves)
        self._out = _linear([own.out_proj.weight], halves)
        self._query = _linear([text.q_proj.weight], halves)
        self._text_out = _linear([text.out_proj.weight], halves)
        self._up, self._down = _linear([layer.fc1.weight], halves), _linear([layer.fc2.weight], halves)
        self.text_projections: tuple[Linear, Linear] = text.k_proj, text.v_proj

    def __call__(
        self,
        x: torch.Tensor,
        rows: slice,
        at: torch.Tensor,
        mask: torch.Tensor | None,
        length: int,
        text_mask: torch.Tensor,
    ) -> torch.Tensor:
        """``[rows, n, width]`` at positions ``[rows, n]``, over the first `length` positions where `mask` allows."""
        own_norm, text_norm, last_norm = self._norms
        keys, values, text_keys, text_values = (cache[rows] for cache in self.caches)
        heads = keys.shape[1]
        q, k, v = self._qkv(own_norm(x)).view(*at.shape, 3, heads, -1).unbind(2)
        every = torch.arange(len(at), device=at.device)[:, None]
        keys[every, :, at], values[every, :, at] = k, v
        x = x + self._out(_attend(q, keys[:, :, :length], values[:, :, :length], mask))
        q = self._query(text_norm(x)).view(*at.shape, heads, -1)
        x = x + self._text_out(_attend(q, text_keys, text_values, text_mask))
        return x + self._down(F.gelu(self._up(last_norm(x))))


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Query ``[rows, n, heads, head_dim]`` over ``[rows, heads, length, head_dim]``; gives ``[rows, n, width]``."""
    return F.scaled_dot_product_attention(q.transpose(1, 2), k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def _linear(weights: list[torch.Tensor], halves: bool) -> Linear:
    """The product with some weights at once; with `halves`, kept in 16 bits and multiplied in 32."""
    weight = torch.cat([weight.detach() for weight in weights])
    if halves:
        packed = torch.ops.quantized.linear_prepack_fp16(weight, None)
        return lambda x: torch.ops.quantized.linear_dynamic_fp16(x, packed)
    return lambda x: F.linear(x, weight)


@contextmanager
def _one_thread() -> Iterator[None]:
    """No team of OpenMP threads for the thread that loads.

    Its threads would stay, and with those of the thread that plays they are more than there are cores: OpenMP
    then puts them to sleep between two operators, and a step takes half as long again.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _load(checkpoint: Checkpoint, kind: torch.dtype, device: torch.device) -> Any:
    from safetensors import SafetensorError
    from transformers import MusicgenForConditionalGeneration

    loader: Any = MusicgenForConditionalGeneration
    try:
        with quiet_transformers():
            model, report = loader.from_pretrained(checkpoint.folder, dtype=kind, output_loading_info=True)
        if report["missing_keys"]:
            missing = ", ".join(sorted(report["missing_keys"])[:3])
            raise ModelError(f"{checkpoint.name} has no weights {missing}: it is incomplete, or of another kind")
        return model.to(device).eval()
    except (
        OSError,
        ValueError,
        RuntimeError,
        SafetensorError,
    ) as error:  # transformers, safetensors and torch have no common root
        raise ModelError(f"{checkpoint.name} cannot be loaded to {device}: {error}") from None


@torch.inference_mode()
def encode_audio(checkpoint: Checkpoint, audio: Floats, sample_rate: int) -> Codes:
    """Audio ``[channels, samples]`` as codes ``[codebooks, frames]`` of a checkpoint, for `SongRequest.given`.

    Brought to the checkpoint's rate and channels. What is left of the last frame is cut off. Raises
    `InputError` for what is no audio, or shorter than a frame.
    """
    from scipy.signal import resample_poly

    shape = checkpoint.architecture
    audio = np.asarray(audio)
    if audio.dtype.kind != "f" or audio.ndim != 2 or not len(audio) or not np.isfinite(audio).all():
        raise InputError(
            f"expected audio as floats [channels, samples] without gaps; got {audio.dtype} {list(audio.shape)}"
        )
    if not 1000 <= sample_rate <= 768_000:
        raise InputError(f"the sample rate must be from 1,000 to 768,000 Hz; got {sample_rate}")
    common = math.gcd(sample_rate, shape.sample_rate)
    audio = resample_poly(audio, shape.sample_rate // common, sample_rate // common, axis=1).astype(np.float32)
    audio = np.repeat(audio.mean(0, keepdims=True), 2, 0) if shape.channels > len(audio) else audio
    audio = audio.mean(0, keepdims=True) if shape.channels == 1 else audio[: shape.channels]
    frames = audio.shape[1] // shape.hop
    if not frames:
        raise InputError(f"audio to go on from must have {shape.hop} samples at least; it has {audio.shape[1]}")
    codec = _load(checkpoint, torch.float32, torch.device("cpu")).audio_encoder
    codes = [
        codec.encode(torch.from_numpy(channel[None, None, : frames * shape.hop])).audio_codes[0, 0] for channel in audio
    ]
    return np.asarray(torch.stack(codes, 1).flatten(0, 1).numpy())
