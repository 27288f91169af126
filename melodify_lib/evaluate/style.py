"""Does a genre sound like itself and like no other, and is each seed a piece of its own?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from melodify_lib.errors import MissingDependencyError, install
from melodify_lib.genres import GENRES
from melodify_lib.nouns import MusicDescription

if TYPE_CHECKING:
    import numpy.typing as npt

    from melodify_lib.music.arranger.score import Note, Score

Turn = tuple[tuple[int, Fraction], ...]

TOLD_APART = 0.70
"""Share of held-out tracks whose genre a classifier must hear."""
FOLDS = 5
SEEDS = 5


@dataclass(frozen=True, eq=False)
class ToldApart:
    """Held-out tracks by genre (row) and by the genre that was heard (column), in the order of `genres`."""

    genres: tuple[str, ...]
    confusion: npt.NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.confusion) / self.confusion.sum())

    def recall(self, genre: str) -> float:
        """Share of the tracks of `genre` that were heard as it."""
        row = self.confusion[self.genres.index(genre)]
        return float(row[self.genres.index(genre)] / row.sum())

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {"genres": self.genres, "accuracy": round(self.accuracy, 4), "confusion": self.confusion.tolist()}


def tell_apart(features: Sequence[npt.NDArray[np.float64]], genres: Sequence[str]) -> ToldApart | None:
    """Train a linear classifier on four fifths of the tracks, ask it for the rest, five times over.

    Each track is held out once; tracks differ in description and seed. Standardised features, logistic regression with
    scikit-learn's defaults: nothing is chosen by the result. None with one genre, or fewer than `FOLDS` tracks of one.
    """
    present = tuple(genre for genre in GENRES if genre in set(genres))
    if len(present) < 2 or min(list(genres).count(genre) for genre in present) < FOLDS:
        return None
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"genres are told apart by scikit-learn: {install('evaluate')}") from error
    heard = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        np.array(features),
        np.array(genres),
        cv=StratifiedKFold(FOLDS, shuffle=True, random_state=0),
    )
    confusion = np.zeros((len(present), len(present)), np.int64)
    for genre, answer in zip(genres, heard, strict=True):
        confusion[present.index(genre), present.index(str(answer))] += 1
    return ToldApart(present, confusion)


@dataclass(frozen=True)
class Overlap:
    """How alike the melodies of several seeds are, pair by pair: 0 for nothing in common, 1 for the same.

    `mean` and `largest` are of exact intervals; `shapes` is the mean where an interval is only a step, a skip or a
    leap, up or down, and `within` its yardstick: the share of such turns that one melody takes more than once.
    """

    mean: float
    largest: float
    shapes: float
    within: float
    pieces: int


def overlaps(descriptions: Mapping[str, MusicDescription], seconds: float, seed: int) -> dict[str, Overlap]:
    """For each name in `descriptions`, the arranger's scores for `SEEDS` seeds from `seed` on, compared."""
    from melodify_lib.music.arranger import write_score

    return {
        name: overlap([melody(write_score(description, seconds, seed + step)) for step in range(SEEDS)])
        for name, description in descriptions.items()
    }


def overlap(melodies: Sequence[Sequence[Note]]) -> Overlap:
    """Every melody against every other."""
    exact = [shared(one, other) for one, other in combinations(melodies, 2)]
    shapes = [shared(one, other, by_shape=True) for one, other in combinations(melodies, 2)]
    within = [_repeated(_turns(melody, by_shape=True)) for melody in melodies]
    figures = (float(np.mean(exact)), max(exact), float(np.mean(shapes)), float(np.mean(within)))
    mean, largest, shape, inside = (round(figure, 4) for figure in figures)
    return Overlap(mean, largest, shape, inside, pieces=len(melodies))


def shared(one: Sequence[Note], other: Sequence[Note], *, by_shape: bool = False) -> float:
    """Jaccard index of two melodies' turns: those that both have, of those that either has."""
    turns = set(_turns(one, by_shape)), set(_turns(other, by_shape))
    either = turns[0] | turns[1]
    return len(turns[0] & turns[1]) / len(either) if either else float(one == other)


def melody(score: Score) -> list[Note]:
    """The notes of those who carry the tune, one at a time: the highest where several begin together."""
    highest: dict[int, Note] = {}
    for note in sorted((note for part in score.parts if part.role == "lead" for note in part.notes), key=_pitch):
        highest[_sixteenth(note)] = note
    return [highest[start] for start in sorted(highest)]


def _pitch(note: Note) -> int:
    return note.pitch


def _sixteenth(note: Note) -> int:
    """Where it begins, without the player's touch."""
    return round(4 * note.start)


def _turns(notes: Sequence[Note], by_shape: bool = False, size: int = 4) -> list[Turn]:
    """All 4-grams of (interval in semitones, length over that of the note before): whatever the key and the tempo.

    Lengths run from onset to onset.
    """
    gaps = [max(_sixteenth(after) - _sixteenth(before), 1) for before, after in pairwise(notes)]
    intervals = [after.pitch - before.pitch for before, after in pairwise(notes)]
    if by_shape:
        intervals = [int(np.sign(one)) * int(np.digitize(abs(one), (1, 3, 5))) for one in intervals]
    steps = [(intervals[index], Fraction(gaps[index], gaps[index - 1])) for index in range(1, len(gaps))]
    return [tuple(steps[start : start + size]) for start in range(len(steps) - size + 1)]


def _repeated(turns: Sequence[Turn]) -> float:
    counts = Counter(turns)
    return sum(count for count in counts.values() if count > 1) / len(turns) if turns else 0.0
