"""The local describer: a caption's sentence embedding, tuned heads, and prose from tables.

No account, no download. The heads are trained by `melodify_lib.tuning.local` on the same JSONL
that tunes Gemini; ``model/`` beside this module holds the shipped ones. A caption always gets the
same description.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from melodify_lib.describe import prose
from melodify_lib.describe.embedding import embed
from melodify_lib.describe.heads import Heads, load, save
from melodify_lib.errors import DescriptionError
from melodify_lib.fingerprint import fingerprint
from melodify_lib.genres import GENRES, Genre
from melodify_lib.moods import MOODS, OPPOSITE, apart
from melodify_lib.nouns import Caption, MusicDescription, StageVersion

if TYPE_CHECKING:
    import numpy.typing as npt

    from melodify_lib.settings import Settings

    Outputs = dict[str, npt.NDArray[np.float32]]

SHIPPED = Path(__file__).parent / "model"

WORDS_SHARE = 1 / 3
"""How much of what the heads hear of valence and arousal in a caption is added to the picture's own, if it is known.

A captioner's mood words say its figures in steps: a picture that is a little brighter has the same words, or suddenly
others. Palmer et al. (2013): major and faster music goes with lighter, yellower, more saturated pictures.
"""
_NAMED, _WRONG = (
    3.0,
    4.0,
)  # log-odds that a mood word gains when the caption names it, and loses when it would contradict
MOOD_AGREEMENT = 1.5
"""Log-odds that a mood word loses for each unit that it lies off the music's valence and arousal."""


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
        row = int(np.argmax(outputs["genre"])) if genre is None else genres.index(genre)
        name = genres[row]
        facts = card.genres[name]

        words = np.clip(outputs["affect"], -1, 1)
        said = [
            mood
            for mood in card.moods
            if mood in MOODS and re.search(rf"(?<![\w-]){mood}(?![\w-])", caption.text.lower())
        ]
        felt = words
        if said:  # a mood that is named outright counts twice as much as what the heads hear
            felt = (words + 2 * np.mean([MOODS[mood] for mood in said], axis=0)) / 3
        own = np.array([caption.valence, caption.arousal], float)  # NaN where it is not known
        valence, arousal = np.clip(np.where(np.isnan(own), felt, own + WORDS_SHARE * words), -1, 1)
        mode: Literal["major", "minor"] = "minor" if self.heads.odds_of_minor(row, valence) > 0 else "major"
        # Mood words and prose must not contradict the mode that was chosen.
        side = min(valence, 0.0) if mode == "minor" else max(valence, 0.0)
        attributes = {
            "genre": name,
            "moods": self._moods(outputs, (side, arousal), mode, said),
            "instruments": self._instruments(name, (valence, arousal), caption.text),
            "keywords": _most(outputs["keywords"], card.keywords, least=0, most=3, above=0.4),
        }
        # The tonic goes by genre and lead, not by the caption's words: a picture that is a little brighter stays in its
        # key. A text seed is hashed: the same on every machine.
        chance = random.Random(f"{name} {attributes['instruments'][0]}")
        energy, bpm = (arousal + 1) / 2, facts.bpm_at(arousal)
        text = prose.write(**attributes, bpm=bpm, energy=energy, mode=mode, seed=f"{caption.text} {name}")  # type: ignore[arg-type]
        return MusicDescription.model_validate(
            {
                **attributes,
                "description": text,
                "bpm": bpm,
                "key": f"{chance.choice(facts.tonics[mode])} {mode}",
            }
        )

    def _mood_odds(self, outputs: Outputs, feel: tuple[float, float]) -> npt.NDArray[np.float32]:
        """Log-share of each mood word, less where it disagrees with `feel`, the music's (valence, arousal).

        Half of each word's base rate is taken off, or the commonest words would be said of everything.
        """
        places = np.array([MOODS.get(mood, feel) for mood in self.heads.card.moods])
        base_rate = np.log(self._mood_rates)
        odds = np.log(np.maximum(outputs["moods"], 0.005)) - 0.5 * (base_rate - base_rate.mean())
        return np.asarray(odds - MOOD_AGREEMENT * np.linalg.norm(places - feel, axis=1), np.float32)

    def _moods(self, outputs: Outputs, feel: tuple[float, float], mode: str, said: Sequence[str]) -> tuple[str, ...]:
        """Two or three mood words, first those that the caption names; none against the mode or the first of them."""
        names = self.heads.card.moods
        odds = self._mood_odds(outputs, feel) + np.array([_NAMED if name in said else 0.0 for name in names])
        valence = np.array([MOODS[name][0] if name in MOODS else 0.0 for name in names])
        odds -= _WRONG * ((valence > 0.3) if mode == "minor" else (valence < -0.15))
        first = names[int(np.argmax(odds))]
        if first in MOODS:
            odds -= _WRONG * np.array([name in MOODS and apart(name, first) > OPPOSITE for name in names])
        return _most(odds, names, least=2, most=3, above=-2.5)

    @cached_property
    def _mood_rates(self) -> npt.NDArray[np.float32]:
        columns = self.heads.card.columns()
        start = columns["genre"] + columns["affect"]
        return np.maximum(self.heads.tensors["mean"][start : start + columns["moods"]], 1e-4)

    def _instruments(self, genre: Genre, feel: tuple[float, float], caption: str) -> tuple[str, ...]:
        """Who carries the tune, then those that are more likely to play than not: three at least, six at most.

        An instrument that the caption names carries it, if the genre has it.
        """
        card, tensors = self.heads.card, self.heads.tensors
        rows = [row for row, (of_genre, _) in enumerate(card.players) if of_genre == genre]
        names = card.genres[genre].instruments
        features = np.array([1.0, *feel], np.float32)
        lead = next(iter(prose.named(caption, names)), names[int(np.argmax(tensors["leads.weight"][rows] @ features))])
        chosen = {lead, *_most(tensors["plays.weight"][rows] @ features, names, least=3, most=6, above=0.0)}
        return (lead, *(name for name in names if name in chosen and name != lead))


def check_genre(genre: str | None, known: Collection[str]) -> None:
    """Raise `DescriptionError`, with the genres there are, for one that a describer does not know."""
    if genre is not None and genre not in known:
        names = ", ".join(name for name in GENRES if name in known)
        raise DescriptionError(f"no genre {genre!r}; choose one of: {names}")


def _most(
    outputs: npt.NDArray[np.float32], names: tuple[str, ...], *, least: int, most: int, above: float
) -> tuple[str, ...]:
    """The likeliest names, likeliest first: those above `above`, but `least` to `most` of them."""
    ranked = np.argsort(-outputs, kind="stable")
    count = int(np.clip((outputs > above).sum(), least, most))
    return tuple(names[row] for row in ranked[:count])
