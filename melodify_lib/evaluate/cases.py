"""Out-of-distribution captions: written by hand, unlike the dataset's grammar, with what is acceptable for each.

One JSON object a line: ``caption``, ``genres`` (all that a listener would accept), ``energy``
(low, high, any), ``mode`` (major, minor, any), and for some a ``paraphrase``: the same picture in
other words. These captions are never trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from melodify_lib.dataset.form import lines, parse_json
from melodify_lib.errors import DatasetError
from melodify_lib.genres import Genre
from melodify_lib.nouns import CAPTION_MAX_CHARS, first_problem

Text = Annotated[str, Field(min_length=1, max_length=CAPTION_MAX_CHARS)]


class Case(BaseModel):
    """A caption and what is acceptable for it; "any" where people would differ."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    caption: Text
    genres: Annotated[frozenset[Genre], Field(min_length=1)]
    energy: Literal["low", "high", "any"]
    mode: Literal["major", "minor", "any"]
    paraphrase: Text | None = None


def read_cases(path: Path) -> list[Case]:
    """All cases of a file. Raises `DatasetError`, naming the line and the field, for the first that breaks."""
    cases = []
    for number, line in lines(path):
        try:
            cases.append(Case.model_validate(parse_json(line)))
        except ValidationError as error:
            raise DatasetError(f"{path}, line {number}: {first_problem(error)}") from None
        except ValueError as error:
            raise DatasetError(f"{path}, line {number}: not JSON ({error})") from None
    if not cases:
        raise DatasetError(f"{path}: the file holds no cases")
    return cases
