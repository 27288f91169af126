"""Describers side by side: on the test split, and on captions from outside the dataset's grammar.

Every figure is a mean over cases with a 95 % bootstrap interval (percentile method, Efron 1979);
differences between two describers are taken case by case, so what is hard for both cancels out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from melodify_lib.dataset.form import Example
from melodify_lib.errors import DescriptionError
from melodify_lib.evaluate.cases import Case
from melodify_lib.genres import GENRES
from melodify_lib.nouns import Caption, MusicDescription
from melodify_lib.stages import Describer

if TYPE_CHECKING:
    import numpy.typing as npt

    Scores = npt.NDArray[np.float64]
    Answers = list[MusicDescription | None]

RESAMPLES = 4000
ASKED_AT_ONCE = 32

METRICS: dict[str, str] = {
    "valid": "share of captions that get a valid description",
    "ood genre": "share of hand-written captions whose genre is acceptable",
    "ood energy": "share whose tempo is on the right side of the middle of its genre's range",
    "ood mode": "share whose mode is the right one",
    "paraphrase genre": "share of their paraphrases whose genre is acceptable",
    "same genre": "share of paraphrases that keep their caption's genre",
    "distinct": "share of answers whose description no other answer has",
    "test genre": "share of the test split whose genre is the example's or one of its alternatives",
    "test mode": "share of the test split whose mode is the example's",
    "test energy": "share of the test split whose tempo is on the example's side of its genre's middle",
    "bpm error": "mean distance from the example's tempo in beats a minute; less is better",
    "moods F1": "overlap of the moods with the example's",
    "instruments F1": "overlap of the instruments with the example's",
}
LESS_IS_BETTER = {"bpm error"}


@dataclass(frozen=True)
class Figure:
    """A mean over `cases` cases, and the 95 % interval around it."""

    value: float
    low: float
    high: float
    cases: int


@dataclass(frozen=True)
class Difference:
    """How much better one describer is than another, case by case, with the 95 % interval; more is better."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    `scores` hold one number a case for each describer and metric, NaN where a case does not ask;
    `confusion` counts ``[example's genre][describer's genre]`` of the test split in the order of
    `GENRES`; `genres` counts, for each describer and genre, how often it was the answer to a
    hand-written caption and how often that was acceptable; `files` are the hashes of what it rests on.
    """

    versions: dict[str, str]
    scores: dict[str, dict[str, Scores]]
    confusion: dict[str, npt.NDArray[np.int64]]
    genres: dict[str, dict[str, tuple[int, int]]]
    files: dict[str, str] = field(default_factory=dict)

    def __or__(self, other: Evaluation) -> Evaluation:
        """Both together, on the same cases; of a describer that is in both, what `other` says."""
        return Evaluation(
            self.versions | other.versions,
            self.scores | other.scores,
            self.confusion | other.confusion,
            self.genres | other.genres,
            self.files | other.files,
        )

    def figure(self, describer: str, metric: str) -> Figure:
        scores = self.scores[describer][metric]
        low, high = _interval(scores)
        return Figure(_mean(scores), low, high, int((~np.isnan(scores)).sum()))

    def difference(self, describer: str, other: str, metric: str) -> Difference:
        """How much better `describer` is than `other`."""
        scores = self.scores[describer][metric] - self.scores[other][metric]
        if metric in LESS_IS_BETTER:
            scores = -scores
        return Difference(_mean(scores), *_interval(scores))

    def confusions(self, describer: str, count: int = 8) -> list[tuple[str, str, int]]:
        """(genre of the example, another that was answered, how often) on the test split, the commonest first."""
        matrix = self.confusion[describer]
        pairs = [(one, other, int(matrix[i, j])) for i, one in enumerate(GENRES) for j, other in enumerate(GENRES)]
        return sorted((pair for pair in pairs if pair[0] != pair[1] and pair[2]), key=lambda pair: -pair[2])[:count]

    def figures(self) -> dict[str, dict[str, Figure]]:
        """Every figure: describer → metric → figure."""
        return {name: {metric: self.figure(name, metric) for metric in METRICS} for name in self.scores}

    def to_dict(self) -> dict[str, Any]:
        """All of it but the single scores, rounded, as JSON types."""
        return {
            "versions": self.versions,
            "files": self.files,
            "figures": {
                name: {
                    metric: {key: round(value, 4) for key, value in asdict(figure).items()}
                    for metric, figure in figures.items()
                }
                for name, figures in self.figures().items()
            },
            "genres": {name: {genre: list(pair) for genre, pair in rows.items()} for name, rows in self.genres.items()},
            "confusion": {name: matrix.tolist() for name, matrix in self.confusion.items()},
        }


def evaluate(
    describers: Mapping[str, Describer],
    test: Sequence[Example],
    cases: Sequence[Case],
    middles: Mapping[str, float],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Ask every describer for every caption, and score the answers.

    `middles` is the tempo in the middle of each genre's range (`middle_tempos`). `on_progress` is
    called with captions answered and in all.
    """
    paraphrased = [case for case in cases if case.paraphrase is not None]
    captions = [case.caption for case in cases] + [case.paraphrase or "" for case in paraphrased]
    captions += [example.caption for example in test]
    total, done = len(captions) * len(describers), 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(done, total)

    scores, confusion, genres = {}, {}, {}
    for name, describer in describers.items():
        answers = _ask(describer, captions, report)
        of_cases, of_paraphrases = answers[: len(cases)], answers[len(cases) : len(cases) + len(paraphrased)]
        of_test = answers[len(cases) + len(paraphrased) :]
        scores[name] = {
            "valid": np.array([answer is not None for answer in answers], float),
            "distinct": _distinct(answers[: len(cases) + len(paraphrased)]),
            **_score_cases(cases, of_cases, of_paraphrases, middles),
            **_score_test(test, of_test, middles),
        }
        confusion[name] = _confusion(test, of_test)
        genres[name] = _by_genre(cases, of_cases)
    versions = {name: describer.version.version for name, describer in describers.items()}
    return Evaluation(versions, scores, confusion, genres)


