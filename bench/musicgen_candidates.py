"""What `bench/musicgen.py` measures: transformers, OpenVINO and our own engine, behind the same few methods.

Each is made in a process of its own, by a name of `CANDIDATES` or `PLAYERS`. All candidates stand at `CACHED`
positions, at guidance 3: two rows a song, with a prompt of `TEXT` tokens and without. Keys and values are real
numbers in memory of their own: pages that were never written are all one page, and would cost nothing to read.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import numpy as np

    from melodify_lib.music.musicgen.engine import Backend, Song

CACHED = 255
"""Positions that are behind a song: five seconds. Its caches hold 256 then, and are full."""
TEXT = 80
"""Tokens of a prompt, about."""
GUIDANCE = 3.0
FRAME_RATE = 50
CODEBOOKS = 4
"""Of a checkpoint with one channel; others are not measured here."""
LONG_PROMPT = (
    "A warm and hopeful folk piece with fingerpicked guitar, fiddle and a soft double bass, slow at first and then "
    "brighter, as if the morning fog had lifted over a quiet harbour. bpm: 92. key: G major. genre: folk. moods: warm, "
    "hopeful, calm. instrument: acoustic guitar, violin, double bass. Recorded close, with a little room around it"
)
OTHER_PROMPT = "Fast punk rock with distorted guitars and pounding drums. bpm: 180. key: E minor"


@dataclass(frozen=True)
class Folders:
    """Where a run keeps what its candidates read."""

    checkpoint: Path
    """With the prepared graphs beside it."""
    float32: Path
    """Our own graphs with 32-bit weights."""
    openvino: Path

    @classmethod
    def under(cls, folder: Path) -> Self:
        return cls(*(folder / name for name in ("checkpoint", "float32", "openvino")))


class Steps:
    """A candidate's decoder. `hold` once, then `steps` of any number of songs up to that."""

    songs = 0
    """As many as `hold` was given."""

    def hold(self, songs: int) -> None:
        """Be at `CACHED` positions of so many songs."""
        raise NotImplementedError

    def step_of(self, songs: int) -> Callable[[], object]:
        """What makes one step of the first `songs`."""
        raise NotImplementedError

    def steps(self, songs: int, seconds: float) -> float:
        """Milliseconds a step, over at least three steps and so many `seconds`."""
        step = self.step_of(songs)
        step()  # wakes the threads, and brings the caches' rows together
        count, started = 0, time.perf_counter()
        while count < 3 or time.perf_counter() - started < seconds:
            step()
            count += 1
        return (time.perf_counter() - started) / count * 1e3


