"""The local describer: a caption's sentence embedding, tuned linear heads, and prose from tables.

No account, no download. The heads are trained by `melodify_lib.tuning.local` on the same JSONL
that tunes Gemini; ``model/`` beside this module holds the shipped ones. A caption always gets the
same description.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from melodify_lib.describe import prose
from melodify_lib.describe.embedding import embed
from melodify_lib.describe.heads import Heads, load, save
from melodify_lib.errors import DescriptionError
from melodify_lib.fingerprint import fingerprint
from melodify_lib.genres import GENRES, Genre
from melodify_lib.moods import MOODS
from melodify_lib.nouns import Caption, MusicDescription, StageVersion

if TYPE_CHECKING:
    import numpy.typing as npt

    from melodify_lib.settings import Settings

    Outputs = dict[str, npt.NDArray[np.float32]]

SHIPPED = Path(__file__).parent / "model"

VALENCE_TO_MODE = 1.0
"""Log-odds of major for a picture of valence 1. Palmer et al. (2013): major goes with lighter, yellower pictures."""
AROUSAL_TO_ENERGY = 0.15
"""Share of the genre's tempo range for a picture of arousal 1. Palmer et al. (2013): faster goes with saturated."""
MOOD_AGREEMENT = 2.0
"""Log-odds that a mood word loses for each unit it lies off the tempo's arousal and the mode's valence."""


def from_settings(settings: Settings) -> LocalDescriber:
    """The describer of `settings.describer_model`, or the shipped one."""
    return LocalDescriber(load(settings.describer_model or SHIPPED))


class LocalDescriber:
    """Describes the music for a caption with tuned heads."""

    def __init__(self, heads: Heads) -> None:
        self.heads = heads

    @property
    def version(self) -> StageVersion:
        return StageVersion(name="local", version=f"{self.heads.version}+{fingerprint('describe', 'moods.py')}")

    def export(self, folder: Path) -> None:
        """Write the tuned part into `folder`, from which `Settings.describer_model` can load it."""
        save(folder, self.heads.card, self.heads.tensors)

    def describe(self, caption: Caption, genre: str | None = None) -> MusicDescription:
        """Describe the music for `caption`, in `genre` if it is given."""
        return self.describe_many([caption], genre)[0]

    def describe_many(self, captions: Sequence[Caption], genre: str | None = None) -> list[MusicDescription]:
        """Describe the music for each of `captions`, in their order; faster than one at a time."""
        check_genre(genre, self.heads.card.genres)
        if not captions:
            return []
        outputs = self.heads(embed([caption.text for caption in captions]))
        return [
            self._description(caption, {head: rows[index] for head, rows in outputs.items()}, genre)
            for index, caption in enumerate(captions)
        ]

    def _description(self, caption: Caption, outputs: Outputs, genre: str | None) -> MusicDescription:
        card = self.heads.card
        genres: list[Genre] = list(card.genres)
        row = int(np.argmax(outputs["genre"])) if genre is None else genres.index(cast(Genre, genre))
        name = genres[row]
        facts = card.genres[name]

        odds_of_minor = float(outputs["minor"][0] + self.heads.tensors["minor.genre_bias"][row])
        odds_of_minor -= VALENCE_TO_MODE * (caption.valence or 0)
        mode: Literal["major", "minor"] = "minor" if odds_of_minor > 0 else "major"
        energy = float(np.clip(outputs["energy"][0] + AROUSAL_TO_ENERGY * (caption.arousal or 0), 0, 1))
        feel = float(-np.tanh(odds_of_minor / 4)), 2 * energy - 1
        attributes = {
            "genre": name,
            "moods": _most(self._mood_odds(outputs, feel), card.moods, least=2, most=3, odds=-2.5),
            "instruments": self._instruments(outputs, name),
            "keywords": _most(outputs["keywords"], card.keywords, least=0, most=3, odds=-1.1),
        }
        chance = random.Random(f"{caption.text} {name}")  # a text seed is hashed: the same on every machine
        text = prose.write(**attributes, energy=energy, mode=mode, seed=f"{caption.text} {name}")  # type: ignore[arg-type]
        return MusicDescription.model_validate(
            {
                **attributes,
                "description": text,
                "bpm": facts.bpm_at(energy),
                "key": f"{chance.choice(facts.tonics[mode])} {mode}",
            }
        )

    def _mood_odds(self, outputs: Outputs, feel: tuple[float, float]) -> npt.NDArray[np.float32]:
        """Log-odds of each mood word, less where it disagrees with `feel`, the (valence, arousal) of mode and tempo.

        Half of each word's base rate is taken off, or the commonest words would be said of everything.
        """
        places = np.array([MOODS.get(mood, feel) for mood in self.heads.card.moods])
        base_rate = self.heads.tensors["moods.bias"]
        odds = outputs["moods"] - 0.5 * (base_rate - base_rate.mean())
        return np.asarray(odds - MOOD_AGREEMENT * np.linalg.norm(places - feel, axis=1), np.float32)

    def _instruments(self, outputs: Outputs, genre: Genre) -> tuple[str, ...]:
        """Who carries the tune, then those that are more likely to play than not: three at least, six at most."""
        card = self.heads.card
        rows = [row for row, (of_genre, _) in enumerate(card.players) if of_genre == genre]
        names = card.genres[genre].instruments
        lead = names[int(np.argmax(outputs["lead"][rows]))]
        chosen = {lead, *_most(outputs["instruments"][rows], names, least=3, most=6, odds=0.0)}
        return (lead, *(name for name in names if name in chosen and name != lead))


def check_genre(genre: str | None, known: Collection[str]) -> None:
    """Raise `DescriptionError`, with the genres there are, for one that a describer does not know."""
    if genre is not None and genre not in known:
        names = ", ".join(name for name in GENRES if name in known)
        raise DescriptionError(f"no genre {genre!r}; choose one of: {names}")


def _most(
    outputs: npt.NDArray[np.float32], names: tuple[str, ...], *, least: int, most: int, odds: float
) -> tuple[str, ...]:
    """The likeliest names, likeliest first: those above `odds` (log-odds), but `least` to `most` of them."""
    ranked = np.argsort(-outputs, kind="stable")
    count = int(np.clip((outputs > odds).sum(), least, most))
    return tuple(names[row] for row in ranked[:count])
