"""The journal of a paid teacher: what was asked, what was answered, what it cost; nothing is paid for twice.

``answers.journal`` holds one JSON object a line and is only ever appended to:

    {"asked": KEY, "attempt": 1, "most": 0.0043}                        about to be sent; it may cost so many dollars
    {"answered": KEY, "attempt": 1, "cost": 0.0008, "text": "…"}        a usable answer
    {"answered": KEY, "attempt": 1, "cost": 0.0008, "kind": "bpm", "reason": "…"}      one that is not
    {"unserved": KEY, "attempt": 1}                                     the service refused; nothing was billed

What was asked and never answered (a lost connection, a killed process) may have been billed, so it
counts at its most. A run that goes on reads the same figures as the one that was stopped had.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from melodify_lib.errors import DatasetError, MissingDependencyError, install

JOURNAL_FILE = "answers.journal"
_LOCK_FILE = ".answers.lock"


@dataclass(frozen=True)
class Answered:
    """One answer to the question `key`: usable `text`, or the `kind` of problem and the `reason`."""

    key: str
    text: str | None = None
    kind: str = ""
    reason: str = ""


class Journal:
    """An open journal: `answers` in the order in which they came, `spent` in dollars."""

    def __init__(self, file: IO[bytes], answers: list[Answered], spent: float) -> None:
        self._file = file
        self._open: dict[str, float] = {}
        self.answers = answers
        self.spent = spent

    def asked(self, key: str, attempt: int, most: float) -> None:
        """A request is about to be sent, which may cost `most` dollars."""
        # Not forced to the disk: it need only outlive this process, and the answer's line follows.
        self._write({"asked": key, "attempt": attempt, "most": most}, durable=False)
        self._open[key] = most
        self.spent += most

    def answered(self, answer: Answered, attempt: int, cost: float) -> None:
        """An answer came, and cost so much. On the disk when this returns."""
        what = {"text": answer.text} if answer.text is not None else {"kind": answer.kind, "reason": answer.reason}
        self._write({"answered": answer.key, "attempt": attempt, "cost": cost, **what}, durable=True)
        self.answers.append(answer)
        self.spent += cost - self._open.pop(answer.key)

    def unserved(self, key: str, attempt: int) -> None:
        """The service refused the request; it costs nothing."""
        self._write({"unserved": key, "attempt": attempt}, durable=False)
        self.spent -= self._open.pop(key)

    def _write(self, record: dict[str, Any], *, durable: bool) -> None:
        self._file.write(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        self._file.flush()
        if durable:
            os.fsync(self._file.fileno())


@contextmanager
def open_journal(folder: Path) -> Iterator[Journal]:
    """The journal of `folder`, this process's alone while it is open.

    Raises `DatasetError` when another process has it, when it cannot be written, or when it is damaged
    before its last line; a last line that was cut short is dropped.
    """
    try:
        from filelock import FileLock, Timeout
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"paid teachers need an extra: {install('cloud')}") from error

    path = folder / JOURNAL_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / _LOCK_FILE, timeout=0), path.open("a+b") as file:
            file.seek(0)
            answers, spent, whole = _read(file.read(), path)
            file.truncate(whole)
            yield Journal(file, answers, spent)
    except Timeout:
        raise DatasetError(
            f"another process is building a dataset in {folder}; wait for it, or use another --out"
        ) from None
    except OSError as error:
        raise DatasetError(f"cannot write {path}: {error.strerror or error}") from error


def _read(data: bytes, path: Path) -> tuple[list[Answered], float, int]:
    """Answers, dollars spent, and how many bytes are whole lines."""
    answers: list[Answered] = []
    spent, whole = 0.0, 0
    most: dict[str, float] = {}
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        try:
            record = json.loads(line)
            if not line.endswith(b"\n"):
                break
            if "asked" in record:
                most[record["asked"]] = _dollars(record["most"])
                spent += most[record["asked"]]
            elif "unserved" in record:
                spent -= most.pop(record["unserved"], 0.0)
            else:
                spent += _dollars(record["cost"]) - most.pop(record["answered"], 0.0)
                answers.append(
                    Answered(record["answered"], record.get("text"), record.get("kind", ""), record.get("reason", ""))
                )
        except (ValueError, KeyError, TypeError):
            if whole + len(line) == len(data):  # the last one: the process was killed while it wrote
                break
            raise DatasetError(f"{path}, line {number}: damaged; delete the line, or start in another folder") from None
        whole += len(line)
    return answers, spent, whole


def _dollars(value: float) -> float:
    """What a line says that it cost: never less than nothing. Raises `ValueError` for what is no amount."""
    if not math.isfinite(dollars := float(value)):
        raise ValueError("not an amount")
    return max(dollars, 0.0)