class Transformers(Steps):
    """The reference: transformers' own modules in float32."""

    def __init__(self, folders: Folders) -> None:
        import torch

        torch.set_grad_enabled(False)
        self._model = load_transformers(folders.checkpoint)
        self._prompt, self._encode = prompt(folders.checkpoint), tokenizer(folders.checkpoint)
        self.held: list[tuple[Any, Any]] = []

    def hold(self, songs: int) -> None:
        import torch

        config = self._model.config.decoder
        heads, layers = config.num_attention_heads, config.num_hidden_layers
        size = (2 * songs, heads, CACHED, config.hidden_size // heads)
        self.held = [(torch.randn(size), torch.randn(size)) for _ in range(layers)]
        self.songs = songs

    def step_of(self, songs: int) -> Callable[[], object]:
        import torch
        from transformers.cache_utils import DynamicCache, EncoderDecoderCache

        rows = 2 * songs
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        for layer, (key, value) in enumerate(self.held):
            cache.self_attention_cache.update(key[:rows], value[:rows], layer)
        text, mask = (part.repeat(songs, *([1] * (part.ndim - 1))) for part in self._texts(self._prompt))
        codes = torch.zeros(rows * CODEBOOKS, 1, dtype=torch.int64)
        return partial(
            self._model.decoder,
            input_ids=codes,
            encoder_hidden_states=text,
            encoder_attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        )

    def text(self) -> None:
        """T5 over a prompt."""
        self._hidden(self._prompt)

    def codec(self, frames: int) -> None:
        """EnCodec's decoder over a song."""
        import torch

        codes = torch.from_numpy(random_codes(frames))
        self._model.audio_encoder.decode(codes[None, None], [None])

    def forced(self, prompts: list[str], codes: np.ndarray) -> np.ndarray:
        """Logits after given codes ``[steps, songs, codebooks]``, as ``[steps, songs, 2, codebooks, vocabulary]``."""
        import numpy as np
        import torch
        from transformers.cache_utils import DynamicCache, EncoderDecoderCache

        songs = []
        for song, text in enumerate(prompts):
            cache, (hidden, mask) = EncoderDecoderCache(DynamicCache(), DynamicCache()), self._texts(text)
            step = partial(self._model.decoder, encoder_hidden_states=hidden, encoder_attention_mask=mask)
            logits = [
                step(input_ids=torch.from_numpy(np.tile(row, 2))[:, None], past_key_values=cache, use_cache=True).logits
                for row in codes[:, song]
            ]
            songs.append(torch.stack(logits).unflatten(1, (2, -1))[:, :, :, 0].numpy())
        return np.stack(songs, 1)

    def _hidden(self, text: str) -> Any:
        import torch

        tokens = torch.from_numpy(self._encode(text))[None]
        return self._model.enc_to_dec_proj(self._model.text_encoder(tokens).last_hidden_state)

    def _texts(self, text: str) -> tuple[Any, Any]:
        """One song's two rows, as `generate` makes them: the prompt, and zeros that are masked."""
        import torch

        hidden = self._hidden(text)
        mask = torch.ones(hidden.shape[:2], dtype=torch.int64)
        return torch.cat([hidden, torch.zeros_like(hidden)]), torch.cat([mask, torch.zeros_like(mask)])


class OpenVino(Steps):
    """The peer, in 8-bit integers; see `musicgen_openvino`."""

    def __init__(self, is_tuned: bool, folders: Folders) -> None:
        from musicgen_openvino import OpenVinoDecoder

        self._decoder = OpenVinoDecoder(folders.openvino, processors(), is_tuned=is_tuned)

    def hold(self, songs: int) -> None:
        self.songs = songs  # its caches are made by each `step_of`

    def step_of(self, songs: int) -> Callable[[], object]:
        self._decoder.fill(2 * songs, CACHED, TEXT)
        return self._decoder.step


class Ours(Steps):
    """A backend of our own engine."""

    def __init__(self, open_: Callable[[Folders], Backend], folders: Folders) -> None:
        self._backend, self._prompt = open_(folders), prompt(folders.checkpoint)

    def hold(self, songs: int) -> None:
        import numpy as np

        backend, text = self._backend, self._backend.encode(self._backend.tokens(self._prompt))
        backend.reserve(songs, CACHED + 1, text.shape[1])
        backend.place(0, text)
        codes = random_codes(CACHED).T
        for start in range(0, CACHED, backend.prefill_piece):
            backend.prefill(0, codes[start : start + backend.prefill_piece], start)
        for slot in range(1, songs):
            backend.move(0, slot)
        self._codes, self._positions = np.tile(codes[-1], (songs, 1)), np.full(songs, CACHED)
        self.songs = songs

    def step_of(self, songs: int) -> Callable[[], object]:
        return partial(self._backend.step, self._codes[:songs], self._positions[:songs])

    def text(self) -> None:
        """T5 over a prompt, and what each layer of the decoder makes of it where the backend does that at once."""
        self._backend.encode(self._backend.tokens(self._prompt))

    def codec(self, frames: int) -> None:
        """EnCodec's decoder over a song that comes in pieces, as the engine has it."""
        from melodify_lib.music.musicgen.codec import PIECE_FRAMES, CodecStream

        codes, stream = random_codes(frames), CodecStream(self._backend, self._backend.shape)
        for start in range(0, frames, PIECE_FRAMES):
            stream.push(codes[:, start : start + PIECE_FRAMES], is_last=start + PIECE_FRAMES >= frames)

    def forced(self, prompts: list[str], codes: np.ndarray) -> np.ndarray:
        """Logits after given codes ``[steps, songs, codebooks]``, as ``[steps, songs, 2, codebooks, vocabulary]``."""
        import numpy as np

        texts = [self._backend.encode(self._backend.tokens(text)) for text in prompts]
        self._backend.reserve(len(texts), len(codes), max(text.shape[1] for text in texts))
        for slot, text in enumerate(texts):
            self._backend.place(slot, text)
        steps = enumerate(codes)
        return np.stack([self._backend.step(row, np.full(len(row), position)).copy() for position, row in steps])

    def company(self, others: int, steps: int) -> float:
        """How far a song's logits among `others` at other positions are from its logits alone: 0 is bit for bit."""
        import numpy as np

        backend, mine, theirs = self._backend, others // 2, OTHER_PROMPT
        codes = np.random.default_rng(1).integers(0, backend.shape.vocabulary, (steps, others + 1, CODEBOOKS))
        texts = [backend.encode(backend.tokens(each)) for each in (self._prompt, theirs)]
        backend.reserve(others + 1, steps + 7 * (others + 1), max(text.shape[1] for text in texts))
        backend.place(0, texts[0])
        alone = [
            backend.step(row[mine : mine + 1], np.array([position]))[0].copy() for position, row in enumerate(codes)
        ]
        ahead = np.array([0 if slot == mine else 7 * slot for slot in range(others + 1)])
        for slot in range(others + 1):
            backend.place(slot, texts[0 if slot == mine else slot % 2])
        among = [backend.step(row, ahead + position)[mine].copy() for position, row in enumerate(codes)]
        return float(np.abs(np.stack(alone) - np.stack(among)).max())


class Memory:
    """What the processors can read of memory, all of them at once: no engine is faster than its weights come."""

    def __init__(self, _: Folders, size: int = 2**29) -> None:
        import numpy as np

        self._parts = np.split(np.ones(size // 4, np.int32), processors())

    def read(self) -> float:
        """GB a second, median of five.

        The largest of integers is within a tenth of a loop in C over vectors; numpy's sum of floats reads half as fast.
        """
        from concurrent.futures import ThreadPoolExecutor
        from statistics import median

        times = []
        with ThreadPoolExecutor(len(self._parts)) as threads:
            for _ in range(6):
                started = time.perf_counter()
                list(threads.map(lambda part: part.max(), self._parts))
                times.append(time.perf_counter() - started)
        return sum(part.nbytes for part in self._parts) / median(times[1:]) / 1e9


def _torch(precision: str, folders: Folders) -> Backend:
    from melodify_lib.music.musicgen.torch_backend import TorchBackend

    return TorchBackend(our_checkpoint(folders.checkpoint), precision=precision)


def _onnx_float32(folders: Folders) -> Backend:
    from melodify_lib.music.musicgen.onnx import OnnxBackend

    return OnnxBackend(folders.float32)


def _int8(folders: Folders) -> Backend:
    from melodify_lib.music.musicgen.onnx import OnnxBackend, prepare

    return OnnxBackend(prepare(our_checkpoint(folders.checkpoint)))


TORCH = ("melodify_lib.music.musicgen.torch_backend", "transformers.models.musicgen.modeling_musicgen")
ONNX = ("melodify_lib.music.musicgen.onnx", "onnxruntime", "tokenizers")


@dataclass(frozen=True)
class Candidate:
    """What the tables say of it, and how it is made."""

    title: str
    make: Callable[[Folders], Any]
    weight_bytes: float
    """Of one weight, with its share of a scale: what a step must read at least."""
    cache_bytes: int
    most_songs: int = 16
    """So many at once are measured: all of them at 16 would take more memory than there is."""


CANDIDATES = {
    "transformers": Candidate("transformers float32", Transformers, 4, 4),
    "onnxruntime": Candidate("ONNX Runtime float32, our graph", partial(Ours, _onnx_float32), 4, 4, 8),
    "openvino": Candidate("OpenVINO int8, as it comes", partial(OpenVino, False), 1, 1, 4),
    "openvino_tuned": Candidate("OpenVINO int8, tuned", partial(OpenVino, True), 1, 1, 8),
    "float32": Candidate("ours `float32`", partial(Ours, partial(_torch, "float32")), 4, 4, 8),
    "float16": Candidate("ours `float16`", partial(Ours, partial(_torch, "float16")), 2, 4),
    "int8": Candidate("ours `int8`", partial(Ours, _int8), 1 + 4 / 128, 1),
}


class Player:
    """Our engine from nothing to whole songs, in a fresh process."""

    def __init__(self, libraries: tuple[str, ...], open_: Callable[[Folders], Backend], folders: Folders) -> None:
        self.imports = _import(libraries)
        started = time.perf_counter()
        self._backend = _Timed(open_(folders))
        self.load, self._prompt = time.perf_counter() - started, prompt(folders.checkpoint)

    def loading(self) -> dict[str, float]:
        """Seconds that imports took, and loading after them."""
        return {"imports": self.imports, "load": self.load}

    def play(self, songs: int, seconds: float) -> dict[str, float]:
        """Seconds of `songs` begun at once: until the first sound, until the last song is whole, and what took them."""
        from melodify_lib.music.musicgen.engine import Engine, SongRequest

        with Engine(self._backend, songs=songs) as engine:
            engine.generate(SongRequest(self._prompt, 1.0))  # threads and buffers are there then
            self._backend.clear()
            started = time.perf_counter()
            playing = [engine.start(SongRequest(self._prompt, seconds, seed)) for seed in range(songs)]
            first = self._first_piece(playing[0], started)
            for song in playing:
                song.result()
            whole = time.perf_counter() - started
        took, steps = self._backend.seconds, self._backend.calls["step"]
        return {
            "seconds": whole,
            "first_audio": first,
            "text": took["encode"],
            "decoder": took["step"],
            "codec": took["features"] + took["samples"],
            "rest": whole - took.total(),
            "steps": steps,
            "rest_of_step": (whole - took.total()) / took["step"],
        }

    @staticmethod
    def _first_piece(song: Song, started: float) -> float:
        next(song.pieces())
        return time.perf_counter() - started


class TransformersPlayer:
    """The reference from nothing to a whole song."""

    def __init__(self, folders: Folders) -> None:
        import torch

        self.imports = _import(TORCH)
        started = time.perf_counter()
        self._model = load_transformers(folders.checkpoint)
        self.load = time.perf_counter() - started
        self._tokens = torch.from_numpy(tokenizer(folders.checkpoint)(prompt(folders.checkpoint)))[None]

    def loading(self) -> dict[str, float]:
        """Seconds that imports took, and loading after them."""
        return {"imports": self.imports, "load": self.load}

    def play(self, songs: int, seconds: float) -> dict[str, float]:
        """Seconds of `songs` in one batch, nothing of which is heard before it is whole."""
        import torch

        torch.manual_seed(0)
        self._generate(1, 1.0)
        started = time.perf_counter()
        self._generate(songs, seconds)
        whole = time.perf_counter() - started
        return {"seconds": whole, "first_audio": whole}

    def _generate(self, songs: int, seconds: float) -> None:
        config = self._model.config
        frames, delay = round(seconds * FRAME_RATE), config.decoder.num_codebooks - 1
        tokens = self._tokens.repeat(songs, 1)
        audio = self._model.generate(
            input_ids=tokens,
            attention_mask=tokens.new_ones(tokens.shape),
            do_sample=True,
            guidance_scale=GUIDANCE,
            max_new_tokens=frames + delay,
        )
        heard = audio.shape[-1] / config.audio_encoder.sampling_rate
        if abs(heard - seconds) > 0.1:
            raise RuntimeError(f"transformers made {heard} seconds in place of {seconds}")


PLAYERS: dict[str, Callable[[Folders], Any]] = {
    "transformers": TransformersPlayer,
    "float16": partial(Player, TORCH, partial(_torch, "float16")),
    "int8": partial(Player, ONNX, _int8),
}


class Maker:
    """Makes what a run needs, one thing a fresh process."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders

    def checkpoint(self) -> None:
        """Random weights of musicgen-small's architecture."""
        from melodify_lib.music.musicgen.untrained import write_untrained

        write_untrained(self._folders.checkpoint, "small")

    def prepared(self) -> None:
        """Our 8-bit graphs."""
        from melodify_lib.music.musicgen.onnx import prepare

        prepare(our_checkpoint(self._folders.checkpoint))

    def float32(self) -> None:
        """Our graphs in float32; EnCodec's are so already."""
        from melodify_lib.music.musicgen.checkpoint import Weights
        from melodify_lib.music.musicgen.onnx import prepare
        from melodify_lib.music.musicgen.onnx.decoder import decoder_graph
        from melodify_lib.music.musicgen.onnx.text import text_graph

        checkpoint, target = our_checkpoint(self._folders.checkpoint), self._folders.float32
        target.mkdir()
        for path in prepare(checkpoint).iterdir():
            if not path.name.startswith(("decoder", "text", "scales", "prepared")):
                os.link(path, target / path.name)
        weights, config = Weights(checkpoint.folder), checkpoint.config
        decoder_graph(weights, config["decoder"], 32, None).save(target / "decoder.onnx")
        text_graph(weights, config["text_encoder"], config["decoder"], 32).save(target / "text.onnx")

    def openvino(self) -> None:
        """OpenVINO's model. Raises `ModuleNotFoundError`."""
        import nncf  # noqa: F401
        from musicgen_openvino import export

        self._folders.openvino.mkdir()
        export(load_transformers(self._folders.checkpoint), self._folders.openvino)


class _Timed:
    """A backend that notes what each of its methods took."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.clear()

    def clear(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._backend, name)
        if not callable(value):
            return value

        def timed(*arguments: Any) -> Any:
            started = time.perf_counter()
            try:
                return value(*arguments)
            finally:
                self.seconds[name] += time.perf_counter() - started
                self.calls[name] += 1

        setattr(self, name, timed)
        return timed


def link(checkpoint: Path, folder: Path) -> None:
    """Links to a checkpoint's files, so that what is prepared does not lie beside them."""
    for path in checkpoint.iterdir():
        if path.is_file() and path.suffix in (".json", ".safetensors"):
            (folder / path.name).symlink_to(path.resolve())
    if not (folder / "tokenizer.json").exists():
        shutil.rmtree(folder)
        raise SystemExit(f"{checkpoint} is no checkpoint: it has no tokenizer.json")


def read_a_step(folder: Path, name: str, songs: int) -> float:
    """Bytes that a step cannot do without: each weight that it multiplies by, and the caches."""
    from safetensors import safe_open

    weights = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "np") as file:
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
        for key, shape in shapes.items():
            once = "embed_" in key or "encoder_attn.k_proj" in key or "encoder_attn.v_proj" in key
            if key.startswith("decoder.") and len(shape) == 2 and not once:
                weights += shape[0] * shape[1]
    config = json.loads((folder / "config.json").read_text())["decoder"]
    positions = songs * (2 * (CACHED + 1) + TEXT + 1)
    cached = positions * 2 * config["num_hidden_layers"] * config["hidden_size"]
    candidate = CANDIDATES[name]
    return weights * candidate.weight_bytes + cached * candidate.cache_bytes


def load_transformers(folder: Path) -> Any:
    """The whole model in float32."""
    import torch
    from transformers import MusicgenForConditionalGeneration
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(processors())
    return MusicgenForConditionalGeneration.from_pretrained(folder).eval()


def our_checkpoint(folder: Path) -> Any:
    from melodify_lib.music.musicgen.checkpoint import Checkpoint

    return Checkpoint(folder.name, folder)


def tokenizer(folder: Path) -> Callable[[str], np.ndarray]:
    from melodify_lib.music.musicgen.checkpoint import Tokenizer

    return Tokenizer(folder).encode


def prompt(folder: Path) -> str:
    """One of about `TEXT` tokens, whatever the tokenizer."""
    encode, words = tokenizer(folder), LONG_PROMPT.split()
    count = next((count for count in range(10, len(words)) if len(encode(" ".join(words[:count]))) >= TEXT), None)
    return " ".join(words[:count])


def random_codes(frames: int) -> np.ndarray:
    import numpy as np

    return np.random.default_rng(0).integers(0, 2048, (CODEBOOKS, frames))


def processors() -> int:
    """As many as this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _import(libraries: tuple[str, ...]) -> float:
    """Seconds that importing them takes."""
    started = time.perf_counter()
    for library in (*libraries, "melodify_lib.music.musicgen.engine"):
        importlib.import_module(library)
    return time.perf_counter() - started
