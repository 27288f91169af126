"""``vertex.json``: the card of a model that is served by Vertex AI, in the place of weights.

`melodify_lib.tuning.vertex` writes it, `melodify_lib.describe.gemini` asks the model that it names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from melodify_lib.errors import ModelError
from melodify_lib.nouns import Sha256, first_problem
from melodify_lib.store import FolderStore

CARD_FILE = "vertex.json"


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
