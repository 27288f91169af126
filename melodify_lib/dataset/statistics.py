"""Counts what a dataset holds: genres, tempos, modes, words, lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from melodify_lib.dataset.form import read


@dataclass(frozen=True)
class Statistics:
    """What a file holds. `bpm` has slowest, mean and fastest a genre; lengths are in words, one a caption."""

    examples: int
    genres: dict[str, int]
    bpm: dict[str, tuple[int, float, int]]
    minor_share: dict[str, float]
    moods: dict[str, int]
    instruments: dict[str, int]
    keywords: dict[str, int]
    caption_words: list[int]


def stats(path: Path) -> Statistics:
    """Count a file. Raises `DatasetError` for the first line that breaks."""
    examples = read(path)
    by_genre: dict[str, list[int]] = {}
    minor: Counter[str] = Counter()
    for example in examples:
        by_genre.setdefault(example.description.genre, []).append(example.description.bpm)
        minor[example.description.genre] += example.description.mode == "minor"
    order = sorted(by_genre)
    return Statistics(
        examples=len(examples),
        genres={genre: len(by_genre[genre]) for genre in order},
        bpm={
            genre: (min(tempos), round(sum(tempos) / len(tempos), 1), max(tempos))
            for genre in order
            for tempos in (by_genre[genre],)
        },
        minor_share={genre: round(minor[genre] / len(by_genre[genre]), 3) for genre in order},
        moods=_counted(mood for example in examples for mood in example.description.moods),
        instruments=_counted(name for example in examples for name in example.description.instruments),
        keywords=_counted(word for example in examples for word in example.description.keywords),
        caption_words=[len(example.caption.split()) for example in examples],
    )


def _counted(words: Iterable[str]) -> dict[str, int]:
    """How often each word stands there, the commonest first."""
    return dict(Counter(words).most_common())
