"""The gate between tuning and serving: a tuned model must earn its place.

It is promoted only when its genre is acceptable for more hand-written captions than each
baseline's, with the whole 95 % interval of the difference above zero, and when no other figure is
worse than a baseline's with the whole interval below zero. The verdict is written beside the model
as ``gate.json``; a refused model is kept, and no stage serves it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from melodify_lib.errors import ModelError, StoreError
from melodify_lib.evaluate.describer import METRICS, Difference, Evaluation
from melodify_lib.model_folder import (
    CARD_FILES,
    VERDICT_FILE,
    Verdict,
    card_file,
    card_sha256,
    read_verdict,
    refuse,
    refuse_two_cards,
)
from melodify_lib.store import FolderStore

DECIDES = "ood genre"
"""The metric that a model must win."""
FEWEST_CASES = 100
"""Captions on which it must be won: intervals on fewer say little, and on one nothing."""


@dataclass(frozen=True)
class Comparison:
    """One metric of the candidate against one baseline."""

    baseline: str
    metric: str
    difference: Difference
    passed: bool

    def __str__(self) -> str:
        one = self.difference
        wanted = "must be clear above 0" if self.metric == DECIDES else "must not be clear below 0"
        return f"{self.metric} against {self.baseline}: {one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}], {wanted}"


def compare(evaluation: Evaluation, candidate: str) -> list[Comparison]:
    """`candidate` against every other describer of the evaluation, metric by metric."""
    comparisons = []
    for baseline in evaluation.scores:
        if baseline == candidate:
            continue
        for metric in METRICS:
            difference = evaluation.difference(candidate, baseline, metric)
            passed = difference.low > 0 if metric == DECIDES else not difference.high < 0
            comparisons.append(Comparison(baseline, metric, difference, passed))
    return comparisons


def judge(evaluation: Evaluation, candidate: str, folder: Path) -> Verdict:
    """The verdict on the model in `folder`, which was evaluated as `candidate`."""
    failed = [str(one) for one in compare(evaluation, candidate) if not one.passed]
    if (cases := evaluation.figure(candidate, DECIDES).cases) < FEWEST_CASES:
        failed.append(f"{DECIDES} was measured on {cases} captions; at least {FEWEST_CASES} are needed")
    baselines = {name: version for name, version in evaluation.versions.items() if name != candidate}
    if not baselines:
        raise ModelError("the gate needs a baseline to compare with; evaluate one beside the model")
    return Verdict(
        verdict="refused" if failed else "promoted",
        reasons=tuple(failed),
        version=evaluation.versions[candidate],
        baselines=baselines,
        card_sha256=card_sha256(folder),
    )


def label(folder: Path, verdict: Verdict, evaluation: Evaluation) -> None:
    """Write the verdict, and what it rests on, beside the model."""
    text = json.dumps({**verdict.model_dump(mode="json"), "evaluation": evaluation.to_dict()}, indent=1)
    FolderStore(folder).put(VERDICT_FILE, f"{text}\n".encode())


def promote(folder: Path, destination: Path) -> None:
    """Copy the model in `folder`, with its verdict, to where it is served from.

    Raises `ModelError` unless the gate promoted it. The card is copied last, so that a model that is
    half copied is never loaded.
    """
    verdict = read_verdict(folder)
    if verdict is None:
        raise ModelError(f"the describer in {folder} was not judged; run `melodify evaluate describer` on it first")
    refuse(folder)
    refuse_two_cards({path.name for path in destination.glob("*.json")} | {card_file(folder)}, destination)
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    store = FolderStore(destination)
    try:
        for path in sorted(files, key=lambda path: path.name in CARD_FILES):
            store.put(path.name, path.read_bytes())
    except (OSError, StoreError) as error:
        raise ModelError(f"cannot copy the describer to {destination}: {error}") from error
