"""The tuned part of the local describer: kernel ridge regression over sentence embeddings, as files.

A folder holds ``heads.safetensors`` and ``describer.json`` (what the columns mean, and what the
dataset says is usual in each genre). `melodify_lib.tuning.local` writes it,
`melodify_lib.describe.local` reads it.

A caption is compared with the training captions, its *landmarks*: exp(SHARPNESS * (cosine - 1)).
Every output is a weighted sum of these (Saunders et al. 1998, "Ridge regression learning algorithm
in dual variables"), over their norm, plus the output's mean. Without the norm, a caption that reads
like none of the landmarks would get the mean of everything: all its music would be moderate.

columns   outputs                                   meaning
genre     genres                                    how well it fits: an example's own and its alternatives share 1
affect    valence, arousal                          of the first mood, on `melodify_lib.moods`' circumplex
moods     words                                     share
keywords  words                                     share

What follows from genre and affect alone is a logistic regression on (1, valence, arousal):
whether the genre is in minor (one slope for all genres), which of its instruments play, who leads.

One form for all: a linear head takes on the dataset's manner of speaking and a memory of nearest
captions forgets what most captions agree on; the ridge is between the two. docs/notes.md has the
figures of what else was tried.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from melodify_lib.describe.embedding import WIDTH
from melodify_lib.errors import ModelError
from melodify_lib.genres import Genre
from melodify_lib.nouns import BPM_MAX, BPM_MIN, Sha256, Term, first_problem, sha256
from melodify_lib.store import FolderStore

if TYPE_CHECKING:
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

SHARPNESS = 12.0  # a caption whose cosine is 0.1 higher counts exp(1.2) = 3.3 times
_STEPS_IN_ONE = 400  # landmarks are kept as int8; no component of a unit sentence vector passes 0.3

WEIGHTS_FILE, CARD_FILE = "heads.safetensors", "describer.json"
REMEDY = "make it again with `melodify tune`, or unset MELODIFY_DESCRIBER_MODEL to use the shipped one"

Names = Annotated[tuple[Term, ...], Field(min_length=1)]
Bpm = Annotated[int, Field(ge=BPM_MIN, le=BPM_MAX)]
Tempo = Annotated[float, Field(allow_inf_nan=False)]
Tonic = Annotated[str, Field(pattern=r"^[A-G][b#]?$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GenreFacts(_Frozen):
    """What the dataset says is usual in a genre: tempo in beats a minute, tonics in each mode, line-up.

    `bpm` is the slowest and the fastest there is; `tempo` the tempos of the calmest and the most
    excited mood there could be (arousal -1 and 1).
    """

    bpm: tuple[Bpm, Bpm]
    tempo: tuple[Tempo, Tempo]
    tonics: Annotated[
        dict[Literal["major", "minor"], Annotated[tuple[Tonic, ...], Field(min_length=1)]], Field(min_length=2)
    ]
    instruments: Names

    def bpm_at(self, arousal: float) -> int:
        """Tempo at an arousal of -1 to 1, never outside what there is."""
        calm, lively = self.tempo
        return int(np.clip(round((calm + lively) / 2 + arousal * (lively - calm) / 2), *self.bpm))


class HeadsCard(_Frozen):
    """What the heads were trained on, and what their columns mean."""

    format: Literal[3] = 3
    embedder: str = "all-MiniLM-L6-v2"
    dataset_sha256: Sha256
    heads_sha256: Sha256
    examples: Annotated[int, Field(gt=0)]
    landmarks: Annotated[int, Field(gt=0)]
    genres: Annotated[dict[Genre, GenreFacts], Field(min_length=1)]
    moods: Names
    keywords: tuple[Term, ...]

    @property
    def players(self) -> list[tuple[str, str]]:
        """(genre, instrument) of each row of ``plays.weight`` and ``leads.weight``."""
        return [(genre, name) for genre, facts in self.genres.items() for name in facts.instruments]

    def columns(self) -> dict[str, int]:
        """How many columns each output has."""
        return {"genre": len(self.genres), "affect": 2, "moods": len(self.moods), "keywords": len(self.keywords)}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor."""
        outputs, players = sum(self.columns().values()), len(self.players)
        return {
            "landmarks": (self.landmarks, WIDTH),
            "weight": (self.landmarks, outputs),
            "mean": (outputs,),
            "gain": (outputs,),
            "minor.weight": (len(self.genres) + 1,),
            "plays.weight": (players, 3),
            "leads.weight": (players, 3),
        }


