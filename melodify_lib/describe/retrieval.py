"""The retrieval describer: the training caption that reads most alike lends its description, word for word.

A baseline that a tuned describer must beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from melodify_lib.dataset.form import read
from melodify_lib.describe.embedding import embed
from melodify_lib.describe.local import check_genre
from melodify_lib.fingerprint import fingerprint
from melodify_lib.nouns import Caption, MusicDescription, StageVersion, sha256
from melodify_lib.store import FolderStore

if TYPE_CHECKING:
    from melodify_lib.settings import Settings

TRAIN_FILE = "train.jsonl"
DATASET = Path("data/generate_jsonl/output")


def from_settings(settings: Settings) -> RetrievalDescriber:
    """The describer over ``train.jsonl`` of `settings.describer_model`, or of the dataset that ships."""
    return RetrievalDescriber((settings.describer_model or DATASET) / TRAIN_FILE)


class RetrievalDescriber:
    """Answers a caption with the description of the most similar caption in a JSONL file."""

    def __init__(self, train: Path) -> None:
        """Read and embed `train`: 15 ms an example. Raises `DatasetError` when it cannot be read."""
        self._examples = read(train)
        self._data = train.read_bytes()
        self._vectors = embed([example.caption for example in self._examples])

    @property
    def version(self) -> StageVersion:
        return StageVersion(name="retrieval", version=f"{sha256(self._data)[:12]}+{fingerprint('describe')}")

    def export(self, folder: Path) -> None:
        """Write the examples into `folder`, from which `Settings.describer_model` can load them."""
        FolderStore(folder).put(TRAIN_FILE, self._data)

    def describe(self, caption: Caption, genre: str | None = None) -> MusicDescription:
        """The description of the nearest caption, of those in `genre` if it is given."""
        return self.describe_many([caption], genre)[0]

    def describe_many(self, captions: Sequence[Caption], genre: str | None = None) -> list[MusicDescription]:
        """The nearest description for each of `captions`, in their order."""
        check_genre(genre, {example.description.genre for example in self._examples})
        rows = [row for row, one in enumerate(self._examples) if genre in (None, one.description.genre)]
        alike = embed([caption.text for caption in captions]) @ self._vectors[rows].T
        return [self._examples[rows[nearest]].description for nearest in np.argmax(alike, axis=1)]
