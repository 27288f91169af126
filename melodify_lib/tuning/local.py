"""Local tuning: kernel ridge regression over frozen sentence embeddings, on the JSONL that tunes Gemini.

Every part has one answer and is solved for it in float64, so there is no chance in it: the same
file gives the same bytes on the same machine. What else was tried is in docs/notes.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from melodify_lib.dataset.form import Example, read
from melodify_lib.describe.embedding import embed
from melodify_lib.describe.heads import CARD_FILE, GenreFacts, Heads, HeadsCard, kernel, norm, rounded, save
from melodify_lib.errors import DatasetError
from melodify_lib.model_folder import prepare
from melodify_lib.moods import affect
from melodify_lib.nouns import MusicDescription, sha256

if TYPE_CHECKING:
    import numpy.typing as npt

    from melodify_lib.settings import Settings
    from melodify_lib.tuning import Plan

    Vectors = npt.NDArray[np.float32]
    Matrix = npt.NDArray[np.float64]

PENALTY = 12.0
"""Of the ridge. Chosen, with the kernel's sharpness, on captions written by hand that are not in any test."""
LOGISTIC_PENALTY = 1.0
ALTERNATIVE_FALL = 0.5
"""The k-th alternative of an example counts 1 / (1 + 0.5 k) times its own genre."""
MAX_LANDMARKS = 4000
"""Captions that a new one is compared with: all of a smaller file, every n-th of a larger (Smola & Schoelkopf 2000)."""
SHARES = (0.125, 0.25, 0.5, 1.0)
"""Of the examples: the points of the learning curve."""
CURVES = ("left-out genre", "validation genre", "validation mode", "validation energy side")
"""The metrics that are shown over the number of examples."""
_AT_ONCE = 4096  # rows of the kernel matrix that are held


@dataclass(frozen=True)
class TuningResult:
    """What tuning did.

    `curves` hold one value for each of `steps`. The local tuner's steps are numbers of examples:
    the curves say what more data would bring. `metrics` are shares in [0, 1], except ``bpm error``
    in beats a minute. Vertex tells no curves; its metrics are counts, and dollars.
    """

    folder: Path
    steps: list[int]
    curves: dict[str, list[float]]
    metrics: dict[str, float]
    seconds: float


def from_settings(settings: Settings, plan: Plan) -> LocalTuner:
    """The local tuner; it costs nothing, so it needs no settings and no plan."""
    return LocalTuner()


