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
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from melodify_lib.errors import ModelError, StoreError
from melodify_lib.evaluate.describer import METRICS, Difference, Evaluation
from melodify_lib.nouns import Sha256, first_problem, sha256
from melodify_lib.store import FolderStore
from melodify_lib.tuning import CARD_FILES, VERDICT_FILE

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


class Verdict(BaseModel):
    """What the gate said of one model, named by the hash of its card; `reasons` says why not."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # the file also holds the evaluation

    verdict: Literal["promoted", "refused"]
    reasons: tuple[str, ...]
    version: str
    baselines: dict[str, str]
    card_sha256: Sha256

    @property
    def promoted(self) -> bool:
        return self.verdict == "promoted"


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
        card_sha256=_card_sha256(folder),
    )


def label(folder: Path, verdict: Verdict, evaluation: Evaluation) -> None:
    """Write the verdict, and what it rests on, beside the model."""
    text = json.dumps({**verdict.model_dump(mode="json"), "evaluation": evaluation.to_dict()}, indent=1)
    FolderStore(folder).put(VERDICT_FILE, f"{text}\n".encode())


def read_verdict(folder: Path) -> Verdict | None:
    """What the gate said of the model in `folder`; None for a model that was never judged.

    Raises `ModelError` where the verdict is on another model: what was judged has been changed since.
    """
    try:
        verdict = Verdict.model_validate_json((folder / VERDICT_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else error
        raise ModelError(f"{folder / VERDICT_FILE} cannot be read ({problem}); evaluate the model again") from None
    if verdict.card_sha256 != _card_sha256(folder):
        raise ModelError(f"{folder / VERDICT_FILE} is not on the model beside it; evaluate the model again")
    return verdict


def refuse(folder: Path) -> None:
    """Raise `ModelError` for a model that the gate refused."""
    verdict = read_verdict(folder)
    if verdict is not None and not verdict.promoted:
        raise ModelError(
            f"the gate refused the describer in {folder} ({'; '.join(verdict.reasons)}); it is not served: "
            "tune another, or unset MELODIFY_DESCRIBER_MODEL to use the shipped one"
        )


def promote(folder: Path, destination: Path) -> None:
    """Copy the model in `folder`, with its verdict, to where it is served from.

    Raises `ModelError` unless the gate promoted it. The card is copied last, so that a model that is
    half copied is never loaded.
    """
    verdict = read_verdict(folder)
    if verdict is None:
        raise ModelError(f"the describer in {folder} was not judged; run `melodify evaluate describer` on it first")
    refuse(folder)
    _refuse_two_cards({path.name for path in destination.glob("*.json")} | {_card_file(folder)}, destination)
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    store = FolderStore(destination)
    try:
        for path in sorted(files, key=lambda path: path.name in CARD_FILES):
            store.put(path.name, path.read_bytes())
    except (OSError, StoreError) as error:
        raise ModelError(f"cannot copy the describer to {destination}: {error}") from error


def _card_sha256(folder: Path) -> str:
    """The hash of what a model's card says, whatever the white space."""
    path = folder / _card_file(folder)
    try:
        return sha256(json.dumps(json.loads(path.read_bytes()), sort_keys=True).encode())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {path}: {error}") from None


def _card_file(folder: Path) -> str:
    names = [name for name in CARD_FILES if (folder / name).exists()]
    if not names:
        raise ModelError(f"no describer in {folder} (neither {' nor '.join(CARD_FILES)})")
    _refuse_two_cards(set(names), folder)
    return names[0]


def _refuse_two_cards(names: set[str], folder: Path) -> None:
    if len(names & set(CARD_FILES)) > 1:
        raise ModelError(f"{folder} would hold two models ({' and '.join(CARD_FILES)}); a folder is one model")
