"""A tuned model's folder: the card that names it, and what the gate said of it.

Every tuner writes such a folder, the gate labels it, and a stage that loads from it refuses what the
gate refused.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from melodify_lib.errors import ModelError
from melodify_lib.nouns import Sha256, first_problem, sha256

CARD_FILES = ("describer.json", "vertex.json")
"""What a folder with a tuned model has one of: it names the model, and is what a verdict is on."""
VERDICT_FILE = "gate.json"
"""What the gate said of the model (`melodify_lib.evaluate.gate`)."""


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


def prepare(out: Path, card: str) -> None:
    """Make the folder of a model with this `card` before the work, not after it; the verdict on what it held is void.

    Raises `ModelError` where it cannot be made, or holds a model of another kind: a folder is one model.
    """
    other = next((name for name in CARD_FILES if name != card and (out / name).exists()), None)
    if other is not None:
        raise ModelError(f"{out} holds another kind of describer ({other}); name another folder with --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / VERDICT_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise ModelError(f"cannot write the describer into {out}: {error.strerror or error}") from error


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
    if verdict.card_sha256 != card_sha256(folder):
        raise ModelError(f"{folder / VERDICT_FILE} is not on the model beside it; evaluate the model again")
    return verdict


def with_model_here(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fields for `Settings.load`, with a `describer_model` that is a gs:// address fetched into a folder here.

    Raises `CloudError` where there is nothing.
    """
    fields = dict(settings)
    if str(fields["describer_model"]).startswith("gs://"):
        from melodify_lib.cloud.objects import download_folder
        from melodify_lib.settings import Settings

        address, fields["describer_model"] = fields["describer_model"], tempfile.mkdtemp()
        download_folder(Settings.load(**fields), address, Path(fields["describer_model"]), ["*"])
    return fields


def refuse(folder: Path) -> None:
    """Raise `ModelError` for a model that the gate refused."""
    verdict = read_verdict(folder)
    if verdict is not None and not verdict.promoted:
        raise ModelError(
            f"the gate refused the describer in {folder} ({'; '.join(verdict.reasons)}); it is not served: "
            "tune another, or unset MELODIFY_DESCRIBER_MODEL to use the shipped one"
        )


def card_sha256(folder: Path) -> str:
    """The hash of what a model's card says, whatever the white space."""
    path = folder / card_file(folder)
    try:
        return sha256(json.dumps(json.loads(path.read_bytes()), sort_keys=True).encode())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {path}: {error}") from None


def card_file(folder: Path) -> str:
    """The name of the card in a folder. Raises `ModelError` where there is none, or two."""
    names = [name for name in CARD_FILES if (folder / name).exists()]
    if not names:
        raise ModelError(f"no describer in {folder} (neither {' nor '.join(CARD_FILES)})")
    refuse_two_cards(set(names), folder)
    return names[0]


def refuse_two_cards(names: set[str], folder: Path) -> None:
    """Raise `ModelError` where `names`, the files of a folder, hold cards of two models."""
    if len(names & set(CARD_FILES)) > 1:
        raise ModelError(f"{folder} would hold two models ({' and '.join(CARD_FILES)}); a folder is one model")
