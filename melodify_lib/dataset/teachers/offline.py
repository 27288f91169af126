"""The offline teacher: tables and a grammar write captions and the music that fits them. No network.

A choice becomes one or more examples: the caption words the scene differently each time, the music follows the mood.
Tempo follows arousal and mode follows valence, the two strongest carriers of emotion in music
(Eerola et al. 2013), inside what is usual for the genre.
"""

from __future__ import annotations

import math
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from melodify_lib.dataset.form import Example
from melodify_lib.dataset.tables import Choice, Tables
from melodify_lib.dataset.teachers import Assignment, Progress, Taught, Terms
from melodify_lib.describe import prose
from melodify_lib.errors import DatasetError
from melodify_lib.moods import MOODS, OPPOSITE, apart
from melodify_lib.nouns import MusicDescription

if TYPE_CHECKING:
    from melodify_lib.settings import Settings

MOST_SHARED = 0.6
"""Of the words of two captions of one scene: with more, sentence embeddings take them for the same (cosine 0.95)."""
_ATTEMPTS = 40
_TONICS: dict[str, tuple[str, ...]] = {
    "major": ("C", "D", "Eb", "E", "F", "G", "Ab", "A", "Bb"),
    "minor": ("C", "C#", "D", "E", "F", "F#", "G", "A", "Bb", "B"),
}
_HABITS: tuple[tuple[tuple[str, ...], dict[str, tuple[str, ...]]], ...] = (
    # open strings decide the keys of guitars, and horns in B flat and E flat like flats
    (
        ("rock", "country", "blues", "folk", "metal"),
        {"major": ("C", "D", "E", "G", "A"), "minor": ("D", "E", "F#", "A", "B")},
    ),
    (
        ("jazz", "soul", "funk", "latin", "disco"),
        {"major": ("C", "F", "Bb", "Eb", "Ab", "G"), "minor": ("C", "D", "F", "G", "A", "Bb")},
    ),
)


def from_settings(settings: Settings, terms: Terms) -> OfflineTeacher:
    """The offline teacher; it costs nothing, so it needs no settings and no terms."""
    return OfflineTeacher()


class OfflineTeacher:
    """Words every assignment until nobody has said the same before."""

    def teach(self, assignments: Sequence[Assignment], tables: Tables, on_progress: Progress | None = None) -> Taught:
        """An example for each assignment. Raises `DatasetError` where the grammar has no other way to say it."""
        told = _Told()
        examples: list[Example | None] = []
        for done, assignment in enumerate(assignments, start=1):
            examples.append(_distinct(assignment, tables, told))
            if on_progress is not None:
                on_progress(done, len(assignments))
        return Taught(examples)


@dataclass
class _Told:
    """What was said so far: captions and descriptions, and the words of each caption of a scene."""

    texts: set[str] = field(default_factory=set)
    of_scenes: dict[str, list[set[str]]] = field(default_factory=lambda: defaultdict(list))


def _distinct(assignment: Assignment, tables: Tables, told: _Told) -> Example:
    """An example whose caption and description nobody has had before, and whose caption is not nearly another's.

    Captions of one scene share at most `MOST_SHARED` of their words; where the scene has been told too
    often for that, the one that shares least is taken.
    """
    before = told.of_scenes[assignment.choice.scene.name]
    best: tuple[float, Example] | None = None
    for attempt in range(_ATTEMPTS):
        example = write(assignment.choice, tables, f"{assignment.seed} {attempt}")
        if {example.caption, example.description.description} & told.texts:
            continue
        shared = max((_shared(_words(example.caption), words) for words in before), default=0.0)
        if best is None or shared < best[0]:
            best = shared, example
        if shared <= MOST_SHARED:
            break
    if best is None:
        name = assignment.choice.scene.name
        raise DatasetError(f"the grammar cannot word {name!r} in {_ATTEMPTS} ways; add patterns or scenes")
    example = best[1]
    told.texts |= {example.caption, example.description.description}
    before.append(_words(example.caption))
    return example


def _words(caption: str) -> set[str]:
    return set(re.findall(r"\w+", caption.lower()))


def _shared(one: set[str], other: set[str]) -> float:
    """The share of all their words that two captions have in common (Jaccard 1901)."""
    return len(one & other) / len(one | other)


def write(choice: Choice, tables: Tables, seed: str) -> Example:
    """One example of a choice; another seed words it differently."""
    return Example(
        caption=_caption(choice, tables, random.Random(f"caption {seed} {choice.name}")),
        description=_description(choice, tables, random.Random(f"music {seed} {choice.name}"), seed),
        alternatives=choice.alternatives,
    )


def _caption(choice: Choice, tables: Tables, chance: random.Random) -> str:
    table, scene = tables.captions, choice.scene
    # Captions of its own were written in the scene's first mood.
    of_its_own = scene.captions and apart(choice.mood, next(iter(scene.music))) <= OPPOSITE
    if of_its_own and chance.random() < table.own:
        return chance.choice(scene.captions)
    kind = chance.choices(list(table.share), weights=list(table.share.values()))[0]
    light, feel = table.light[scene.light], table.moods[choice.mood]
    # The classifier speaks in the vocabulary of `melodify_lib.moods`; people have more words.
    own = [choice.mood, *_companions(choice, tuple(MOODS), 3)]
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
    tonics = next((keys for genres, keys in _HABITS if choice.genre in genres), _TONICS)[mode]
    bpm = round(slowest + energy * (fastest - slowest))
    moods = (choice.mood, *_companions(choice, genre.moods, chance.randint(1, 2)))
    instruments, keywords = _instruments(choice, tables, chance), choice.scene.keywords[:3]
    text = prose.write(
        genre=choice.genre,
        bpm=bpm,
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


def _companions(choice: Choice, among: tuple[str, ...], count: int) -> tuple[str, ...]:
    """The moods of `among` that lie nearest to the choice's on the circumplex, and no further than half its radius.

    Romantic and sensual lie near warm and hopeful; they are said of pictures of love only.
    """
    told = {"romantic", "sensual"} - (
        {"romantic", "sensual"} if "love" in choice.scene.keywords else {*choice.scene.music}
    )
    others = sorted(
        (one for one in among if one != choice.mood and one not in told), key=lambda one: apart(one, choice.mood)
    )
    return tuple(one for one in others[:count] if apart(one, choice.mood) < 0.6)


def _instruments(choice: Choice, tables: Tables, chance: random.Random) -> tuple[str, ...]:
    """Two or three that suit the mood, the best first, over the genre's bass and drums."""
    line_up = tables.genres[choice.genre].instruments
    role = {name: tables.instruments[name].role for name in line_up}
    feel = MOODS[choice.mood]

    def strangeness(name: str) -> float:
        row = tables.instruments[name]
        return math.dist((row.valence, row.arousal), feel) + 0.12 * line_up.index(name) + chance.uniform(0, 0.25)

    melodic = sorted((name for name in line_up if role[name] in ("lead", "harmony")), key=strangeness)
    seen = prose.named(choice.scene.name, melodic)
    leads = seen[:1] or [name for name in melodic if role[name] == "lead"][:1] or melodic[:1]
    others = [name for name in melodic if name not in leads]
    foundation = [name for name in line_up if role[name] in ("bass", "drums")]
    if feel[1] < -0.5:  # so calm a picture wants no drums where there is a bass to hold the piece
        foundation = [name for name in foundation if role[name] == "bass"] or foundation
    count = 2 if len(foundation) > 1 else 3 - (chance.random() < 0.4)
    return (*leads, *others[:count], *foundation)
