"""Local tuning: heads over frozen sentence embeddings, trained on the JSONL that tunes Gemini.

Every head is a convex problem with an L2 penalty, solved by L-BFGS in float64 from zero: there is
one answer, and the same file gives the same bytes on the same machine. What else was tried (small
networks, nearest neighbours) is in `data/generate_jsonl/README.md`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from melodify_lib.dataset.form import Example, read
from melodify_lib.describe.embedding import embed
from melodify_lib.describe.heads import SHARPNESS, GenreFacts, Heads, HeadsCard, save
from melodify_lib.errors import DatasetError, ModelError
from melodify_lib.genres import Genre
from melodify_lib.moods import affect
from melodify_lib.nouns import MusicDescription, sha256

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    Vectors = npt.NDArray[np.float32]

STEPS = 12  # the loss is within 0.1 % of its end after 10
_ITERATIONS = 5  # of L-BFGS in a step
PENALTY = {
    "genre": 6e-4, "minor": 4e-4, "energy": 1e-3, "moods": 1.5e-3, "keywords": 4e-4, "instruments": 1.5e-3,
    "lead": 1.5e-3,
}  # fmt: skip
"""L2 penalty of each head's weights. Chosen on the validation split and captions written by hand."""
_ALIKE = 0.75  # captions of one genre whose cosine is above this count as retellings of one scene


@dataclass(frozen=True)
class TuningResult:
    """What tuning did.

    `curves` hold one value a step: ``loss``, and ``validation genre`` where there is a validation
    file. `metrics` are shares in [0, 1], except ``bpm error`` in beats a minute.
    """

    folder: Path
    curves: dict[str, list[float]]
    metrics: dict[str, float]
    seconds: float


