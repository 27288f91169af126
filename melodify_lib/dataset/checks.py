"""Checks JSONL files for supervised tuning, anybody's: Gemini's contract, balance, contents, likeness.

Limits: cloud.google.com/vertex-ai, "About supervised fine-tuning for Gemini models": 131,072 tokens
an example, 1 GB a file, 5,000 validation examples. Tokens are counted as four characters each.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from melodify_lib.dataset import likeness
from melodify_lib.dataset.contents import Found, has_half_surrogate, inspect, unescaped
from melodify_lib.dataset.form import open_file, parse_answer, parse_json
from melodify_lib.dataset.tables import GenreRow, unusual
from melodify_lib.describe.embedding import embed
from melodify_lib.errors import DatasetError, DescriptionError
from melodify_lib.genres import GENRES, Genre
from melodify_lib.nouns import DuplicateKeyError, MusicDescription, is_blank

MAX_TOKENS = 131_072
MAX_FILE_BYTES = 1_000_000_000
MAX_VALIDATION_EXAMPLES = 5_000
_BYTES_A_TOKEN = 4
_LINE_BYTES = MAX_TOKENS * _BYTES_A_TOKEN * 2  # JSON escapes and field names take room too
_BOM = b"\xef\xbb\xbf"
_MOST_TO_LEAST = 2.0  # examples of the commonest genre to those of the rarest, before the file counts as unbalanced


@dataclass(frozen=True)
class Problem:
    """What is wrong in which field of which line of a file (0: the file as a whole), and how to mend it."""

    file: Path
    line: int
    field: str
    what: str
    fix: str


@dataclass(frozen=True)
class Place:
    """Where a caption stands."""

    file: Path
    line: int


def check(
    *paths: Path,
    genres: Mapping[Genre, GenreRow] | None = None,
    alike: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """All problems of the files, which are taken as splits of one dataset; none means that Gemini can be tuned on them.

    `genres` are the rows that tempos and instruments are held against, if any (`tables.load_genres`).
    `alike` also looks for near-duplicates and for scenes on two sides of the split, at 15 ms a
    caption; `on_progress` is called with captions embedded and in all.
    Raises `DatasetError` only when a file cannot be opened.
    """
    problems: list[Problem] = []
    captions: dict[Place, str] = {}
    for path in distinct(paths):
        try:
            size = path.stat().st_size
            with open_file(path) as file:
                for number, field, what, fix in _check_lines(file, "validation" in path.stem, genres, captions, path):
                    problems.append(Problem(path, number, field, what, fix))
        except OSError as error:
            raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error
        if size > MAX_FILE_BYTES:
            what = f"{size:,} bytes; at most {MAX_FILE_BYTES:,} are taken"
            problems.append(Problem(path, 0, "file", what, "split the file"))
    if alike:
        problems += _check_likeness(captions, on_progress)
    return problems


def distinct(paths: Iterable[Path]) -> list[Path]:
    """Each file once, under the name that it was given first."""
    found: dict[str, Path] = {}
    for path in paths:
        found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def _check_likeness(captions: Mapping[Place, str], on_progress: Callable[[int, int], None] | None) -> Iterator[Problem]:
    places, texts = list(captions), list(captions.values())
    vectors = embed(texts, on_progress)
    field = "contents[0].parts"
    named = set()
    for row, earlier, cosine in likeness.near_duplicates(vectors):
        if texts[row] == texts[earlier] and places[row].file == places[earlier].file:
            continue  # said already
        named.add(row)
        what = f"nearly the caption of {_where(places[earlier], places[row])} (cosine {cosine:.2f})"
        yield Problem(places[row].file, places[row].line, field, what, "reword or delete it")
    files = list(dict.fromkeys(place.file for place in places))
    of_files = np.array([files.index(place.file) for place in places])
    for row, earlier in likeness.same_scenes(texts, vectors, of_files):
        if row not in named:
            what = f"tells the scene of {_where(places[earlier], places[row])}, which is another split"
            yield Problem(places[row].file, places[row].line, field, what, "keep all captions of a scene in one split")


def _where(place: Place, seen_from: Place) -> str:
    return f"line {place.line}" if place.file == seen_from.file else f"{place.file}:{place.line}"


def _check_lines(
    file: Any,
    is_validation: bool,
    genre_rows: Mapping[Genre, GenreRow] | None,
    captions: dict[Place, str],
    path: Path,
) -> Iterator[tuple[int, str, str, str]]:
    seen: dict[bytes, int] = {}
    genres: Counter[str] = Counter()
    examples = number = 0
    while line := file.readline(_LINE_BYTES + 1):
        number += 1
        if len(line) > _LINE_BYTES:
            yield (number, "line", f"longer than {_LINE_BYTES:,} bytes", f"keep to {MAX_TOKENS:,} tokens a line")
            while line and not line.endswith(b"\n"):  # pass over the rest without holding it
                line = file.readline(_LINE_BYTES)
            examples += 1
            continue
        if not line.strip():
            yield (number, "line", "is blank", "delete the line")
            continue
        examples += 1
        if number > 1 and line.startswith(_BOM):
            yield (number, "line", "begins with a byte-order mark", "delete it; files were joined that each had one")
        problems, caption, music = _check_example(line)
        yield from ((number, *finding) for finding in problems)
        if music is not None:
            genres[music.genre] += 1
            if genre_rows is not None and music.genre in genre_rows:
                yield from ((number, *finding) for finding in unusual(music, genre_rows[music.genre]))
        if caption is not None:
            captions[Place(path, number)] = caption
            digest = hashlib.sha256(" ".join(caption.lower().split()).encode("utf-8", "replace")).digest()
            first = seen.setdefault(digest, number)
            if first != number:
                yield (number, "contents[0].parts", f"the same caption as in line {first}", "reword or delete it")
    yield from _check_file(examples, genres, is_validation)


def _check_file(examples: int, genres: Counter[str], is_validation: bool) -> Iterator[tuple[int, str, str, str]]:
    if not examples:
        yield (0, "file", "holds no examples", "write them with `melodify dataset build`")
    if is_validation and examples > MAX_VALIDATION_EXAMPLES:
        what = f"{examples:,} validation examples; at most {MAX_VALIDATION_EXAMPLES:,} are taken"
        yield (0, "file", what, "move some into the training file")
    if genres:
        missing = [genre for genre in GENRES if genre not in genres]
        if missing:
            yield (0, "genre", f"no example of {', '.join(missing)}", "add some, or the model cannot learn them")
        (most, count), (least, fewest) = genres.most_common()[0], genres.most_common()[-1]
        if count > _MOST_TO_LEAST * fewest:
            what = f"unbalanced: {count:,} of {most}, {fewest:,} of {least}"
            yield (0, "genre", what, f"keep the commonest within {_MOST_TO_LEAST:g} times the rarest")


Finding = tuple[str, str, str]


def _read_record(line: bytes) -> dict[str, Any] | Finding:
    """The object that a line is, or what is wrong with it."""
    try:
        record = parse_json(line)
    except DuplicateKeyError as error:
        return ("line", _short(error, 120), "keep one; readers see only the last")
    except ValueError as error:
        return ("line", f"not JSON ({_short(error)})", "write one JSON object a line, in UTF-8")
    if isinstance(record, dict):
        return record
    return ("line", f"is {_kind(record)}, not an object", "write one JSON object a line")


def _check_example(line: bytes) -> tuple[list[Finding], str | None, MusicDescription | None]:
    """(field, what, fix) of each problem of a line; the caption and the music as far as they can be read."""
    record = _read_record(line)
    if not isinstance(record, dict):
        return [record], None, None
    findings = [
        (_short(name), "is not a field of a tuning example", "use systemInstruction and contents")
        for name in record
        if name not in ("systemInstruction", "contents")
    ]
    instruction = None
    if "systemInstruction" in record:
        problems, instruction = _check_content("systemInstruction", record["systemInstruction"], ("system", None))
        findings += problems
    if instruction is not None:
        findings += _found("systemInstruction", _inspect_instruction(instruction))
    contents = record.get("contents")
    if not isinstance(contents, list) or len(contents) < 2:
        what = "is missing" if contents is None else f"is {_kind(contents)}"
        return [*findings, ("contents", what, "write a list: a user's turn, then the model's")], None, None

    turns: list[str | None] = []  # None: cannot be read
    for index, content in enumerate(contents):
        problems, text = _check_content(f"contents[{index}]", content, ("user", "model")[index % 2 :][:1])
        findings += problems
        turns.append(text)
    if len(contents) % 2:
        findings.append(
            (f"contents[{len(contents) - 1}].role", "the last turn is not the model's", "end with role model")
        )
    tokens = sum(len(text or "") for text in (instruction, *turns)) / _BYTES_A_TOKEN
    if tokens > MAX_TOKENS:
        findings.append(
            ("contents", f"about {tokens:,.0f} tokens; at most {MAX_TOKENS:,} are taken", "shorten the texts")
        )
    for index, text in enumerate(turns):
        findings += _check_contents(f"contents[{index}]", text or "", is_answer=index % 2 == 1)
    caption, answer = turns[0], turns[-1]
    if caption is None or answer is None or None in turns:  # said already
        return findings, None, None
    try:
        return findings, caption, parse_answer(answer)[0]
    except DescriptionError as error:
        field = f"contents[{len(contents) - 1}].parts"
        return [*findings, (field, _short(error, 200), "answer with the JSON of a music description")], caption, None


def _check_content(field: str, content: Any, roles: tuple[str | None, ...]) -> tuple[list[Finding], str | None]:
    """What is wrong with the form of one turn, and its text if that can be read."""
    wanted = roles[0]
    if not isinstance(content, dict):
        return [(field, f"is {_kind(content)}, not an object", 'write {"role": …, "parts": [{"text": …}]}')], None
    findings = [
        (f"{field}.{_short(name)}", "is not a field of a turn", "use role and parts")
        for name in content
        if name not in ("role", "parts")
    ]
    if content.get("role") not in roles:
        findings.append((f"{field}.role", f"is {_short(content.get('role'))!r}", f"write {wanted!r}; turns alternate"))
    parts = content.get("parts")
    if not isinstance(parts, list) or not parts:
        return [*findings, (f"{field}.parts", f"is {_kind(parts)}", 'write a list: [{"text": …}]')], None
    texts: list[str] = []
    for index, part in enumerate(parts):
        where = f"{field}.parts[{index}]"
        findings += [
            (f"{where}.{_short(name)}", "is not a field of a part", "a part holds a text and nothing else")
            for name in (part if isinstance(part, dict) else ())
            if name != "text"
        ]
        value = part.get("text") if isinstance(part, dict) else None
        if not isinstance(value, str):
            what = "has no text" if value is None else f"is {_kind(value)}"
            findings.append((f"{where}.text", what, "write the text as a string that is not empty"))
        elif has_half_surrogate(value):
            findings.append((f"{where}.text", _HALF, _WHOLE))
        elif is_blank(value):
            findings.append((f"{where}.text", "is empty", "write the text as a string that is not empty"))
        else:
            texts.append(value)
    return findings, "".join(texts) if len(texts) == len(parts) else None


def _check_contents(field: str, text: str, is_answer: bool) -> Iterator[Finding]:
    if is_answer:  # JSON in JSON: it has escapes of its own
        text = unescaped(text)
        if has_half_surrogate(text):
            yield (f"{field}.parts", _HALF, _WHOLE)
    yield from _found(field, inspect(text))


def _found(field: str, found: Iterable[Found]) -> Iterator[Finding]:
    return ((f"{field}.parts", _short(what), fix) for what, fix in found)


@lru_cache(maxsize=4)
def _inspect_instruction(text: str) -> tuple[Found, ...]:
    """It is the same in all lines, mostly."""
    return tuple(inspect(text))


_HALF = "has half of a surrogate pair (\\ud800 to \\udfff)"
_WHOLE = "write the whole character, or delete it"


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    kind = "missing" if value is None else names.get(type(value), "of another kind")
    return f"{kind} of {len(value)}" if isinstance(value, list) else kind


def _short(value: object, limit: int = 80) -> str:
    text = " ".join(str(value)[: 4 * limit].encode("utf-8", "replace").decode().split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
