"""What a client may ask for, and how it is told that it may not."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from melodify_lib.errors import DescriptionError, StoreError
from melodify_lib.music.finish import SECONDS_MAX, SECONDS_MIN
from melodify_lib.nouns import (
    Measures,
    MusicDescription,
    PermittedUse,
    Sha256,
    StageVersion,
    first_problem,
    is_blank,
    unique_keys,
)
from melodify_lib.store import check_name

BODY_MAX_BYTES = 1_500_000
"""What a shared Vertex endpoint lets through."""
INSTANCES_MAX = 16
PROMPT_MAX_CHARS = 6_000
"""More than any description has as a prompt. MusicGen's own limit is in tokens."""
MESSAGE_MAX_CHARS = 500
FOLDER = "songs"
RETRY_AFTER_S = 10
_OURS = re.compile(r"[0-9a-f]{16}|track\..*|card\.json")
"""What the server calls things itself: a folder of that name could stand where somebody's song must go."""


class Refusal(Exception):
    """An answer other than 200. The message says what is wrong and what to do; `field` is where in the request."""

    def __init__(self, status: int, message: str, *, field: str = "") -> None:
        super().__init__(message[:MESSAGE_MAX_CHARS])  # a part of it may be the client's own text
        self.status, self.field = status, field[:MESSAGE_MAX_CHARS]


def _whole(value: Any) -> Any:
    """Vertex AI makes floats of whole numbers: 7 arrives as 7.0."""
    if isinstance(value, float) and value.is_integer():
        if value >= 2**53:
            raise ValueError("a number of 2**53 or more has lost digits on its way as a float; use a smaller one")
        return int(value)
    return value


def _folder(name: str) -> str:
    name = name.removesuffix("/")
    try:
        check_name(name)
    except StoreError as error:
        raise ValueError(str(error)) from None
    if any(len(part.encode()) > 255 for part in name.split("/")):
        raise ValueError("a part between two '/' is longer than 255 bytes; shorten it")
    if any(_OURS.fullmatch(part) for part in name.split("/")):
        raise ValueError("no part between two '/' may look like the name of a song's folder or file; choose another")
    return name


def _seen(text: str) -> str:
    if is_blank(text):
        raise ValueError("the prompt is empty; say what the music should be like")
    return text


Seconds = Annotated[float, Field(strict=True, ge=SECONDS_MIN, le=SECONDS_MAX, allow_inf_nan=False)]
Seed = Annotated[int, BeforeValidator(_whole), Field(strict=True, ge=0, lt=2**63)]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Parameters(_Message):
    """What holds for all instances that do not say otherwise, and how long the request may take."""

    seconds: Seconds = 20.0
    seed: Seed = 0
    timeout_s: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None


class Instance(_Message):
    """One song. `output` is the folder in the store under which it gets a folder of its own."""

    description: MusicDescription | None = None
    prompt: Annotated[str, Field(strict=True, max_length=PROMPT_MAX_CHARS), AfterValidator(_seen)] | None = None
    seconds: Seconds | None = None
    seed: Seed | None = None
    output: Annotated[str, Field(strict=True, max_length=200), AfterValidator(_folder)] = FOLDER

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.description is None) == (self.prompt is None):
            raise ValueError("give either a description or a prompt")
        return self


class PredictRequest(_Message):
    instances: Annotated[list[Instance], Field(min_length=1, max_length=INSTANCES_MAX)]
    parameters: Parameters | None = None


@dataclass(frozen=True)
class Wanted:
    """A song that was asked for. Without a description, the prompt is all that is known of it."""

    description: MusicDescription | None
    prompt: str
    seconds: float
    seed: int
    folder: str


class PromptCard(_Message):
    """The card of a song from a free prompt: a `TrackCard` with the prompt where the description would be.

    A prompt that reads as a description gets a `TrackCard`, and can be replayed; of this one nothing is made up.
    """

    prompt: str
    seed: int
    musician: StageVersion
    licence: str
    permitted_use: PermittedUse
    requested: Measures
    measured: Measures
    files: dict[str, Sha256]


def read_request(data: bytes) -> tuple[list[Wanted], float | None]:
    """The songs that a body asks for, in its order, and the seconds that it allows. Raises `Refusal`."""
    try:
        request = PredictRequest.model_validate(json.loads(data, object_pairs_hook=unique_keys))
    except ValidationError as error:
        raise Refusal(400, first_problem(error), field=_place(error.errors(include_url=False)[0]["loc"])) from None
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f'the body is not JSON ({error}); send {{"instances": [{{"prompt": "…"}}]}}') from None
    parameters = request.parameters or Parameters()
    return [_wanted(instance, parameters) for instance in request.instances], parameters.timeout_s


def _wanted(instance: Instance, parameters: Parameters) -> Wanted:
    description = instance.description
    if description is None:
        with suppress(DescriptionError):  # a prompt in somebody's own words
            description = MusicDescription.parse(instance.prompt or "")
    return Wanted(
        description,
        description.to_prompt() if description else instance.prompt or "",
        parameters.seconds if instance.seconds is None else instance.seconds,
        parameters.seed if instance.seed is None else instance.seed,
        instance.output,
    )


def _place(parts: tuple[int | str, ...]) -> str:
    """``instances[0].seed``"""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")
