"""The genres, named exactly so everywhere: the lines of ``genres.txt``."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

GENRES: tuple[str, ...] = tuple((Path(__file__).parent / "genres.txt").read_text(encoding="utf-8").split("\n")[:-1])

if TYPE_CHECKING:
    Genre = str
else:
    Genre = Literal[GENRES]  # refused where it is another, and told in JSON schemas
