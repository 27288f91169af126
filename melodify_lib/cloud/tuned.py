"""``vertex.json``: the card of a model that is served by Vertex AI, in the place of weights.

`melodify_lib.tuning.vertex` writes it, `melodify_lib.describe.gemini` asks the model that it names.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from melodify_lib.errors import ModelError
from melodify_lib.nouns import Sha256, first_problem
from melodify_lib.store import FolderStore

if TYPE_CHECKING:
    from melodify_lib.settings import Settings

CARD_FILE = "vertex.json"
_NAME = re.compile(
    r"projects/(?P<project>[a-z0-9][a-z0-9.:-]*)/locations/(?P<location>[a-z0-9-]+)"
    r"/(?P<kind>[A-Za-z]+)/(?P<number>[a-z0-9][a-z0-9_-]*)(?:@[0-9a-z-]+)?"
)


class VertexCard(BaseModel):
    """A model behind an address; of one that is not tuned, only what is asked and its base are known.

    `asks` is the name under which it is asked: an endpoint's, or a base model's. `files` are the
    uploaded datasets, as gs:// addresses; the service's own loss curves are in its `experiment`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    asks: str
    base_model: str
    dataset_sha256: Sha256 | None = None
    validation_sha256: Sha256 | None = None
    epochs: int | None = None
    learning_rate_multiplier: float | None = None
    adapter_size: int | None = None
    job: str | None = None
    model: str | None = None
    experiment: str | None = None
    files: tuple[str, ...] = ()
    labels: dict[str, str] = {}

    def save(self, folder: Path) -> None:
        """Write the card into `folder`."""
        FolderStore(folder).put(CARD_FILE, f"{self.model_dump_json(indent=1)}\n".encode())


def own(name: str, kind: str, settings: Settings) -> str | None:
    """`name` of an endpoint, a model or a tuning job under the settings' own project; None when it is another's.

    The service names a project by its number, which cannot be told from another's: so the name is put
    under the project and place of the settings, and what is there is never somebody else's.
    """
    match = _NAME.fullmatch(name)
    if match is None or match["kind"] != kind or match["location"] != settings.location:
        return None
    if match["project"] != settings.project and not match["project"].isdigit():
        return None
    return f"projects/{settings.project}/locations/{settings.location}/{kind}/{match['number']}"


def load(folder: Path) -> VertexCard:
    """The card in `folder`. Raises `ModelError` when there is none, or it cannot be read."""
    path = folder / CARD_FILE
    try:
        return VertexCard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(
            f"no {CARD_FILE} in {folder} ({error.strerror or error}); `melodify tune --tuner vertex` writes one"
        ) from error
    except ValidationError as error:
        raise ModelError(f"{path} cannot be read: {first_problem(error)}") from None
