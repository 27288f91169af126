"""Builds the dataset: balanced over genres, every text distinct, no scene on two sides of the split.

Who writes the examples is a teacher's name: `offline` needs nothing, `openai` and `gemini` are paid.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from melodify_lib.dataset import teachers
from melodify_lib.dataset.form import to_line
from melodify_lib.dataset.tables import Choice, Tables, choices, load
from melodify_lib.dataset.teachers import Assignment, Estimate, Terms
from melodify_lib.errors import DatasetError
from melodify_lib.genres import Genre
from melodify_lib.nouns import sha256
from melodify_lib.settings import Settings

SPLITS: Mapping[str, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}


@dataclass(frozen=True)
class DatasetSummary:
    """What was built: the folder, examples in each split, scenes behind them, hash of the training file.

    `dropped` counts the assignments that got no usable answer, by reason; `spent` is what the folder's
    examples cost in dollars.
    """

    folder: Path
    train: int
    validation: int
    test: int
    scenes: int
    genres: int
    train_sha256: str
    dropped: Mapping[str, int] = field(default_factory=dict)
    spent: float = 0.0


def build(
    source: Path,
    out: Path,
    *,
    per_genre: int = 180,
    seed: int = 0,
    teacher: str = "offline",
    settings: Settings | None = None,
    budget: float | None = None,
    rate: float = Terms.rate,
    on_estimate: Callable[[Estimate], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> DatasetSummary:
    """Write ``train.jsonl``, ``validation.jsonl`` and ``test.jsonl`` into `out`, all or none.

    `source` holds the tables, `per_genre` counts a genre's examples in all three files together; with
    the offline teacher the same arguments give the same bytes. `on_progress` is called with examples
    done and in all.

    A paid teacher asks `rate` times a minute at most, and spends no more than `budget` dollars;
    `on_estimate` is called before anything is sent. Its answers are kept in ``answers.journal`` in
    `out`: the same call takes up where an earlier one was stopped. Raises `PaidError` or
    `BudgetError` where it may not spend, `CloudError` where its service fails.
    """
    tables = load(source)
    splits = plan(tables, per_genre=per_genre, seed=seed)
    hired = teachers.teacher(teacher, settings or Settings.load(), Terms(out, budget, rate, on_estimate))
    taught = hired.teach([one for assignments in splits.values() for one in assignments], tables, on_progress)
    answers = iter(taught.examples)
    lines, scenes = {}, set()
    for name, assignments in splits.items():
        pairs = list(zip(assignments, islice(answers, len(assignments)), strict=True))
        lines[name] = [to_line(example) for _, example in pairs if example is not None]
        scenes |= {assignment.choice.scene.name for assignment, example in pairs if example is not None}
        if not lines[name]:
            raise DatasetError(f"no answer for the {name} split was usable ({dict(taught.dropped)}); try another model")
    contents = {f"{name}.jsonl": "".join(f"{line}\n" for line in of_split).encode() for name, of_split in lines.items()}
    _write(out, contents)
    return DatasetSummary(
        folder=out,
        **{name: len(of_split) for name, of_split in lines.items()},
        scenes=len(scenes),
        genres=len(tables.genres),
        train_sha256=sha256(contents["train.jsonl"]),
        dropped=taught.dropped,
        spent=taught.spent,
    )


def plan(tables: Tables, *, per_genre: int, seed: int) -> dict[str, list[Assignment]]:
    """What is asked for in each split: as many of each genre, no scene in two splits, as many scenes as can be."""
    counts = _counts(per_genre)
    splits: dict[str, list[Assignment]] = {}
    for name, scenes in _split_scenes(tables, seed).items():
        drawn = splits[name] = _assign(tables, scenes, counts[name], seed)
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
    left = {scene.name: {choice.genre for _, choice in choices(scene)} for scene in tables.scenes}
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
                raise DatasetError(f"too few scenes for {rarest} to fill three splits; add scenes")
            covered.update(left.pop(name))
            taken.add(name)
        splits[split] = taken
    return {"train": set(left), **splits}


def _assign(tables: Tables, scenes: set[str], count: int, seed: int) -> list[Assignment]:
    """`count` choices for each genre: every scene once before any comes again.

    So a genre that goes with many pictures has as many different ones, which says how widely it
    fits. Genres with few scenes choose first, and each prefers scenes that nobody has chosen yet.
    """
    open_to: dict[Genre, list[tuple[int, Choice]]] = {genre: [] for genre in tables.genres}
    for scene in tables.scenes:
        if scene.name in scenes:
            for rank, choice in choices(scene):
                open_to[choice.genre].append((rank, choice))
    told: Counter[str] = Counter()
    assignments = []
    for genre in sorted(open_to, key=lambda genre: len(open_to[genre])):
        if not open_to[genre]:
            raise DatasetError(f"no scene for {genre} is left for training; add scenes")
        # First choices mostly come first, but not only: that a scene also suits another genre is worth knowing.
        chance = random.Random(f"choices {seed} {genre}")
        order = [
            (told[choice.scene.name] + chance.random() + 0.5 * (rank > 0), choice) for rank, choice in open_to[genre]
        ]
        order.sort(key=lambda pair: pair[0])
        again: Counter[str] = Counter()
        ranked: list[tuple[int, Choice]] = []
        for _, choice in order:
            ranked.append((again[choice.scene.name], choice))
            again[choice.scene.name] += 1
        ranked.sort(key=lambda pair: pair[0])
        for index in range(count):
            choice = ranked[index % len(ranked)][1]
            told[choice.scene.name] += 1
            assignments.append(Assignment(choice, f"{seed} {index // len(ranked)}"))
    return assignments


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