def tune(
    train: Path,
    out: Path,
    *,
    validation: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> TuningResult:
    """Train the describer on `train` and write it into the folder `out`.

    `on_progress` is called with captions embedded and in all; what comes after takes seconds.
    """
    started = time.perf_counter()
    examples = read(train)
    card = _card(examples, sha256(train.read_bytes()))
    held_out = read(validation) if validation is not None else []
    prepare(out, CARD_FILE)
    vectors = embed([example.caption for example in (*examples, *held_out)], on_progress)
    vectors, held_vectors = vectors[: len(examples)], vectors[len(examples) :]

    steps: list[int] = []
    curves: dict[str, list[float]] = {}
    for share in SHARES:
        some = np.linspace(0, len(examples), max(int(share * len(examples)), 1), endpoint=False).astype(int)
        heads, left_out = _solve([examples[row] for row in some], vectors[some], card)
        if share == SHARES[-1]:  # what is kept is what is read back
            heads = save(out, heads.card, heads.tensors)
        held = {f"validation {name}": value for name, value in measure(heads, held_out, held_vectors).items()}
        steps.append(len(some))
        for name, value in {**left_out, **held}.items():
            curves.setdefault(name, []).append(value)
    metrics = {name: values[-1] for name, values in curves.items()}
    curves = {name: values for name, values in curves.items() if name in CURVES}
    return TuningResult(out, steps, curves, metrics, time.perf_counter() - started)


class LocalTuner:
    """`tune`, as a `melodify_lib.tuning.Tuner`."""

    tune = staticmethod(tune)


def measure(heads: Heads, examples: Sequence[Example], vectors: Vectors) -> dict[str, float]:
    """How well the heads say again what the examples say.

    ``genre`` is the share of examples whose genre, or one of its alternatives, is the heads' first. The other
    figures are given the example's genre.
    """
    if not examples:
        return {}
    outputs, targets = heads(vectors), _Targets(examples, heads.card)
    first = np.argmax(outputs["genre"], axis=1)
    valence, arousal = outputs["affect"].T
    facts = list(heads.card.genres.values())
    known = np.flatnonzero(targets.genre >= 0).tolist()  # of another genre there are no facts
    bpm = np.array([facts[targets.genre[row]].bpm_at(arousal[row]) for row in known])
    minor = np.array([heads.odds_of_minor(targets.genre[row], valence[row]) > 0 for row in known])
    return {
        "genre": targets.fit(first),
        "mode": float(np.mean(minor == targets.minor[known])),
        "energy side": float(np.mean((arousal > 0) == (targets.affect[:, 1] > 0))),
        "bpm error": float(np.mean(np.abs(bpm - [examples[row].description.bpm for row in known]))),
        "first mood": float(np.mean(targets.moods[np.arange(len(examples)), np.argmax(outputs["moods"], axis=1)])),
    }


def _card(examples: Sequence[Example], dataset_sha256: str) -> HeadsCard:
    """What the dataset says is usual in each genre, and its words."""
    by_genre: dict[str, list[Example]] = {}
    for example in sorted(examples, key=lambda example: example.description.genre):
        by_genre.setdefault(example.description.genre, []).append(example)
    if len(by_genre) < 2:
        raise DatasetError("the training file holds fewer than two genres; there is nothing to choose between")
    genres = {genre: _facts(rows) for genre, rows in by_genre.items()}
    moods = sorted({mood for example in examples for mood in example.description.moods})
    keywords = sorted({word for example in examples for word in example.description.keywords})
    return HeadsCard(
        dataset_sha256=dataset_sha256,
        examples=len(examples),
        landmarks=min(len(examples), MAX_LANDMARKS),
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
        self.descriptions = [example.description for example in examples]
        self.card = card
        # A held-out file may name a genre that training never saw; it counts as missed.
        index = {genre: row for row, genre in enumerate(card.genres)}
        self.genre = np.array([index.get(one.genre, -1) for one in self.descriptions])
        self.fitting = [
            [index[one] for one in (example.description.genre, *example.alternatives) if one in index]
            for example in examples
        ]
        self.minor = np.array([one.mode == "minor" for one in self.descriptions])
        self.affect = np.array([affect(one.moods[:1]) for one in self.descriptions])
        self.moods = np.array([[mood in one.moods for mood in card.moods] for one in self.descriptions])

    @cached_property
    def shares(self) -> Matrix:
        """How well each genre fits each picture, ``[n, G]``: its own, then its alternatives; they sum to 1."""
        shares = np.zeros((len(self.descriptions), len(self.card.genres)))
        for row, fitting in enumerate(self.fitting):
            shares[row, fitting] = 1 / (1 + ALTERNATIVE_FALL * np.arange(len(fitting)))
        return np.asarray(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-9))

    def fit(self, genres: npt.NDArray[np.int64]) -> float:
        """The share of `genres` (rows of the card) that are an example's own or one of its alternatives."""
        return float(np.mean(self.shares[np.arange(len(genres)), genres] > 0))

    @cached_property
    def outputs(self) -> Matrix:
        """What the ridge is to say, ``[n, outputs]``, in the order of `HeadsCard.columns`."""
        keywords = [[word in one.keywords for word in self.card.keywords] for one in self.descriptions]
        parts = (self.shares, self.affect, self.moods, np.reshape(keywords, (len(self.descriptions), -1)))
        return np.concatenate([np.asarray(part, float) for part in parts], axis=1)


def _solve(examples: Sequence[Example], vectors: Vectors, card: HeadsCard) -> tuple[Heads, dict[str, float]]:
    """The heads, and how they do on each example when it is left out."""
    targets = _Targets(examples, card)
    card = card.model_copy(update={"examples": len(examples), "landmarks": min(len(examples), MAX_LANDMARKS)})
    chosen = np.linspace(0, len(examples), card.landmarks, endpoint=False).astype(int)
    landmarks = rounded(vectors[chosen])
    mean = targets.outputs.mean(axis=0)
    weight, left_out = _ridge(vectors, landmarks, chosen, targets.outputs - mean)
    tensors = {
        "landmarks": landmarks,
        "weight": weight,
        "mean": mean,
        "gain": _gain(left_out, targets.outputs - mean, card),
        **_followers(targets, card),
    }
    heads = Heads(card, {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()})
    return heads, {"left-out genre": targets.fit(np.argmax(left_out[:, : len(card.genres)], axis=1))}


def _gain(left_out: Matrix, targets: Matrix, card: HeadsCard) -> Matrix:
    """What each output is multiplied by, ``[outputs]``.

    Shares are made as large as they turn out to be (the slope of the targets on the left-out
    outputs, one for all columns of a kind); affect gets the spread that the examples have.
    """
    gains, start = [], 0
    for name, columns in card.columns().items():
        here = slice(start, start + columns)
        start += columns
        if name == "affect":
            gains.append(targets[:, here].std(axis=0) / np.maximum(left_out[:, here].std(axis=0), 1e-9))
        else:
            slope = (left_out[:, here] * targets[:, here]).sum() / max((left_out[:, here] ** 2).sum(), 1e-9)
            gains.append(np.full(columns, slope))
    return np.concatenate(gains)


def _ridge(
    vectors: Vectors, landmarks: Vectors, chosen: npt.NDArray[np.int64], targets: Matrix
) -> tuple[Matrix, Matrix]:
    """Weights ``[m, outputs]`` of the landmarks, and each example's outputs ``[n, outputs]`` had it been left out.

    (K'K + penalty * K_mm) weight = K'targets, where K is the kernel of examples and landmarks and K_mm
    that of the landmarks; what is left out follows from the diagonal of the hat matrix (Allen 1974).
    `chosen` are the rows that are landmarks themselves.
    """
    gram = PENALTY * np.asarray(kernel(landmarks, landmarks), float)
    right = np.zeros((len(landmarks), targets.shape[1]))
    chunks = [slice(start, start + _AT_ONCE) for start in range(0, len(vectors), _AT_ONCE)]
    for chunk in chunks:
        alike = np.asarray(kernel(vectors[chunk], landmarks), float)
        gram += alike.T @ alike
        right += alike.T @ targets[chunk]
    gram += 1e-8 * len(vectors) * np.eye(len(landmarks))  # the same caption twice must not make it singular
    inverse = np.linalg.inv(gram)
    weight = inverse @ right
    left_out = np.empty_like(targets)
    for chunk in chunks:
        alike = np.asarray(kernel(vectors[chunk], landmarks), float)
        own = np.minimum(((alike @ inverse) * alike).sum(axis=1, keepdims=True), 0.999)
        without = targets[chunk] - (targets[chunk] - alike @ weight) / (1 - own)
        rows = np.arange(len(vectors))[chunk]
        themselves = np.flatnonzero(np.isin(rows, chosen))
        alike[themselves, np.searchsorted(chosen, rows[themselves])] = 0
        left_out[chunk] = without / norm(alike)
    return weight, left_out


def _followers(targets: _Targets, card: HeadsCard) -> dict[str, Matrix]:
    """What follows from genre and affect: mode, and who of a genre's line-up plays and leads."""
    genres = np.asarray(targets.genre[:, None] == np.arange(len(card.genres)), float)
    features = np.concatenate([np.ones((len(genres), 1)), targets.affect], axis=1)
    plays, leads = [], []
    for row, (genre, facts) in enumerate(card.genres.items()):
        of_genre = [one for one in targets.descriptions if one.genre == genre]
        own = features[targets.genre == row]
        for name in facts.instruments:
            plays.append(_logistic(own, np.array([name in one.instruments for one in of_genre], float)))
            leads.append(_logistic(own, np.array([name == one.instruments[0] for one in of_genre], float)))
    minor = _logistic(np.concatenate([genres, targets.affect[:, :1]], axis=1), targets.minor.astype(float))
    return {"minor.weight": minor, "plays.weight": np.stack(plays), "leads.weight": np.stack(leads)}


def _logistic(features: Matrix, targets: Matrix) -> Matrix:
    """Weights ``[k]`` of a penalised logistic regression on features ``[n, k]``, by Newton's method."""
    weight = np.zeros(features.shape[1])
    penalty = LOGISTIC_PENALTY * np.eye(len(weight))
    for _ in range(25):
        shares = 1 / (1 + np.exp(-np.clip(features @ weight, -30, 30)))
        slope = features.T @ (targets - shares) - penalty @ weight
        curve = (features * (shares * (1 - shares))[:, None]).T @ features + penalty
        step = np.linalg.solve(curve, slope)
        weight += step
        if np.abs(step).max() < 1e-9:
            break
    return weight
