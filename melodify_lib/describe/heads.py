"""The tuned part of the local describer: linear heads and a memory over sentence embeddings, as files.

A folder holds ``heads.safetensors`` (float16 matrices, one row an output) and ``describer.json``
(what the rows mean, and what the dataset says is usual in each genre). `melodify_lib.tuning.local`
writes it, `melodify_lib.describe.local` reads it.

head         outputs            meaning
genre        genres             softmax
minor        1 (+ a genre bias) log-odds of a minor key
energy       1                  place between the genre's two tempos, 0 calm to 1 excited
moods        moods              log-odds of each word
keywords     keywords           log-odds of each word
instruments  genre, instrument  log-odds that the genre's instrument plays
lead         genre, instrument  softmax within the genre: who carries the tune

Genre, minor and energy are asked of the *memory* as well: the training captions themselves, each
voting by how alike it reads (kernel regression, Nadaraya 1964). A linear head alone takes on the
dataset's manner of speaking; the memory gave 100 captions written by hand an acceptable genre
82–88 % of the time where the head alone gave 65–75 % (development figures, with fewer scenes).
`tests/test_describe_unseen.py` prints how the shipped model does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from melodify_lib.describe.embedding import WIDTH
from melodify_lib.errors import ModelError
from melodify_lib.genres import Genre
from melodify_lib.nouns import Sha256, first_problem, sha256
from melodify_lib.store import FolderStore

if TYPE_CHECKING:
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

GENRE_SHARE, FEEL_SHARE = 0.65, 0.5  # of the say that the memory has in the genre, and in energy and mode
SHARPNESS = 12.0  # a caption whose cosine is 0.1 higher has exp(1.2) = 3 times the vote
_STEPS_IN_ONE = 400  # the memory's vectors are kept as int8; no component of a unit sentence vector passes 0.3

WEIGHTS_FILE, CARD_FILE = "heads.safetensors", "describer.json"
REMEDY = "make it again with `melodify tune`, or unset MELODIFY_DESCRIBER_MODEL to use the shipped one"

Names = Annotated[tuple[str, ...], Field(min_length=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GenreFacts(_Frozen):
    """What the dataset says is usual in a genre: tempo in beats a minute, tonics in each mode, line-up.

    `bpm` is the slowest and the fastest there is; `tempo` the tempos of the calmest and the most
    excited mood there could be (arousal -1 and 1), between which the energy moves.
    """

    bpm: tuple[int, int]
    tempo: tuple[float, float]
    tonics: dict[Literal["major", "minor"], Names]
    instruments: Names

    def bpm_at(self, energy: float) -> int:
        """Tempo at an energy of 0 to 1, never outside what there is."""
        calm, lively = self.tempo
        return int(np.clip(round(calm + energy * (lively - calm)), *self.bpm))


class HeadsCard(_Frozen):
    """What the heads were trained on, and what their rows mean."""

    format: Literal[1] = 1
    embedder: str = "all-MiniLM-L6-v2"
    dataset_sha256: Sha256
    heads_sha256: Sha256
    examples: Annotated[int, Field(gt=0)]
    genres: Annotated[dict[Genre, GenreFacts], Field(min_length=1)]
    moods: Names
    keywords: tuple[str, ...]

    @property
    def players(self) -> list[tuple[str, str]]:
        """(genre, instrument) of each row of the heads `instruments` and `lead`."""
        return [(genre, name) for genre, facts in self.genres.items() for name in facts.instruments]

    def rows(self) -> dict[str, int]:
        """Outputs of each head."""
        players = len(self.players)
        return {
            "genre": len(self.genres),
            "minor": 1,
            "energy": 1,
            "moods": len(self.moods),
            "keywords": len(self.keywords),
            "instruments": players,
            "lead": players,
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor by name."""
        rows = self.rows()
        weights: dict[str, tuple[int, ...]] = {f"{head}.weight": (count, WIDTH) for head, count in rows.items()}
        biases: dict[str, tuple[int, ...]] = {f"{head}.bias": (count,) for head, count in rows.items()}
        memory: dict[str, tuple[int, ...]] = {
            "memory.vectors": (self.examples, WIDTH),
            "memory.votes": (self.examples, len(self.genres)),
            "memory.feel": (self.examples, 2),
            "memory.scale": (2, 2),
        }
        return {**weights, **biases, **memory, "minor.genre_bias": (len(self.genres),)}


