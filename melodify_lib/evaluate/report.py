"""The evaluation of the describer that settings choose, beside its baselines, and what is kept of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from melodify_lib import stages
from melodify_lib.dataset.form import read
from melodify_lib.describe.retrieval import TRAIN_FILE, RetrievalDescriber
from melodify_lib.describe.zero_shot import ZeroShotDescriber
from melodify_lib.evaluate.cases import read_cases
from melodify_lib.evaluate.describer import METRICS, Evaluation, evaluate, middle_tempos
from melodify_lib.genres import GENRES
from melodify_lib.nouns import sha256
from melodify_lib.settings import Settings
from melodify_lib.store import FolderStore


def side_by_side(
    settings: Settings,
    dataset: Path,
    ood: Path,
    *,
    known: Evaluation | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate ``zero_shot``, ``retrieval`` and ``tuned``, the describer of `settings`.

    `dataset` is the folder with the training and test splits, `ood` the file of hand-written cases.
    The baselines are taken from `known`, an evaluation on the same files, if it is given.
    """
    cases, test, train = read_cases(ood), read(dataset / "test.jsonl"), read(dataset / TRAIN_FILE)
    describers: dict[str, stages.Describer] = {"tuned": stages.describer(settings, refused_too=True)}
    if known is None:
        retrieval = RetrievalDescriber(dataset / TRAIN_FILE)
        describers = {"zero_shot": ZeroShotDescriber(), "retrieval": retrieval, **describers}
    evaluation = evaluate(describers, test, cases, middle_tempos(train), on_progress=on_progress)
    paths = {"ood": ood, "test": dataset / "test.jsonl", "train": dataset / TRAIN_FILE}
    evaluation = replace(evaluation, files={name: sha256(path.read_bytes()) for name, path in paths.items()})
    return evaluation if known is None else known | evaluation


def write(evaluation: Evaluation, folder: Path) -> None:
    """Write ``evaluation.json`` into `folder`, and, where matplotlib is installed, what it looks like."""
    text = json.dumps(evaluation.to_dict(), indent=1, ensure_ascii=False)
    FolderStore(folder).put("evaluation.json", f"{text}\n".encode())
    if find_spec("matplotlib") is not None:
        from melodify_lib import plots

        plots.save(plots.plot_figures(evaluation, list(METRICS)), folder / "figures.png")
        plots.save(plots.plot_confusion(evaluation.confusion, GENRES), folder / "confusion.png")
