"""The form of the dataset: one example is one line of Gemini's supervised-tuning JSONL, single turn.

The user's turn is the caption's text and nothing else; the model's turn is the JSON of
`MusicDescription.to_json`, with one key more: ``alternatives``, other genres that would fit as well, the
best first. Most pictures suit several genres, and a line that says which teaches more than one that
names a single one. Field names and roles: cloud.google.com/vertex-ai, "Prepare supervised
fine-tuning data for Gemini models".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import TypeAdapter, ValidationError

from melodify_lib.dataset.contents import has_half_surrogate
from melodify_lib.errors import DatasetError, DescriptionError
from melodify_lib.genres import Genre
from melodify_lib.nouns import ALTERNATIVES, MusicDescription, answer_fields, first_problem, is_blank, unique_keys

_GENRES: TypeAdapter[tuple[Genre, ...]] = TypeAdapter(tuple[Genre, ...])

SYSTEM_INSTRUCTION = (
    "You are a musician. You are given the caption of a picture. Describe the music that fits it, as one JSON object "
    "with: description (one or two sentences), genre, bpm, key, moods, instruments, keywords, alternatives (other "
    "genres that would fit as well, the best first)."
)
"""What the model is told beside the caption, when it is tuned and when it is asked."""


@dataclass(frozen=True)
class Example:
    """A caption and the music that fits it; `alternatives` are other genres that would, the best first.

    `line` is where it stands in its file, from 1.
    """

    caption: str
    description: MusicDescription
    alternatives: tuple[Genre, ...] = ()
    line: int = 0


def to_line(example: Example) -> str:
    """The example as one line of JSONL, without the line break."""
    answer = example.description.model_dump(mode="json") | {ALTERNATIVES: example.alternatives}
    record = {
        "systemInstruction": {"role": "system", "parts": [{"text": SYSTEM_INSTRUCTION}]},
        "contents": [
            {"role": "user", "parts": [{"text": example.caption}]},
            {"role": "model", "parts": [{"text": _dumped(answer)}]},
        ],
    }
    return _dumped(record)


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def parse_answer(text: str) -> tuple[MusicDescription, tuple[Genre, ...]]:
    """The music and the alternatives (none, if it names none) of a model's turn. Raises `DescriptionError`."""
    music = MusicDescription.parse(text)
    try:
        others = _GENRES.validate_python(answer_fields(text).get(ALTERNATIVES, ()))
    except ValidationError as error:
        raise DescriptionError(f"{ALTERNATIVES}: {first_problem(error)}") from None
    return music, tuple(genre for genre in dict.fromkeys(others) if genre != music.genre)


def read(path: Path) -> list[Example]:
    """All examples of a file. Raises `DatasetError`, naming the line and the field, for the first that breaks."""
    examples = [_example(line, number, path) for number, line in lines(path)]
    if not examples:
        raise DatasetError(f"{path}: the file holds no examples; write them with `melodify dataset build`")
    return examples


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers from 1."""
    try:
        with open_file(path) as file:
            yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error


def open_file(path: Path) -> BinaryIO:
    """Open a file that has an end: pipes may block for ever, devices go on for ever. Raises `DatasetError`."""
    if path.exists() and not path.is_file():
        raise DatasetError(f"cannot read {path}: it is not a regular file; give a JSONL file")
    return path.open("rb")


def parse_json(line: bytes) -> Any:
    """The JSON value of a line. Raises `ValueError` for what is not UTF-8, not JSON, or has a key twice."""
    try:
        return json.loads(line.decode("utf-8-sig"), parse_constant=_refuse_constant, object_pairs_hook=unique_keys)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _example(line: bytes, number: int, path: Path) -> Example:
    def broken(field: str, what: str) -> DatasetError:
        return DatasetError(f"{path}, line {number}: {field}: {what}; `melodify dataset check` lists every problem")

    try:
        record = parse_json(line)
    except ValueError as error:
        raise broken("line", f"not JSON ({error})") from None
    texts = []
    for turn, role in enumerate(("user", "model")):
        try:
            content = record["contents"][turn]
            texts.append("".join(part["text"] for part in content["parts"]))
        except (KeyError, IndexError, TypeError, AttributeError):
            raise broken(f"contents[{turn}]", "not a turn of {role, parts: [{text}]}") from None
        if content["role"] != role if "role" in content else True:
            raise broken(f"contents[{turn}].role", f"must be {role!r}")
        if has_half_surrogate(texts[turn]):
            raise broken(f"contents[{turn}].parts", "the text has half of a surrogate pair (\\ud800 to \\udfff)")
        if is_blank(texts[turn]):
            raise broken(f"contents[{turn}].parts", "the text is empty")
    if len(record["contents"]) != 2:
        raise broken("contents", f"has {len(record['contents'])} turns; this dataset is single-turn: user, then model")
    try:
        return Example(texts[0], *parse_answer(texts[1]), line=number)
    except DescriptionError as error:
        raise broken("contents[1].parts", str(error)) from None
