"""Captions that are too much alike: near-duplicates, and scenes that stand on two sides of a split.

Near-duplicates are found by the cosine of sentence embeddings. A scene told twice in quite other
words is less alike than that, so across files a pair also counts when it shares four words in a row
that hardly any other caption has. Of a training file split by lines instead of scenes, this finds one in
six of the captions whose scene the other half tells, and 86 % of those that it names are right
(`pytest -rP tests/test_dataset_likeness.py`): enough to see that a split leaks, not to mend it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

NEAR_DUPLICATE = 0.95
"""Cosine above which two captions say the same in nearly the same words."""
SAME_SCENE, WITH_PHRASE = 0.88, 0.7
"""Cosine above which two captions tell one scene: alone, and when they share a rare phrase."""
_PHRASE_WORDS, _RARE = 4, 6  # words in a row; captions that have them
_COMPARED_AT_ONCE = 2048


def near_duplicates(vectors: Vectors) -> Iterator[tuple[int, int, float]]:
    """(row, earlier row, cosine) of every row that nearly repeats an earlier one; the nearest earlier one."""
    for start in range(0, len(vectors), _COMPARED_AT_ONCE):
        rows = np.arange(start, min(start + _COMPARED_AT_ONCE, len(vectors)))
        alike = vectors[rows] @ vectors[: rows[-1] + 1].T
        alike[np.arange(len(vectors))[None, : rows[-1] + 1] >= rows[:, None]] = -1  # only earlier ones
        nearest = alike.argmax(axis=1)
        for row, other in zip(rows, nearest, strict=True):
            cosine = float(alike[row - start, other])
            if cosine > NEAR_DUPLICATE:
                yield int(row), int(other), cosine


def same_scenes(texts: Sequence[str], vectors: Vectors, files: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """(row, row of an earlier file) of every caption whose scene another file tells too; ``files`` [n] ascend."""
    found: dict[int, int] = {}
    for one, other in _sharing_phrases(texts):
        first, second = sorted((one, other))
        if files[first] != files[second] and vectors[first] @ vectors[second] > WITH_PHRASE:
            found.setdefault(second, first)
    for file in np.unique(files)[1:]:
        earlier = int(np.searchsorted(files, file))
        for start in range(earlier, int(np.searchsorted(files, file, side="right")), _COMPARED_AT_ONCE):
            stop = min(start + _COMPARED_AT_ONCE, int(np.searchsorted(files, file, side="right")))
            alike = vectors[start:stop] @ vectors[:earlier].T
            nearest = alike.argmax(axis=1)
            for row in np.flatnonzero(alike[np.arange(stop - start), nearest] > SAME_SCENE):
                found.setdefault(int(start + row), int(nearest[row]))
    yield from sorted(found.items())


def _sharing_phrases(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of rows that share four words in a row which at most six captions have."""
    holders: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        words = re.findall(r"[^\W_]+(?:'\w+)?", text.lower())
        phrases = {" ".join(words[at : at + _PHRASE_WORDS]) for at in range(len(words) - _PHRASE_WORDS + 1)}
        for phrase in phrases:
            if len(holders[phrase]) <= _RARE:
                holders[phrase].append(row)
    for rows in holders.values():
        if 2 <= len(rows) <= _RARE:
            yield from ((one, other) for at, one in enumerate(rows) for other in rows[at + 1 :])
