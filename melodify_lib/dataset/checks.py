"""Checks a JSONL file against Gemini's contract for supervised tuning, line by line; anybody's file.

Limits: cloud.google.com/vertex-ai, "About supervised fine-tuning for Gemini models": 131,072 tokens
an example, 1 GB a file, 5,000 validation examples. Tokens are counted as four characters each.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melodify_lib.dataset.form import parse_json
from melodify_lib.errors import DatasetError, DescriptionError
from melodify_lib.genres import GENRES
from melodify_lib.nouns import MusicDescription

MAX_TOKENS = 131_072
MAX_FILE_BYTES = 1_000_000_000
MAX_VALIDATION_EXAMPLES = 5_000
_BYTES_A_TOKEN = 4
_LINE_BYTES = MAX_TOKENS * _BYTES_A_TOKEN * 2  # JSON escapes and field names take room too
_MOST_TO_LEAST = 2.0  # examples of the commonest genre to those of the rarest, before the file counts as unbalanced


@dataclass(frozen=True)
class Problem:
    """What is wrong in which field of which line (0: the file as a whole), and how to mend it."""

    line: int
    field: str
    what: str
    fix: str


def check(path: Path) -> list[Problem]:
    """All problems of a file, in the order of its lines; none means that Gemini can be tuned on it.

    Raises `DatasetError` only when the file cannot be opened.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            problems = list(_check_lines(file, "validation" in path.stem))
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error
    if size > MAX_FILE_BYTES:
        problems.append(Problem(0, "file", f"{size:,} bytes; at most {MAX_FILE_BYTES:,} are taken", "split the file"))
    return problems


def _check_lines(file: Any, is_validation: bool) -> Iterator[Problem]:
    seen: dict[bytes, int] = {}
    genres: Counter[str] = Counter()
    examples = number = 0
    while line := file.readline(_LINE_BYTES + 1):
        number += 1
        if len(line) > _LINE_BYTES:
            yield Problem(number, "line", f"longer than {_LINE_BYTES:,} bytes", f"keep to {MAX_TOKENS:,} tokens a line")
            while line and not line.endswith(b"\n"):  # pass over the rest without holding it
                line = file.readline(_LINE_BYTES)
            examples += 1
            continue
        if not line.strip():
            yield Problem(number, "line", "is blank", "delete the line")
            continue
        examples += 1
        problems, caption, genre = _check_example(line)
        yield from (Problem(number, field, what, fix) for field, what, fix in problems)
        if genre is not None:
            genres[genre] += 1
        if caption is not None:
            digest = hashlib.sha256(" ".join(caption.lower().split()).encode("utf-8", "replace")).digest()
            first = seen.setdefault(digest, number)
            if first != number:
                yield Problem(
                    number, "contents[0].parts", f"the same caption as in line {first}", "reword or delete it"
                )
    yield from _check_file(examples, genres, is_validation)


def _check_file(examples: int, genres: Counter[str], is_validation: bool) -> Iterator[Problem]:
    if not examples:
        yield Problem(0, "file", "holds no examples", "write them with `melodify dataset build`")
    if is_validation and examples > MAX_VALIDATION_EXAMPLES:
        what = f"{examples:,} validation examples; at most {MAX_VALIDATION_EXAMPLES:,} are taken"
        yield Problem(0, "file", what, "move some into the training file")
    if genres:
        missing = [genre for genre in GENRES if genre not in genres]
        if missing:
            yield Problem(0, "genre", f"no example of {', '.join(missing)}", "add some, or the model cannot learn them")
        (most, count), (least, fewest) = genres.most_common()[0], genres.most_common()[-1]
        if count > _MOST_TO_LEAST * fewest:
            what = f"unbalanced: {count:,} of {most}, {fewest:,} of {least}"
            yield Problem(0, "genre", what, f"keep the commonest within {_MOST_TO_LEAST:g} times the rarest")


Finding = tuple[str, str, str]


def _check_example(line: bytes) -> tuple[list[Finding], str | None, str | None]:
    """(field, what, fix) of each problem of a line; the caption and the genre as far as they can be read."""
    try:
        record = parse_json(line)
    except ValueError as error:
        return [("line", f"not JSON ({_short(error)})", "write one JSON object a line, in UTF-8")], None, None
    if not isinstance(record, dict):
        return [("line", f"is {_kind(record)}, not an object", "write one JSON object a line")], None, None
    findings = [
        (_short(name), "is not a field of a tuning example", "use systemInstruction and contents")
        for name in record
        if name not in ("systemInstruction", "contents")
    ]
    texts: list[str] = []
    if "systemInstruction" in record:
        findings += _check_content("systemInstruction", record["systemInstruction"], ("system", None), texts)
    contents = record.get("contents")
    if not isinstance(contents, list) or len(contents) < 2:
        what = "is missing" if contents is None else f"is {_kind(contents)}"
        return [*findings, ("contents", what, "write a list: a user's turn, then the model's")], None, None

    turns: list[str] = []
    for index, content in enumerate(contents):
        findings += _check_content(f"contents[{index}]", content, ("user", "model")[index % 2 :][:1], turns)
    if len(contents) % 2:
        findings.append(
            (f"contents[{len(contents) - 1}].role", "the last turn is not the model's", "end with role model")
        )
    tokens = sum(map(len, texts + turns)) / _BYTES_A_TOKEN
    if tokens > MAX_TOKENS:
        findings.append(
            ("contents", f"about {tokens:,.0f} tokens; at most {MAX_TOKENS:,} are taken", "shorten the texts")
        )
    if len(turns) != len(contents):  # a turn could not be read: said already
        return findings, None, None
    try:
        return findings, turns[0], MusicDescription.parse(turns[-1]).genre
    except DescriptionError as error:
        field = f"contents[{len(contents) - 1}].parts"
        return [*findings, (field, _short(error, 200), "answer with the JSON of a music description")], turns[0], None


def _check_content(field: str, content: Any, roles: tuple[str | None, ...], texts: list[str]) -> list[Finding]:
    """Check one turn; its text goes into `texts` when it can be read."""
    wanted = roles[0]
    if not isinstance(content, dict):
        return [(field, f"is {_kind(content)}, not an object", 'write {"role": …, "parts": [{"text": …}]}')]
    findings: list[Finding] = []
    if content.get("role") not in roles:
        findings.append((f"{field}.role", f"is {_short(content.get('role'))!r}", f"write {wanted!r}; turns alternate"))
    parts = content.get("parts")
    if not isinstance(parts, list) or not parts:
        return [*findings, (f"{field}.parts", f"is {_kind(parts)}", 'write a list: [{"text": …}]')]
    text = ""
    for index, part in enumerate(parts):
        value = part.get("text") if isinstance(part, dict) else None
        if not isinstance(value, str) or not value.strip():
            what = (
                "has no text" if value is None else f"is {_kind(value)}" if not isinstance(value, str) else "is empty"
            )
            return [*findings, (f"{field}.parts[{index}].text", what, "write the text as a string that is not empty")]
        text += value
    texts.append(text)
    return findings


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    kind = "missing" if value is None else names.get(type(value), "of another kind")
    return f"{kind} of {len(value)}" if isinstance(value, list) else kind


def _short(value: object, limit: int = 80) -> str:
    text = " ".join(str(value)[: 4 * limit].encode("utf-8", "replace").decode().split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
