"""The evaluation of the describer that settings choose, beside its baselines, and what is kept of each evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from melodify_lib import stages
from melodify_lib.dataset.form import read
from melodify_lib.describe.retrieval import TRAIN_FILE, RetrievalDescriber
from melodify_lib.describe.zero_shot import ZeroShotDescriber
from melodify_lib.evaluate import alignment, tracks
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
    _write(evaluation.to_dict(), folder / "evaluation.json")
    if find_spec("matplotlib") is not None:
        from melodify_lib import plots

        plots.save(plots.plot_figures(evaluation, list(METRICS)), folder / "figures.png")
        plots.save(plots.plot_confusion(evaluation.confusion, GENRES), folder / "confusion.png")


def write_tracks(evaluation: tracks.Evaluation, folder: Path) -> None:
    """Write ``tracks.json``, and which genres were taken for which."""
    _write(evaluation.to_dict(), folder / "tracks.json")
    if find_spec("matplotlib") is not None:
        from melodify_lib import plots

        plots.save(plots.plot_requested(evaluation), folder / "requested.png")
        if evaluation.told_apart is not None:
            apart = evaluation.told_apart
            plots.save(plots.plot_confusion({"held-out tracks": apart.confusion}, apart.genres), folder / "genres.png")


def write_alignment(evaluation: alignment.Evaluation, folder: Path) -> None:
    """Write ``alignment.json``, and the pairs, the shuffles and the steps as plots."""
    _write(evaluation.to_dict(), folder / "alignment.json")
    if find_spec("matplotlib") is not None:
        from melodify_lib import plots

        plots.save(plots.plot_alignment(evaluation), folder / "alignment.png")
        plots.save(plots.plot_shuffled(evaluation), folder / "shuffled.png")
        if evaluation.steps:
            plots.save(plots.plot_steps(evaluation), folder / "steps.png")


def _write(figures: dict[str, Any], path: Path) -> None:
    text = json.dumps(figures, indent=1, ensure_ascii=False)
    FolderStore(path.parent).put(path.name, f"{text}\n".encode())