@dataclass(frozen=True, eq=False)
class Heads:
    """A card and its tensors."""

    card: HeadsCard
    tensors: dict[str, Vectors]

    def __call__(self, vectors: Vectors) -> dict[str, Vectors]:
        """Outputs ``[n, columns]`` for embeddings ``[n, 384]``.

        The middle of arousal is put at 0, the middle of every genre's tempos: how lively the dataset's
        pictures are on average says nothing of other people's.
        """
        alike = kernel(vectors, self.tensors["landmarks"])
        outputs = _product(alike, self.tensors["weight"]) / norm(alike) * self.tensors["gain"]
        named = dict(zip(self.card.columns(), np.split(outputs, self._ends, axis=1), strict=True))
        means = dict(zip(self.card.columns(), np.split(self.tensors["mean"], self._ends), strict=True))
        means["affect"] = means["affect"] * np.array([1, 0], np.float32)
        return {name: values + means[name] for name, values in named.items()}

    @property
    def _ends(self) -> list[int]:
        return list(np.cumsum(list(self.card.columns().values()))[:-1])

    def odds_of_minor(self, genre: int, valence: float) -> float:
        """Log-odds that music of a genre (its row) is in minor for a picture of this valence."""
        weight = self.tensors["minor.weight"]
        return float(weight[genre] + weight[-1] * valence)

    @property
    def version(self) -> str:
        """``heads-3@`` and the start of the card's hash, which names the tensors' and the dataset's."""
        return f"heads-{self.card.format}@{sha256(_card_bytes(self.card))[:12]}"


def kernel(vectors: Vectors, landmarks: Vectors) -> Vectors:
    """How alike captions are: ``[n, m]`` in (0, 1] for unit vectors ``[n, 384]`` and ``[m, 384]``."""
    return np.asarray(np.exp(SHARPNESS * (_product(vectors, landmarks.T) - 1)))


def _product(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> Vectors:
    """Matrix product on the embedder's threads.

    numpy's are a second pool, and the two wait for each other by spinning: a caption then took 16 ms,
    and one in twenty 100 ms, instead of 8 (bench/describer.py).
    """
    import torch

    return np.asarray(torch.tensor(one) @ torch.tensor(other))


def norm(alike: npt.NDArray[Any]) -> Vectors:
    """The norm ``[n, 1]`` of kernel rows ``[n, m]``, with the exponent 1.5.

    Between 1, by which strange captions still come out moderate, and 2, by which they come out
    extreme; of these it gave hand-written captions the spread of the dataset's.
    """
    return np.asarray((alike**1.5).sum(axis=1, keepdims=True) ** (2 / 3) + 1e-12)


def rounded(vectors: Vectors) -> Vectors:
    """Vectors as they will be read back from a file."""
    return _unpacked(_packed("landmarks", vectors))


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
        kept = from_bytes(data)
    except (SafetensorError, KeyError) as error:  # KeyError: a type that numpy has not
        raise ModelError(f"{folder / WEIGHTS_FILE} cannot be read ({error}); {REMEDY}") from None
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in kept.items()}
    tensors = {name: _unpacked(tensor) for name, tensor in kept.items()}
    if shapes != {name: (shape, np.dtype(_kind(name))) for name, shape in card.shapes().items()} or not all(
        np.isfinite(tensor).all() for tensor in tensors.values()
    ):
        raise ModelError(f"{folder / WEIGHTS_FILE} does not hold the heads that {CARD_FILE} lists; {REMEDY}")
    return Heads(card, tensors)


def _card_bytes(card: HeadsCard) -> bytes:
    return (json.dumps(card.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()


def _packed(name: str, tensor: Vectors) -> npt.NDArray[Any]:
    """A tensor as it is kept: int8 for the landmarks, float16 for all else."""
    steps = np.clip(np.round(tensor * _STEPS_IN_ONE), -127, 127) if name == "landmarks" else tensor
    return np.ascontiguousarray(steps, _kind(name))


def _kind(name: str) -> type[np.generic]:
    return np.int8 if name == "landmarks" else np.float16


def _unpacked(tensor: npt.NDArray[Any]) -> Vectors:
    scale = _STEPS_IN_ONE if tensor.dtype == np.int8 else 1
    return np.asarray(tensor, np.float32) / np.float32(scale)
