"""Builds the dataset: balanced over genres, every text distinct, no scene on two sides of the split.

Who writes the examples is a teacher's name: `offline` needs nothing, `openai` and `gemini` are paid.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from melodify_lib.dataset import likeness, teachers
from melodify_lib.dataset.form import Example, to_line
from melodify_lib.dataset.tables import Choice, Tables, choices, load
from melodify_lib.dataset.teachers import Assignment, Estimate, Progress, Taught, Teacher, Terms
from melodify_lib.describe.embedding import WIDTH, embed
from melodify_lib.errors import DatasetError
from melodify_lib.genres import Genre
from melodify_lib.nouns import sha256
from melodify_lib.settings import Settings

if TYPE_CHECKING:
    import numpy.typing as npt

PER_GENRE = 250
"""Examples of each genre in the set that ships, all splits together."""
SPLITS: Mapping[str, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}
_REWORDINGS = 6  # times that captions which nearly repeat others are asked for again


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
    per_genre: int = PER_GENRE,
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
    taught = _teach(hired, splits, tables, on_progress)
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


def _teach(
    hired: Teacher, splits: Mapping[str, list[Assignment]], tables: Tables, on_progress: Progress | None
) -> Taught:
    """Examples for all assignments, no two captions nearly alike and no scene, by its words, in two splits.

    What reads like an earlier caption is asked for again, a few times, and then dropped.
    """
    assignments = [one for of_split in splits.values() for one in of_split]
    files = np.repeat(np.arange(len(splits)), [len(of_split) for of_split in splits.values()])
    taught = hired.teach(assignments, tables, on_progress)
    examples, dropped, spent = list(taught.examples), Counter(taught.dropped), taught.spent
    rows = np.array([row for row, example in enumerate(examples) if example is not None])
    vectors = np.zeros((len(examples), WIDTH), np.float32)
    fresh = rows
    for attempt in range(_REWORDINGS + 1):
        vectors[fresh] = embed([_caption(examples[row]) for row in fresh])
        repeats = rows[_repeats([_caption(examples[row]) for row in rows], vectors[rows], files[rows])]
        if not len(repeats) or attempt == _REWORDINGS:
            break
        again = [replace(assignments[row], seed=f"{assignments[row].seed} again {attempt}") for row in repeats]
        more = hired.teach(again, tables)
        dropped, spent = dropped + Counter(more.dropped), max(spent, more.spent)
        for row, example in zip(repeats, more.examples, strict=True):
            examples[row] = example
        rows = np.array([row for row in rows if examples[row] is not None])
        fresh = np.array([row for row in repeats if examples[row] is not None], int)
    for row in repeats:
        examples[row] = None
        dropped["nearly another caption"] += 1
    return Taught(examples, dropped, spent)


def _repeats(texts: Sequence[str], vectors: likeness.Vectors, files: npt.NDArray[np.int64]) -> list[int]:
    """Rows whose caption nearly is an earlier one, or tells what another split tells."""
    rows = {row for row, _, _ in likeness.near_duplicates(vectors)}
    return sorted(rows | {row for row, _ in likeness.same_scenes(texts, vectors, files)})


def _caption(example: Example | None) -> str:
    return example.caption if example is not None else ""


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
    """`count` choices for each genre: pictures that it fits best, as many different ones as there are.

    Each telling of a scene has a cost: 1 for each time that the genre has told it, 0.6 for each time that
    any has, and 0.5 for each rank by which another genre fits it better; chance decides between equals.
    The cheapest are taken. Genres with few scenes choose first.
    """
    open_to: dict[Genre, dict[str, list[tuple[int, Choice]]]] = {genre: {} for genre in tables.genres}
    for scene in tables.scenes:
        if scene.name in scenes:
            for rank, choice in choices(scene):
                open_to[choice.genre].setdefault(scene.name, []).append((rank, choice))
    told: Counter[str] = Counter()
    assignments = []
    for genre in sorted(open_to, key=lambda genre: len(open_to[genre])):
        of_genre = open_to[genre]
        if not of_genre:
            raise DatasetError(f"no scene for {genre} is left for training; add scenes")
        chance = random.Random(f"choices {seed} {genre}")
        tellings = []
        for name, ranked in of_genre.items():
            best_first = sorted(ranked, key=lambda pair: pair[0])
            for time in range(-(-count // len(of_genre)) + 2):
                rank, choice = best_first[time % len(best_first)]
                cost = time + 0.6 * told[name] + 0.5 * rank + 0.5 * chance.random()
                tellings.append((cost, name, Assignment(choice, f"{seed} {time}")))
        tellings.sort(key=lambda telling: telling[:2])
        for _, name, assignment in tellings[:count]:
            told[name] += 1
            assignments.append(assignment)
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
