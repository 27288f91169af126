"""The offline teacher: tables and a grammar write captions and the music that fits them. No network.

A choice becomes one or more examples: the caption words the scene differently each time, the music follows the mood.
Tempo follows arousal and mode follows valence, the two strongest carriers of emotion in music
(Eerola et al. 2013), inside what is usual for the genre.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from melodify_lib.dataset.form import Example
from melodify_lib.dataset.tables import Choice, Tables
from melodify_lib.dataset.teachers import Assignment, Progress, Taught, Terms
from melodify_lib.describe import prose
from melodify_lib.errors import DatasetError
from melodify_lib.moods import MOODS
from melodify_lib.nouns import MusicDescription

if TYPE_CHECKING:
    from melodify_lib.settings import Settings

_ATTEMPTS = 40
_TONICS: dict[str, tuple[str, ...]] = {
    "major": ("C", "D", "Eb", "E", "F", "G", "A", "Bb"),
    "minor": ("C", "C#", "D", "E", "F#", "G", "A", "B"),
}
_GUITAR_TONICS = {"major": ("C", "D", "E", "G", "A"), "minor": ("D", "E", "F#", "A", "B")}
_GUITAR_GENRES = ("rock", "country", "blues", "folk", "metal")  # open strings decide their keys


def from_settings(settings: Settings, terms: Terms) -> OfflineTeacher:
    """The offline teacher; it costs nothing, so it needs no settings and no terms."""
    return OfflineTeacher()


class OfflineTeacher:
    """Words every assignment until nobody has said the same before."""

    def teach(self, assignments: Sequence[Assignment], tables: Tables, on_progress: Progress | None = None) -> Taught:
        """An example for each assignment. Raises `DatasetError` where the grammar has no other way to say it."""
        seen: set[str] = set()
        examples: list[Example | None] = []
        for done, assignment in enumerate(assignments, start=1):
            examples.append(_distinct(assignment, tables, seen))
            if on_progress is not None:
                on_progress(done, len(assignments))
        return Taught(examples)


def _distinct(assignment: Assignment, tables: Tables, seen: set[str]) -> Example:
    """An example whose caption and description nobody has had before."""
    for attempt in range(_ATTEMPTS):
        example = write(assignment.choice, tables, f"{assignment.seed} {attempt}")
        texts = {example.caption, example.description.description}
        if not texts & seen:
            seen |= texts
            return example
    name = assignment.choice.scene.name
    raise DatasetError(f"the grammar cannot word {name!r} in {_ATTEMPTS} ways; add patterns or scenes")


def write(choice: Choice, tables: Tables, seed: str) -> Example:
    """One example of a choice; another seed words it differently."""
    return Example(
        caption=_caption(choice, tables, random.Random(f"caption {seed} {choice.name}")),
        description=_description(choice, tables, random.Random(f"music {seed} {choice.name}"), seed),
        alternatives=choice.alternatives,
    )


def _caption(choice: Choice, tables: Tables, chance: random.Random) -> str:
    table, scene = tables.captions, choice.scene
    if scene.captions and chance.random() < table.own:
        return chance.choice(scene.captions)
    kind = chance.choices(list(table.share), weights=list(table.share.values()))[0]
    light, feel = table.light[scene.light], table.moods[choice.mood]
    # The classifier speaks in the vocabulary of `melodify_lib.moods`; people have more words.
    own = [choice.mood, *_companions(choice.mood, tuple(MOODS), 3)]
    mood, mood2 = (own[0], chance.choice(own[1:])) if kind == "classifier" else chance.sample([*feel.words, own[0]], 2)
    words = {
        "scene": scene.name,
        "subject": scene.subject,
        "view": chance.choice(table.views),
        "look": chance.choice(table.looks),
        "layout": chance.choice(table.layouts),
        "light": chance.choice(light.phrases),
        "colours": chance.choice(chance.choice((light.colours, light.colours, feel.colours))),
        "mood": mood,
        "mood2": mood2,
    }
    return prose.fill(chance.choice(table.patterns[kind]), words)


def _description(choice: Choice, tables: Tables, chance: random.Random, seed: str) -> MusicDescription:
    genre, (valence, arousal) = tables.genres[choice.genre], MOODS[choice.mood]
    slowest, fastest = genre.bpm
    energy = min(max(0.5 + 0.5 * arousal + chance.uniform(-0.08, 0.08), 0.0), 1.0)
    mode = "minor" if _is_minor(valence, genre.minor) else "major"
    tonics = (_GUITAR_TONICS if choice.genre in _GUITAR_GENRES else _TONICS)[mode]
    bpm = round(slowest + energy * (fastest - slowest))
    moods = (choice.mood, *_companions(choice.mood, genre.moods, chance.randint(1, 2)))
    instruments, keywords = _instruments(choice, tables, chance), choice.scene.keywords[:3]
    text = prose.write(
        genre=choice.genre,
        energy=energy,
        mode=mode,
        moods=moods,
        instruments=instruments,
        keywords=keywords,
        seed=f"{seed} {choice.name}",
    )
    return MusicDescription(
        description=text,
        genre=choice.genre,
        bpm=bpm,
        key=f"{chance.choice(tonics)} {mode}",
        moods=moods,
        instruments=instruments,
        keywords=keywords,
    )


def _is_minor(valence: float, usual_share: float) -> bool:
    """Dark pictures are in minor, bright ones in major; the genre's habit (log-odds) decides between."""
    return math.log(usual_share / (1 - usual_share)) - 6 * valence > 0


def _companions(mood: str, among: tuple[str, ...], count: int) -> tuple[str, ...]:
    """The moods of `among` that lie nearest to `mood` on the circumplex, and no further than half its radius."""
    others = sorted((other for other in among if other != mood), key=lambda other: math.dist(MOODS[other], MOODS[mood]))
    return tuple(other for other in others[:count] if math.dist(MOODS[other], MOODS[mood]) < 0.6)


def _instruments(choice: Choice, tables: Tables, chance: random.Random) -> tuple[str, ...]:
    """Two or three that suit the mood, the best first, over the genre's bass and drums."""
    line_up = tables.genres[choice.genre].instruments
    role = {name: tables.instruments[name].role for name in line_up}
    feel = MOODS[choice.mood]

    def strangeness(name: str) -> float:
        row = tables.instruments[name]
        return math.dist((row.valence, row.arousal), feel) + 0.12 * line_up.index(name) + chance.uniform(0, 0.25)

    melodic = sorted((name for name in line_up if role[name] in ("lead", "harmony")), key=strangeness)
    leads = [name for name in melodic if role[name] == "lead"][:1] or melodic[:1]
    others = [name for name in melodic if name not in leads]
    foundation = [name for name in line_up if role[name] in ("bass", "drums")]
    if feel[1] < -0.5:  # so calm a picture wants no drums where there is a bass to hold the piece
        foundation = [name for name in foundation if role[name] == "bass"] or foundation
    count = 2 if len(foundation) > 1 else 3 - (chance.random() < 0.4)
    return (*leads, *others[:count], *foundation)