def tune(
    train: Path,
    out: Path,
    *,
    validation: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> TuningResult:
    """Train the describer on `train` and write it into the folder `out`.

    There is no chance in it. `on_progress` is
    called with steps done and in all.
    """
    started = time.perf_counter()
    examples = read(train)
    card = _card(examples, sha256(train.read_bytes()))
    held_out = read(validation) if validation is not None else []
    _prepare(out)
    vectors, held_vectors = embed_captions(examples), embed_captions(held_out)

    curves: dict[str, list[float]] = {"loss": []}
    heads = None
    for step, (loss, tensors) in enumerate(_train(examples, vectors, card), start=1):
        heads = Heads(card, tensors)
        curves["loss"].append(loss)
        if held_out:
            curves.setdefault("validation genre", []).append(measure(heads, held_out, held_vectors)["genre"])
        if on_progress is not None:
            on_progress(step, STEPS)
    assert heads is not None  # noqa: S101 - STEPS > 0
    heads = save(out, card, heads.tensors)
    # The genre of a caption that the memory holds is no measurement.
    fit = {name: value for name, value in measure(heads, examples, vectors).items() if not name.startswith("genre")}
    metrics = {f"train {name}": value for name, value in fit.items()}
    metrics |= {f"validation {name}": value for name, value in measure(heads, held_out, held_vectors).items()}
    return TuningResult(out, curves, metrics, time.perf_counter() - started)


def _prepare(out: Path) -> None:
    """Make the folder before the work, not after it: one that cannot be made is known at once."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"cannot write the describer into {out}: {error.strerror or error}") from error


def embed_captions(examples: Sequence[Example]) -> Vectors:
    """Embeddings ``[n, 384]`` of the examples' captions."""
    return embed([example.caption for example in examples])


def measure(heads: Heads, examples: Sequence[Example], vectors: Vectors) -> dict[str, float]:
    """How well the heads say again what the examples say.

    A scene suits several genres and the file names one at a time, so ``genre`` cannot come near 1;
    ``genre in first 3`` says more. The other figures are given the example's genre.
    """
    if not examples:
        return {}
    outputs, targets = heads(vectors), _Targets(examples, heads.card)
    ranked = np.argsort(-outputs["genre"], axis=1)
    genre_bias = heads.tensors["minor.genre_bias"][targets.genre]
    energy = np.clip(outputs["energy"][:, 0], 0, 1)
    facts = list(heads.card.genres.values())
    bpm = np.array([facts[row].bpm_at(value) for row, value in zip(targets.genre, energy, strict=True)])
    return {
        "genre": float(np.mean(ranked[:, 0] == targets.genre)),
        "genre in first 3": float(
            np.mean([target in row for target, row in zip(targets.genre, ranked[:, :3], strict=True)])
        ),
        "mode": float(np.mean((outputs["minor"][:, 0] + genre_bias > 0) == targets.minor)),
        "energy side": float(np.mean((energy > 0.5) == (targets.energy > 0.5))),
        "bpm error": float(np.mean(np.abs(bpm - [example.description.bpm for example in examples]))),
        "first mood": float(np.mean(targets.moods[np.arange(len(examples)), np.argmax(outputs["moods"], axis=1)])),
        "lead": float(np.mean(np.argmax(np.where(targets.of_genre, outputs["lead"], -np.inf), axis=1) == targets.lead)),
    }


def _card(examples: Sequence[Example], dataset_sha256: str) -> HeadsCard:
    """What the dataset says is usual in each genre, and its words."""
    by_genre: dict[str, list[Example]] = {}
    for example in sorted(examples, key=lambda example: example.description.genre):
        by_genre.setdefault(example.description.genre, []).append(example)
    if len(by_genre) < 2:
        raise DatasetError("the training file holds fewer than two genres; there is nothing to choose between")
    genres = {cast(Genre, genre): _facts(rows) for genre, rows in by_genre.items()}
    moods = sorted({mood for example in examples for mood in example.description.moods})
    keywords = sorted({word for example in examples for word in example.description.keywords})
    return HeadsCard(
        dataset_sha256=dataset_sha256,
        examples=len(examples),
        heads_sha256="0" * 64,
        genres=genres,
        moods=tuple(moods),
        keywords=tuple(keywords),
    )


def _facts(examples: Sequence[Example]) -> GenreFacts:
    descriptions = [example.description for example in examples]
    tempos = [description.bpm for description in descriptions]
    tonics = {
        mode: sorted({one.key.split()[0] for one in descriptions if one.mode == mode})
        or sorted({one.key.split()[0] for one in descriptions})  # a mode that the genre never had: any tonic of its own
        for mode in ("major", "minor")
    }
    # Where an instrument usually stands in the list, leads first: the order in which a line-up is read.
    places: dict[str, list[int]] = {}
    for description in descriptions:
        for place, name in enumerate(description.instruments):
            places.setdefault(name, []).append(place)
    instruments = sorted(places, key=lambda name: (float(np.mean(places[name])), name))
    return GenreFacts.model_validate(
        {
            "bpm": (min(tempos), max(tempos)),
            "tempo": _tempo(descriptions),
            "tonics": tonics,
            "instruments": tuple(instruments),
        }
    )


def _tempo(descriptions: Sequence[MusicDescription]) -> tuple[float, float]:
    """The tempos at arousal -1 and 1: a line through what a genre's moods and tempos are.

    So an energy means the same in every genre, though none goes from the calmest to the wildest:
    the lowest tempo of a metal song is not a calm one. Without a line, slowest and fastest.
    """
    tempos = np.array([one.bpm for one in descriptions], float)
    arousal = np.array([affect(one.moods[:1])[1] for one in descriptions])
    slowest, fastest = tempos.min(), tempos.max()
    if arousal.std() > 0.05 and tempos.std() > 0:
        slope, middle = np.polyfit(arousal, tempos, 1)
        if slope > 0:
            span = fastest - slowest
            slowest, fastest = max(middle - slope, slowest - span), min(middle + slope, fastest + span)
    return round(float(slowest), 1), round(float(max(fastest, slowest + 1)), 1)


class _Targets:
    """The examples as arrays, one row an example."""

    def __init__(self, examples: Sequence[Example], card: HeadsCard) -> None:
        descriptions = [example.description for example in examples]
        genres, players = list(card.genres), card.players
        # A held-out file may name a genre or a word that training never saw; it counts as missed.
        index = {genre: row for row, genre in enumerate(genres)}
        self.genre = np.array([index.get(one.genre, 0) for one in descriptions])
        self.minor = np.array([one.mode == "minor" for one in descriptions])
        calm, lively = np.array([card.genres[genres[row]].tempo for row in self.genre]).T
        self.energy = (np.array([one.bpm for one in descriptions]) - calm) / (lively - calm)
        self.moods = np.array([[mood in one.moods for mood in card.moods] for one in descriptions])
        self.keywords = np.array([[word in one.keywords for word in card.keywords] for one in descriptions])
        self.of_genre = np.array([[genre == one.genre for genre, _ in players] for one in descriptions])
        self.instruments = np.array(
            [[genre == one.genre and name in one.instruments for genre, name in players] for one in descriptions]
        )
        rows = {player: row for row, player in enumerate(players)}
        self.lead = np.array([rows.get((one.genre, one.instruments[0]), 0) for one in descriptions])


def _weights(vectors: Vectors, genres: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """One over how often an example's scene is retold for its genre, so that a scene counts once; mean 1."""
    retold = ((vectors @ vectors.T > _ALIKE) & (genres[:, None] == genres)).sum(axis=1)
    weights = 1.0 / retold
    return np.asarray(weights / weights.mean())


def _train(
    examples: Sequence[Example], vectors: Vectors, card: HeadsCard
) -> Iterator[tuple[float, dict[str, npt.NDArray[np.float32]]]]:
    """Loss and tensors after each step."""
    import torch
    from torch.nn import functional

    targets = _Targets(examples, card)
    features = torch.from_numpy(vectors).double()
    weights = _weights(vectors, targets.genre)
    weight = torch.from_numpy(weights)
    genre, lead = torch.from_numpy(targets.genre), torch.from_numpy(targets.lead)
    minor, energy = torch.from_numpy(targets.minor).double(), torch.from_numpy(targets.energy)
    moods, keywords = torch.from_numpy(targets.moods).double(), torch.from_numpy(targets.keywords).double()
    of_genre, instruments = torch.from_numpy(targets.of_genre), torch.from_numpy(targets.instruments).double()

    shapes = {name: shape for name, shape in card.shapes().items() if not name.startswith("memory.")}
    parameters = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
    for tensor in parameters.values():
        tensor.requires_grad_()

    def outputs(head: str) -> torch.Tensor:
        return features @ parameters[f"{head}.weight"].T + parameters[f"{head}.bias"]

    def loss() -> torch.Tensor:
        odds = functional.binary_cross_entropy_with_logits
        losses = {
            "genre": functional.cross_entropy(outputs("genre"), genre, reduction="none"),
            "minor": odds(outputs("minor")[:, 0] + parameters["minor.genre_bias"][genre], minor, reduction="none"),
            "energy": (outputs("energy")[:, 0] - energy) ** 2,
            "moods": odds(outputs("moods"), moods, reduction="none").sum(1),
            "keywords": odds(outputs("keywords"), keywords, reduction="none").sum(1),
            "instruments": (odds(outputs("instruments"), instruments, reduction="none") * of_genre).sum(1),
            "lead": functional.cross_entropy(outputs("lead").masked_fill(~of_genre, -1e9), lead, reduction="none"),
        }
        fit = sum((weight * value).mean() for value in losses.values())
        # The genre biases of the mode are held near zero too: without, they and the common bias have no one answer.
        penalty = sum(PENALTY[head] * parameters[f"{head}.weight"].square().sum() / 2 for head in losses)
        return fit + penalty + 1e-3 * parameters["minor.genre_bias"].square().sum()

    optimizer = torch.optim.LBFGS(
        parameters.values(), max_iter=_ITERATIONS, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    for _ in range(STEPS):
        value = float(optimizer.step(closure).detach())  # type: ignore[no-untyped-call]
        solved = {name: tensor.detach().numpy().copy() for name, tensor in parameters.items()}
        tensors = _widened(solved, vectors, targets)
        yield value, tensors | _memory(tensors, vectors, targets, weights)


def _widened(
    tensors: dict[str, npt.NDArray[np.float64]], vectors: Vectors, targets: _Targets
) -> dict[str, npt.NDArray[np.float32]]:
    """The tensors as float32, with the energy head stretched to the spread that the examples have.

    Regression keeps to the middle where it is unsure, and every song would be moderate. The middle
    is put at 0.5, for how lively the file's pictures are says nothing of other people's.
    """
    gain = targets.energy.std() / max(_spread(tensors, vectors, "energy"), 1e-6)
    centre = float(np.average(vectors @ tensors["energy.weight"][0] + tensors["energy.bias"][0]))
    tensors["energy.weight"] *= gain
    tensors["energy.bias"] = 0.5 + gain * (tensors["energy.bias"] - centre)
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def _memory(
    tensors: dict[str, Vectors], vectors: Vectors, targets: _Targets, weights: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[np.float32]]:
    """The captions with their genres, energies and modes; means of the last two get the spread of their heads.

    Their middles are put where the heads' are: 0.5 for the energy, even odds for the mode.
    """
    feel = np.stack([targets.energy, targets.minor], axis=1)
    alike = np.exp(SHARPNESS * (vectors @ vectors.T - 1)) * weights
    recalled = (alike @ feel) / alike.sum(axis=1, keepdims=True)
    spread = np.array([_spread(tensors, vectors, head) for head in ("energy", "minor")])
    factor = spread / np.maximum(recalled.std(axis=0), 1e-6)
    mean = np.average(feel, axis=0, weights=weights)
    memory = {
        "memory.vectors": vectors,
        "memory.votes": weights[:, None] * np.eye(tensors["genre.bias"].size)[targets.genre],
        "memory.feel": feel,
        "memory.scale": np.stack([np.array([0.5, 0.0]) - factor * mean, factor]),
    }
    return {name: np.asarray(tensor, np.float32) for name, tensor in memory.items()}


def _spread(tensors: Mapping[str, npt.NDArray[Any]], vectors: Vectors, head: str) -> float:
    """Standard deviation of a head's output over the training captions."""
    return float((vectors @ tensors[f"{head}.weight"][0]).std())
