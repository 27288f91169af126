"""What every language model that teaches is asked, the one form of its answer, and what is wrong with an answer.

A model's answer is untrusted text: it becomes an example only when it fits the form, the assignment
and the tables, and holds nothing that `melodify_lib.dataset.contents` forbids.
"""

from __future__ import annotations

import json
import random
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from melodify_lib.dataset.contents import inspect, unescaped
from melodify_lib.dataset.form import Example
from melodify_lib.dataset.tables import Tables, unusual
from melodify_lib.dataset.teachers import Assignment
from melodify_lib.errors import CaptionError, DescriptionError
from melodify_lib.genres import Genre
from melodify_lib.moods import MOODS
from melodify_lib.nouns import Caption, MusicDescription, first_problem, sha256

CAPTION_MAX_CHARS = 400

INSTRUCTION = """\
You write examples from which a model learns to choose music for pictures.
You are given a picture in keywords, the mood it leaves, and the genre that somebody would play to it, with what is \
usual in that genre. Answer with one JSON object:
- caption: what a person who sees the picture would say of it, in English, in the manner that is asked for, at most \
60 words. It tells what is seen and how it feels, and says nothing of music.
- description: one or two English sentences on the music that fits: instruments, rhythm, harmony, mood. No names of \
artists, bands, songs or albums.
- genre: the genre that was given.
- bpm: a whole number inside the range that was given; calm pictures are slow, excited ones fast.
- key: a tonic and major or minor, such as "D minor"; bright pictures are mostly in major, dark ones in minor.
- moods: the given mood first, then one or two of the moods that were given.
- instruments: three to six of those that were given, the most telling first.
- keywords: up to three of the picture's, in lower case.
- alternatives: one to four other genres that would fit this picture as well, the best first.
Use your own words: no two examples may read alike. Invent no persons' names, addresses or numbers."""

_MANNERS = (
    "one plain sentence of eight to fifteen words",
    "two sentences, the second on light and colours",
    "a short caption without a verb",
    "as somebody tells a friend what is in the picture",
    "as an automatic captioner writes: objects first, then the atmosphere",
    "one long sentence rich in detail",
)


class Answer(BaseModel):
    """A picture's caption, and the music that fits it."""  # the models read this, and their schemas are made from it

    model_config = ConfigDict(extra="forbid")

    caption: str
    description: str
    genre: Genre
    bpm: int
    key: str
    moods: list[str]
    instruments: list[str]
    keywords: list[str]
    alternatives: list[Genre]


VERSION = sha256(f"{INSTRUCTION}{json.dumps(Answer.model_json_schema())}{_MANNERS}".encode())[:12]
"""Changes whenever the question does: answers to another question are not taken for answers to this one."""


class Unfit(ValueError):
    """An answer that cannot become an example: `kind` for counting, the message for asking again."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def question(assignment: Assignment, tables: Tables) -> dict[str, Any]:
    """What is said of one assignment."""
    scene, row = assignment.choice.scene, tables.genres[assignment.choice.genre]
    chance = random.Random(f"manner {assignment.seed} {assignment.choice.name}")
    return {
        "picture": {"shows": scene.name, "light": scene.light, "keywords": scene.keywords},
        "mood": assignment.choice.mood,
        "genre": assignment.choice.genre,
        "bpm": row.bpm,
        "instruments": row.instruments,
        "moods": row.moods,
        "manner": chance.choice(_MANNERS),
    }


def put(asked: dict[str, Any], refused: str = "") -> str:
    """The text of a question; `refused` says why the answer before was no good."""
    again = {"your_last_answer_was_refused": refused} if refused else {}
    return json.dumps({**asked, **again}, ensure_ascii=False)


def read(text: str, assignment: Assignment, tables: Tables) -> Example:
    """The example that an answer gives. Raises `Unfit`, with the first thing that is wrong."""
    for what, fix in inspect(unescaped(text)):  # before anything of it is quoted
        raise Unfit("contents", f"it {what}; {fix}")
    try:
        fields = Answer.model_validate_json(text).model_dump()
    except ValidationError as error:
        raise Unfit("form", first_problem(error)) from None
    try:
        caption = Caption.from_text(fields.pop("caption")).text
        alternatives = dict.fromkeys(fields.pop("alternatives"))
        music = MusicDescription.model_validate(fields)
    except (CaptionError, DescriptionError) as error:
        raise Unfit("caption", str(error)) from None
    except ValidationError as error:
        raise Unfit("form", first_problem(error)) from None
    if len(caption) > CAPTION_MAX_CHARS:
        raise Unfit("caption", f"caption: {len(caption)} characters; at most {CAPTION_MAX_CHARS} are wanted")
    _check(music, assignment, tables)
    return Example(caption, music, tuple(genre for genre in alternatives if genre != music.genre))


def _check(music: MusicDescription, assignment: Assignment, tables: Tables) -> None:
    """Is it what was asked for, and usual in its genre?"""
    choice = assignment.choice
    row = tables.genres[choice.genre]
    if music.genre != choice.genre:
        raise Unfit("genre", f"genre: {choice.genre!r} was asked for, not {music.genre!r}")
    for field, what, fix in unusual(music, row):
        raise Unfit(field, f"{field}: {what}; {fix}")
    if music.moods[0] != choice.mood:
        raise Unfit("moods", f"moods: {choice.mood!r} must come first")
    if strange := [mood for mood in music.moods if mood not in MOODS]:
        raise Unfit("moods", f"moods: {', '.join(strange)} not in {', '.join(row.moods)}")
