"""The zero-shot describer: a caption is compared with sentences about genres and moods; nothing was learned.

A baseline that a tuned describer must beat. Genre: the nearest of ``zero_shot.yaml``'s sentences by
cosine of sentence embeddings (rich sentences, because bare genre names are told apart badly). Mood:
the nearest words of the mood table; tempo and mode follow their arousal and valence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from melodify_lib.describe import prose
from melodify_lib.describe.embedding import embed
from melodify_lib.describe.local import check_genre
from melodify_lib.fingerprint import fingerprint
from melodify_lib.genres import GENRES
from melodify_lib.moods import MOODS, affect
from melodify_lib.nouns import Caption, MusicDescription, StageVersion
from melodify_lib.tables import read_yaml

if TYPE_CHECKING:
    import numpy.typing as npt

    from melodify_lib.settings import Settings

    Vectors = npt.NDArray[np.float32]

_TABLE: Any = read_yaml(Path(__file__).with_suffix(".yaml"))
SAYS: dict[str, list[str]] = {genre: row["says"] for genre, row in _TABLE.items()}
"""What one would say of pictures that a genre goes with."""
_MOODS_SAID = 3
_VALENCE_TO_MODE = 6.0  # log-odds of major for a valence of 1, as the offline teacher has it


def from_settings(settings: Settings) -> ZeroShotDescriber:
    """The describer; no setting bears on it."""
    return ZeroShotDescriber()


class ZeroShotDescriber:
    """Describes the music for a caption without having been tuned."""

    @property
    def version(self) -> StageVersion:
        return StageVersion(name="zero_shot", version=fingerprint("describe", "moods.py"))

    def export(self, folder: Path) -> None:
        """Nothing was learned, so there is nothing to write but the folder."""
        folder.mkdir(parents=True, exist_ok=True)

    def describe(self, caption: Caption, genre: str | None = None) -> MusicDescription:
        """Describe the music for `caption`, in `genre` if it is given."""
        return self.describe_many([caption], genre)[0]

    def describe_many(self, captions: Sequence[Caption], genre: str | None = None) -> list[MusicDescription]:
        """Describe the music for each of `captions`, in their order."""
        check_genre(genre, GENRES)
        vectors = embed([caption.text for caption in captions])
        return [self._description(caption, vector, genre) for caption, vector in zip(captions, vectors, strict=True)]

    def _description(self, caption: Caption, vector: Vectors, genre: str | None) -> MusicDescription:
        of_genres, of_moods = self._anchors
        name = genre or GENRES[int(np.argmax([(sentences @ vector).max() for sentences in of_genres]))]
        row = _TABLE[name]
        ranked = np.argsort(-(of_moods @ vector), kind="stable")
        moods = tuple(list(MOODS)[index] for index in ranked[:_MOODS_SAID])
        valence, arousal = affect(moods)
        slowest, fastest = row["bpm"]
        energy = (arousal + 1) / 2
        bpm = round(slowest + energy * (fastest - slowest))
        minor = math.log(row["minor"] / (1 - row["minor"])) - _VALENCE_TO_MODE * valence > 0
        attributes: dict[str, Any] = {"genre": name, "moods": moods, "instruments": row["instruments"], "keywords": ()}
        mode = "minor" if minor else "major"
        return MusicDescription.model_validate(
            {
                **attributes,
                "description": prose.write(
                    **attributes, bpm=bpm, energy=energy, mode=mode, seed=f"{caption.text} {name}"
                ),
                "bpm": bpm,
                "key": f"{'A' if minor else 'C'} {mode}",
            }
        )

    @cached_property
    def _anchors(self) -> tuple[list[Vectors], Vectors]:
        """Unit vectors of each genre's sentences, and of a sentence for each mood word ``[moods, 384]``."""
        of_genres = [embed(SAYS[genre]) for genre in GENRES]
        return of_genres, embed([f"a {mood} picture that feels {mood}" for mood in MOODS])
