"""Builds the dataset: balanced over genres, every text distinct, no scene on two sides of the split."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from melodify_lib.dataset import offline
from melodify_lib.dataset.form import Example, to_line
from melodify_lib.dataset.tables import Tables, load
from melodify_lib.errors import DatasetError
from melodify_lib.genres import Genre
from melodify_lib.nouns import sha256

SPLITS: Mapping[str, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}
_ATTEMPTS = 40


@dataclass(frozen=True)
class DatasetSummary:
    """What was built: the folder, examples in each split, scenes behind them, hash of the training file."""

    folder: Path
    train: int
    validation: int
    test: int
    scenes: int
    genres: int
    train_sha256: str


@dataclass(frozen=True)
class Drawn:
    """An example, and what it was drawn from."""

    example: Example
    choice: offline.Choice


def build(
    source: Path,
    out: Path,
    *,
    per_genre: int = 120,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> DatasetSummary:
    """Write ``train.jsonl``, ``validation.jsonl`` and ``test.jsonl`` into `out`, all or none.

    `source` holds the tables, `per_genre` counts a genre's examples in all three files together;
    the same arguments give the same bytes. `on_progress` is called with examples done and in all.
    """
    tables = load(source)
    splits = draw(tables, per_genre=per_genre, seed=seed, on_progress=on_progress)
    texts = {name: "".join(to_line(one.example) + "\n" for one in drawn) for name, drawn in splits.items()}
    _write(out, {f"{name}.jsonl": text.encode() for name, text in texts.items()})
    return DatasetSummary(
        folder=out,
        **{name: len(drawn) for name, drawn in splits.items()},
        scenes=len({one.choice.scene.name for drawn in splits.values() for one in drawn}),
        genres=len(tables.genres),
        train_sha256=sha256(texts["train"].encode()),
    )


def draw(
    tables: Tables, *, per_genre: int, seed: int, on_progress: Callable[[int, int], None] | None = None
) -> dict[str, list[Drawn]]:
    """The examples of each split, with the choices they came from."""
    counts = _counts(per_genre)
    total, done = per_genre * len(tables.genres), 0
    seen: set[str] = set()
    splits: dict[str, list[Drawn]] = {}
    for name, scenes in _split_scenes(tables, seed).items():
        drawn = splits[name] = []
        for genre in tables.genres:
            for choice, round_ in _choices(tables, scenes, genre, counts[name], seed):
                drawn.append(_distinct(choice, tables, f"{seed} {round_}", seen))
                done += 1
                if on_progress is not None:
                    on_progress(done, total)
        random.Random(f"order {seed} {name}").shuffle(drawn)
    return splits


def _counts(per_genre: int) -> dict[str, int]:
    """Examples a genre in each split."""
    if per_genre < 10:
        raise DatasetError(f"{per_genre} examples a genre cannot be split into three; ask for at least 10")
    counts = {name: int(per_genre * share) for name, share in SPLITS.items()}
    counts["train"] += per_genre - sum(counts.values())
    return counts


def _split_scenes(tables: Tables, seed: int) -> dict[str, set[str]]:
    """Names of the scenes of each split: a tenth to validation, a tenth to test, each with every genre in it."""
    left = {scene.name: {choice.genre for _, choice in offline.choices(scene)} for scene in tables.scenes}
    names = list(left)
    random.Random(f"split {seed}").shuffle(names)
    splits: dict[str, set[str]] = {}
    for split in ("validation", "test"):
        taken: set[str] = set()
        covered: Counter[Genre] = Counter()
        while len(taken) < len(tables.scenes) * SPLITS[split]:
            rarest = min(tables.genres, key=lambda genre: covered[genre])
            name = next((name for name in names if name in left and rarest in left[name]), None)
            if name is None:
                raise DatasetError(f"too few scenes for {rarest} to fill three splits; add scenes to scenes.yaml")
            covered.update(left.pop(name))
            taken.add(name)
        splits[split] = taken
    return {"train": set(left), **splits}


def _choices(tables: Tables, scenes: set[str], genre: Genre, count: int, seed: int) -> list[tuple[offline.Choice, int]]:
    """`count` choices for a genre with the round they are in: when they run out, they come round again."""
    ranked = [
        (rank, choice)
        for scene in tables.scenes
        if scene.name in scenes
        for rank, choice in offline.choices(scene)
        if choice.genre == genre
    ]
    if not ranked:
        raise DatasetError(f"no scene for {genre} is left for training; add scenes to scenes.yaml")
    # First choices mostly come first, but not only: that a scene also suits another genre is worth knowing.
    chance = random.Random(f"choices {seed} {genre}")
    order = {choice.name: chance.random() + 0.5 * (rank > 0) for rank, choice in ranked}
    ranked.sort(key=lambda pair: order[pair[1].name])
    return [(ranked[index % len(ranked)][1], index // len(ranked)) for index in range(count)]


def _distinct(choice: offline.Choice, tables: Tables, seed: str, seen: set[str]) -> Drawn:
    """An example whose caption and description nobody has had before."""
    for attempt in range(_ATTEMPTS):
        example = offline.write(choice, tables, f"{seed} {attempt}")
        texts = {example.caption, example.description.description}
        if not texts & seen:
            seen |= texts
            return Drawn(example, choice)
    raise DatasetError(f"the grammar cannot word {choice.scene.name!r} in {_ATTEMPTS} ways; add patterns or scenes")


def _write(folder: Path, contents: dict[str, bytes]) -> None:
    """All files or none: written into a folder beside, then moved over the old ones."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".building-", dir=folder))
        try:
            for name, data in contents.items():
                (aside / name).write_bytes(data)
            for name in contents:
                (aside / name).replace(folder / name)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise DatasetError(f"cannot write the dataset into {folder}: {error.strerror or error}") from error