def middle_tempos(examples: Sequence[Example]) -> dict[str, float]:
    """The middle of each genre's range of tempos in `examples`, the training split, in beats a minute."""
    tempos: dict[str, list[int]] = {}
    for example in examples:
        tempos.setdefault(example.description.genre, []).append(example.description.bpm)
    return {genre: (min(of_genre) + max(of_genre)) / 2 for genre, of_genre in tempos.items()}


def _ask(describer: Describer, captions: Sequence[str], report: Callable[[int], None]) -> Answers:
    answers: Answers = []
    for start in range(0, len(captions), ASKED_AT_ONCE):
        some = [Caption.from_text(text) for text in captions[start : start + ASKED_AT_ONCE]]
        try:
            answers += describer.describe_many(some)
        except DescriptionError:  # one of them: find out which
            answers += [_describe_or_none(describer, caption) for caption in some]
        report(len(some))
    return answers


def _describe_or_none(describer: Describer, caption: Caption) -> MusicDescription | None:
    try:
        return describer.describe(caption)
    except DescriptionError:
        return None


def _score_cases(
    cases: Sequence[Case], answers: Answers, paraphrased: Answers, middles: Mapping[str, float]
) -> dict[str, Scores]:
    pairs = list(zip(cases, answers, strict=True))
    others = iter(paraphrased)
    again = [next(others) if case.paraphrase is not None else None for case in cases]
    return {
        "ood genre": np.array([answer is not None and answer.genre in case.genres for case, answer in pairs], float),
        "ood energy": _where(
            [case.energy != "any" for case in cases],
            [answer is not None and _side(answer, middles) == case.energy for case, answer in pairs],
        ),
        "ood mode": _where(
            [case.mode != "any" for case in cases],
            [answer is not None and answer.mode == case.mode for case, answer in pairs],
        ),
        "paraphrase genre": _where(
            [case.paraphrase is not None for case in cases],
            [other is not None and other.genre in case.genres for case, other in zip(cases, again, strict=True)],
        ),
        "same genre": _where(
            [case.paraphrase is not None for case in cases],
            [
                one is not None and other is not None and one.genre == other.genre
                for one, other in zip(answers, again, strict=True)
            ],
        ),
    }


def _score_test(test: Sequence[Example], answers: Answers, middles: Mapping[str, float]) -> dict[str, Scores]:
    pairs = [(example.description, answer) for example, answer in zip(test, answers, strict=True)]
    return {
        "test genre": np.array(
            [
                answer is not None and answer.genre in (example.description.genre, *example.alternatives)
                for example, answer in zip(test, answers, strict=True)
            ],
            float,
        ),
        "test mode": np.array([answer is not None and answer.mode == music.mode for music, answer in pairs], float),
        "test energy": np.array(
            [answer is not None and _side(answer, middles) == _side(music, middles) for music, answer in pairs], float
        ),
        "bpm error": np.array([np.nan if answer is None else abs(answer.bpm - music.bpm) for music, answer in pairs]),
        "moods F1": np.array([answer is not None and _f1(answer.moods, music.moods) for music, answer in pairs], float),
        "instruments F1": np.array(
            [answer is not None and _f1(answer.instruments, music.instruments) for music, answer in pairs], float
        ),
    }


def _side(music: MusicDescription, middles: Mapping[str, float]) -> str:
    return "high" if music.bpm > middles.get(music.genre, np.inf) else "low"


def _f1(answer: Sequence[str], reference: Sequence[str]) -> float:
    return 2 * len(set(answer) & set(reference)) / (len(set(answer)) + len(set(reference)))


def _distinct(answers: Answers) -> Scores:
    texts = Counter(answer.description for answer in answers if answer is not None)
    return np.array([answer is not None and texts[answer.description] == 1 for answer in answers], float)


def _where(asked: Sequence[bool], scores: Sequence[bool]) -> Scores:
    return np.where(asked, np.array(scores, float), np.nan)


def _confusion(test: Sequence[Example], answers: Answers) -> npt.NDArray[np.int64]:
    matrix = np.zeros((len(GENRES), len(GENRES)), np.int64)
    for example, answer in zip(test, answers, strict=True):
        if answer is not None:
            matrix[GENRES.index(example.description.genre), GENRES.index(answer.genre)] += 1
    return matrix


def _by_genre(cases: Sequence[Case], answers: Answers) -> dict[str, tuple[int, int]]:
    given: Counter[str] = Counter(answer.genre for answer in answers if answer is not None)
    good: Counter[str] = Counter(
        answer.genre
        for case, answer in zip(cases, answers, strict=True)
        if answer is not None and answer.genre in case.genres
    )
    return {genre: (given[genre], good[genre]) for genre in GENRES}


def _mean(scores: Scores) -> float:
    return float(np.nanmean(scores)) if not np.isnan(scores).all() else float("nan")


def _interval(scores: Scores) -> tuple[float, float]:
    asked = scores[~np.isnan(scores)]
    if not len(asked):
        return float("nan"), float("nan")
    chance = np.random.default_rng(0)  # the same resamples each time: a verdict must not hang on luck
    means = asked[chance.integers(0, len(asked), (RESAMPLES, len(asked)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
