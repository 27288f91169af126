"""A MusicGen checkpoint: where it lies, its weights, its tokenizer."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import yaml

from melodify_lib.errors import InputError, ModelError
from melodify_lib.music.musicgen.architecture import Architecture

if TYPE_CHECKING:
    import numpy.typing as npt

    from melodify_lib.settings import Settings

PROMPT_MAX_TOKENS = 512
"""What T5 was trained on; MusicGen's own training captions were far shorter."""
_FILES = ("*.json", "*.safetensors")
_CARD = "README.md"
T = TypeVar("T", bound="Checkpoint")


@dataclass(frozen=True)
class Checkpoint:
    """A folder as transformers writes it: ``config.json``, ``*.safetensors``, ``tokenizer.json``."""

    name: str
    """As it was asked for: a hub name, a folder, a gs:// address."""
    folder: Path

    @classmethod
    def find(cls, name: str, settings: Settings) -> Self:
        """Look for a folder, a gs:// address or a hub name, in this order, and fetch what is not here yet.

        Raises `ModelError` that says where it was looked for and how to get it.
        """
        if name.startswith("gs://"):
            from melodify_lib.cloud.objects import download_folder

            folder = cache_folder() / f"{PurePosixPath(name).name}-{short_hash(name)}"
            download_folder(settings, name, folder, [*_FILES, _CARD])
            return cls(name, folder)._checked()
        if Path(name).is_dir():
            return cls(name, Path(name).resolve())._checked()
        if name.count("/") != 1 or name.startswith((".", "/")):
            raise ModelError(f"no folder {name}: expected one with config.json and *.safetensors, or a name on the hub")
        return _from_hub(cls, name)

    @property
    def label(self) -> str:
        """A name without the machine's paths: as on the hub, or the last part of a folder or address."""
        is_place = self.name.startswith("gs://") or Path(self.name).is_dir()
        return Path(self.name).resolve().name if is_place else self.name

    def _checked(self) -> Self:
        if missing := self._missing():
            raise ModelError(
                f"{self.folder} is not a whole MusicGen checkpoint: it has no {missing}; write one with "
                "save_pretrained of transformers' MusicgenForConditionalGeneration and of its tokenizer"
            )
        return self

    def _missing(self) -> str:
        """A file that should be there and is not."""
        for pattern in ("config.json", "tokenizer.json", "*.safetensors"):
            if not any(path.is_file() for path in self.folder.glob(pattern)):
                return pattern
        index = self.folder / "model.safetensors.index.json"
        if not index.is_file():
            return ""
        try:
            shards = {str(shard) for shard in json.loads(index.read_bytes())["weight_map"].values()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{index} cannot be read: {error!r}") from None
        return next((shard for shard in sorted(shards) if not (self.folder / shard).is_file()), "")

    @cached_property
    def config(self) -> dict[str, Any]:
        """``config.json`` with transformers' defaults filled in. Raises `ModelError` for another kind of model."""
        path = self.folder / "config.json"
        try:
            kind = json.loads(path.read_bytes()).get("model_type")
        except (ValueError, AttributeError) as error:
            raise ModelError(f"{path} cannot be read: {error}") from None
        if kind != "musicgen":
            raise ModelError(f"{self.name} is a {kind!r} model; only 'musicgen' is known (not musicgen_melody)")
        from transformers import MusicgenConfig

        try:
            with quiet_transformers():  # it warns that the pad is no code, which is as it should be
                config: dict[str, Any] = MusicgenConfig.from_pretrained(self.folder).to_dict()
        except Exception as error:  # its checks of types raise errors of their own
            raise ModelError(f"{path} cannot be used: {error}") from None
        return config

    @property
    def architecture(self) -> Architecture:
        return Architecture.of(self.config)

    @property
    def stamp(self) -> list[list[Any]]:
        """Name, size and time of each file: when none has changed, `digest` need not be taken again."""
        files = sorted(path for pattern in _FILES for path in self.folder.glob(pattern) if path.is_file())
        return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]

    @cached_property
    def digest(self) -> str:
        """sha256 over all files: a second for each gigabyte or two, and remembered while `stamp` is the same."""
        stamp = self.stamp
        memory = cache_folder() / "digests" / f"{short_hash(str(self.folder))}.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            remembered = json.loads(memory.read_bytes())
            if remembered["stamp"] == stamp:
                return str(remembered["digest"])
        digest = hashlib.sha256()
        for name, size, _ in stamp:
            digest.update(f"{name} {size}\n".encode())
            with (self.folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        with suppress(OSError):  # a convenience
            memory.parent.mkdir(parents=True, exist_ok=True)
            aside = memory.with_suffix(f".{os.getpid()}")
            aside.write_text(json.dumps({"stamp": stamp, "digest": digest.hexdigest()}))
            aside.replace(memory)
        return digest.hexdigest()

    @property
    def licence(self) -> str:
        """Under which the checkpoint's music may be used, as its model card says; ``unknown`` where none does."""
        if self.name.startswith("facebook/"):
            return "CC-BY-NC-4.0"
        with suppress(OSError, ValueError, yaml.YAMLError, AttributeError):  # none, or one without such a head
            _, matter, _ = (self.folder / _CARD).read_text(encoding="utf-8").split("---", 2)
            named = yaml.safe_load(matter).get("license")
            licences = [named] if isinstance(named, str) else named if isinstance(named, list) else []
            return ", ".join(map(str, licences)) or "unknown"
        return "unknown"


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Neither warnings nor progress bars of transformers: its errors come as exceptions."""
    from transformers.utils import logging

    quiet: Any = logging  # it has no types
    level, has_bars = quiet.get_verbosity(), quiet.is_progress_bar_enabled()
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    try:
        yield
    finally:
        quiet.set_verbosity(level)
        if has_bars:
            quiet.enable_progress_bar()


def cache_folder() -> Path:
    """Where fetched and prepared weights are kept: the user's cache, as the XDG base directory specification has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "melodify"


def short_hash(text: str) -> str:
    """Twelve hex digits that stand for a path or an address in a file's name."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _from_hub(kind: type[T], name: str) -> T:
    """A checkpoint in the hub's cache, fetched if it is not there whole."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError

    reason = ""
    for is_local in (True, False):  # the cache may hold a part: another program's, or of a download that broke off
        try:
            folder = snapshot_download(name, allow_patterns=[*_FILES, _CARD], local_files_only=is_local)
        except HFValidationError as error:
            raise ModelError(f"{name!r} is neither a folder nor a name on the hub: {error}") from None
        except Exception as error:  # the hub's, its HTTP library's, or the system's
            reason = type(error).__name__
            continue
        found = kind(name, Path(folder))
        if not (missing := found._missing()):
            return found
        reason = f"no {missing}"
    cache = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    raise ModelError(
        f"the weights of {name} are not on this machine and could not be fetched ({reason}). "
        f"Where there is a network: hf download {name}; then copy its cache to {cache}, or name a folder "
        "that has the files: MELODIFY_CHECKPOINT=/path/to/folder"
    )


class Weights:
    """A checkpoint's tensors by name, read when they are asked for, as float32."""

    def __init__(self, folder: Path) -> None:
        """Raises `ModelError` for a file that is no safetensors file."""
        from safetensors import SafetensorError, safe_open

        self._files: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            try:
                file: Any = safe_open(path, "pt")  # numpy has no bfloat16
            except (SafetensorError, OSError) as error:
                raise ModelError(f"{path} cannot be read: {error}; fetch it again") from None
            self._files |= dict.fromkeys(file.keys(), file)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __getitem__(self, name: str) -> npt.NDArray[np.float32]:
        """Raises `ModelError` for a tensor that is not there."""
        if name not in self._files:
            raise ModelError(f"the checkpoint has no weights {name!r}: it is incomplete, or of another kind")
        return np.asarray(self._files[name].get_tensor(name).float().numpy())

    def check(self, shape: Architecture) -> None:
        """Raise `ModelError` when there are not as many layers as `shape` says: a part of them would play, badly."""
        layers = self.count("decoder.model.decoder.layers.", ".fc1.weight")
        if layers != shape.layers:
            raise ModelError(f"there are weights of {layers} layers, and config.json says {shape.layers}")

    @property
    def parameters(self) -> int:
        """How many numbers there are."""
        return sum(math.prod(file.get_slice(name).get_shape()) for name, file in self._files.items())

    def count(self, prefix: str, suffix: str) -> int:
        """How many tensors have such a name."""
        return sum(name.startswith(prefix) and name.endswith(suffix) for name in self._files)

    def weight_norm(self, name: str) -> npt.NDArray[np.float32]:
        """The weight of a convolution that is kept as direction and length, in torch's old or new form."""
        for length, direction in (
            ("parametrizations.weight.original0", "parametrizations.weight.original1"),
            ("weight_g", "weight_v"),
        ):
            if f"{name}.{length}" in self:
                g, v = self[f"{name}.{length}"], self[f"{name}.{direction}"]
                norm = np.sqrt(np.square(v, dtype=np.float64).sum((1, 2), keepdims=True))
                return np.asarray(v * (g / norm), np.float32)
        return self[f"{name}.weight"]


class Tokenizer:
    """A prompt as T5's token ids."""

    def __init__(self, folder: Path) -> None:
        """Read ``tokenizer.json``. Raises `ModelError` if it cannot be read."""
        import tokenizers

        path = folder / "tokenizer.json"
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises Exception itself
            raise ModelError(f"{path} cannot be read: {error}") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def encode(self, prompt: str) -> npt.NDArray[np.int64]:
        """Token ids, int64 ``[tokens]``. Raises `InputError` for a prompt that is empty or too long."""
        if not isinstance(prompt, str) or not prompt.strip():
            raise InputError("the prompt is empty; say what the music should be like")
        try:
            tokens = self._tokenizer.encode(prompt).ids if len(prompt) <= 20 * PROMPT_MAX_TOKENS else None
        except (TypeError, UnicodeError) as error:
            raise InputError(f"the prompt cannot be read: {error}") from None
        if tokens is None or len(tokens) > PROMPT_MAX_TOKENS:
            size = f"{len(tokens):,} tokens" if tokens else f"{len(prompt):,} characters"
            raise InputError(f"the prompt has {size}; at most {PROMPT_MAX_TOKENS} tokens are read")
        return np.array(tokens, np.int64)