@dataclass(frozen=True, eq=False)
class Heads:
    """A card and its tensors.

    `memory.votes` holds each example's weight in its genre's column; `memory.feel` its energy and
    whether it is in minor; `memory.scale` the offset and factor that bring the mean of each to the
    scale of its head.
    """

    card: HeadsCard
    tensors: dict[str, Vectors]

    def __call__(self, vectors: Vectors) -> dict[str, Vectors]:
        """Outputs ``[n, rows]`` of each head for embeddings ``[n, 384]``."""
        outputs = vectors @ self._matrix.T + self._bias
        rows = self.card.rows()
        ends = np.cumsum(list(rows.values()))
        named = dict(zip(rows, np.split(outputs, ends[:-1], axis=1), strict=True))
        votes, feel = self._recall(vectors)
        named["genre"] = (1 - GENRE_SHARE) * _log_softmax(named["genre"]) + GENRE_SHARE * np.log(votes)
        for column, head in enumerate(("energy", "minor")):
            named[head] = (1 - FEEL_SHARE) * named[head] + FEEL_SHARE * feel[:, [column]]
        return {head: np.asarray(values, np.float32) for head, values in named.items()}

    def _recall(self, vectors: Vectors) -> tuple[Vectors, Vectors]:
        """What the memory says: shares of the genres ``[n, genres]``, none nought; energy and minor ``[n, 2]``."""
        alike = np.exp(SHARPNESS * (vectors @ self.tensors["memory.vectors"].T - 1))
        votes = alike @ self.tensors["memory.votes"] + 1e-9
        weighted = alike * self.tensors["memory.votes"].sum(axis=1)
        feel = (weighted @ self.tensors["memory.feel"]) / (weighted.sum(axis=1, keepdims=True) + 1e-9)
        offset, factor = self.tensors["memory.scale"]
        return votes / votes.sum(axis=1, keepdims=True), offset + factor * feel

    @cached_property
    def _matrix(self) -> Vectors:
        return np.concatenate([self.tensors[f"{head}.weight"] for head in self.card.rows()])

    @cached_property
    def _bias(self) -> Vectors:
        return np.concatenate([self.tensors[f"{head}.bias"] for head in self.card.rows()])

    @cached_property
    def version(self) -> str:
        """``heads-1@`` and the start of the card's hash, which names the tensors' and the dataset's."""
        return f"heads-{self.card.format}@{sha256(_card_bytes(self.card))[:12]}"


def save(folder: Path, card: HeadsCard, tensors: dict[str, Vectors]) -> Heads:
    """Write the folder, each file whole; the card is last and names the tensors' hash, so a half is never loaded."""
    from safetensors.numpy import save as to_bytes

    data = to_bytes({name: _packed(name, tensor) for name, tensor in sorted(tensors.items())})
    card = card.model_copy(update={"heads_sha256": sha256(data)})
    store = FolderStore(folder)
    store.put(WEIGHTS_FILE, data)
    store.put(CARD_FILE, _card_bytes(card))
    return load(folder)


def load(folder: Path) -> Heads:
    """Read a folder. Raises `ModelError`, with what to do, when it is missing, damaged or of another format."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    try:
        card = HeadsCard.model_validate_json((folder / CARD_FILE).read_bytes())
        data = (folder / WEIGHTS_FILE).read_bytes()
    except OSError as error:
        raise ModelError(f"no describer in {folder} ({error.strerror or error}); {REMEDY}") from error
    except ValidationError as error:
        raise ModelError(f"{folder / CARD_FILE} is not a describer's card ({first_problem(error)}); {REMEDY}") from None
    if sha256(data) != card.heads_sha256:
        raise ModelError(f"{folder / WEIGHTS_FILE} is damaged or belongs to another {CARD_FILE}; {REMEDY}")
    try:
        tensors = {name: _unpacked(tensor) for name, tensor in from_bytes(data).items()}
    except SafetensorError as error:
        raise ModelError(f"{folder / WEIGHTS_FILE} cannot be read ({error}); {REMEDY}") from None
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if shapes != card.shapes() or not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise ModelError(f"{folder / WEIGHTS_FILE} does not hold the heads that {CARD_FILE} lists; {REMEDY}")
    return Heads(card, tensors)


def _card_bytes(card: HeadsCard) -> bytes:
    return (json.dumps(card.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()


def _log_softmax(odds: Vectors) -> Vectors:
    shifted = odds - odds.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _packed(name: str, tensor: Vectors) -> npt.NDArray[Any]:
    """A tensor as it is kept: int8 for the memory's vectors, float16 for all else."""
    if name != "memory.vectors":
        return np.ascontiguousarray(tensor, np.float16)
    return np.ascontiguousarray(np.clip(np.round(tensor * _STEPS_IN_ONE), -127, 127), np.int8)


def _unpacked(tensor: npt.NDArray[Any]) -> Vectors:
    scale = _STEPS_IN_ONE if tensor.dtype == np.int8 else 1
    return np.asarray(tensor, np.float32) / np.float32(scale)
