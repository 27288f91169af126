"""Captions too much alike: what is found, what is not, and how often the finder is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from melodify_lib.dataset import likeness, read, synthesize, tables
from melodify_lib.describe.embedding import embed
from melodify_lib.describe.zero_shot import ZeroShotDescriber
from melodify_lib.genres import GENRES

SOURCE = Path(__file__).parent.parent / "data" / "generate_jsonl"
TRAIN = read(SOURCE / "output" / "train.jsonl")
TEXTS = [example.caption for example in TRAIN]


@pytest.fixture(scope="module")
def vectors() -> likeness.Vectors:
    return embed(TEXTS)


@pytest.fixture(scope="module")
def scenes() -> list[str]:
    plan = synthesize.plan(tables.load(SOURCE), per_genre=synthesize.PER_GENRE, seed=0)
    return [assignment.choice.scene.name for assignment in plan["train"]]


def test_a_caption_that_hardly_changed_is_a_near_duplicate() -> None:
    texts = [
        "A ginger cat sleeps on a red sofa.",
        "A red fox crosses a frozen river.",
        "A ginger cat is sleeping on a red sofa.",
        "A dog barks at the postman.",
    ]
    assert [pair[:2] for pair in likeness.near_duplicates(embed(texts))] == [(2, 0)]


def test_a_split_by_lines_instead_of_scenes_is_found_out(vectors: likeness.Vectors, scenes: list[str]) -> None:
    halves = np.repeat([0, 1], [len(TEXTS) // 2, len(TEXTS) - len(TEXTS) // 2])
    found = list(likeness.same_scenes(TEXTS, vectors, halves))
    right = np.mean([scenes[row] == scenes[other] for row, other in found])
    first = set(scenes[: len(TEXTS) // 2])
    told_twice = [row for row in np.flatnonzero(halves) if scenes[row] in first]
    share = np.mean([row in dict(found) for row in told_twice])
    print(f"{len(found)} found, {right:.0%} of them right; {share:.0%} of {len(told_twice)} leaked captions")  # noqa: T201
    assert len(found) > 100
    assert right > 0.8
    assert share > 0.1


def test_a_third_of_the_pairs_are_at_odds_with_what_one_would_say_of_the_genre(vectors: likeness.Vectors) -> None:
    sentences, _ = ZeroShotDescriber()._anchors
    alike = np.stack([(vectors @ of_genre.T).max(axis=1) for of_genre in sentences], axis=1)
    ranks = np.argsort(-alike, axis=1)
    own = np.array([GENRES.index(example.description.genre) for example in TRAIN])
    among_five = (ranks[:, :5] == own[:, None]).any(axis=1)
    assert 1 / 3 < 1 - among_five.mean() < 2 / 3
