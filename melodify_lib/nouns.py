"""The four nouns of the flow: image → `Caption` → `MusicDescription` → `Track` with its `TrackCard`.

A stage takes one noun and returns the next. `Caption`, `MusicDescription` and `TrackCard` come
from outside as often as from inside (a model's answer, a file), so they are frozen pydantic
models that validate; `Track` only ever comes from a musician and is a plain dataclass.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from melodify_lib.errors import CaptionError, CardError, DescriptionError, StoreError
from melodify_lib.genres import Genre

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from melodify_lib.music.formats import Format
    from melodify_lib.store import Store

BPM_MIN, BPM_MAX = 30, 260
CAPTION_MAX_CHARS = 4_000
DESCRIPTION_MAX_CHARS = 2_000
ANSWER_MAX_CHARS = 20_000
"""Of a model's answer, JSON or prompt: several times the longest description, and short enough to be read at once."""
ALTERNATIVES = "alternatives"
"""A key that a model's answer may carry beside a description's fields: other genres that would fit as well."""

TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
"""Tonics by pitch class, 0 = C, in the spelling with the fewest accidentals over both modes."""

_ENHARMONIC = {"Db": "C#", "D#": "Eb", "Gb": "F#", "G#": "Ab", "A#": "Bb", "Cb": "B", "B#": "C", "E#": "F", "Fb": "E"}
_KEY = re.compile(r"([A-Ga-g])\s*(#|♯|b|♭|[ -]?sharp|[ -]?flat)?\s*(major|minor|maj|min|m)?", re.IGNORECASE)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _one_line(text: str) -> str:
    """Collapse every run of white space, control and bidirectional characters to one space; no half surrogates."""
    text = re.sub(r"[\ud800-\udfff]", "\ufffd", text)
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]+", " ", text).strip()


def is_blank(text: str) -> bool:
    """Is there nothing in it to see: only white space, controls and characters of no width?"""
    return all(unicodedata.category(character) in ("Cc", "Cf", "Zs", "Zl", "Zp") for character in text)


class DuplicateKeyError(ValueError):
    """A JSON object has two values under one key, of which `json.loads` would drop the first unseen."""


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Hook for `json.loads`. Raises `DuplicateKeyError`."""
    fields: dict[str, Any] = {}
    for key, value in pairs:
        if key in fields:
            raise DuplicateKeyError(f"the key {_shorten(key)!r} stands twice in one object")
        fields[key] = value
    return fields


def normalize_key(text: str) -> str:
    """Return a key in the one spelling used everywhere, such as ``"D minor"`` or ``"Bb major"``.

    Reads ``"d min"``, ``"A# minor"``, ``"E-flat major"``; no mode means major.
    Raises `ValueError` for anything else.
    """
    match = _KEY.fullmatch(" ".join(text.split()))  # long runs of spaces would be tried in every division
    if match is None:
        raise ValueError(f"not a key: {text!r}; write a tonic and a mode, such as 'D minor' or 'Bb major'")
    letter, accidental, mode = match.groups(default="")
    # "Bb": the regex would read "b" of "bb" as a flat whatever the case of the letter, as intended.
    mark = {"#": "#", "♯": "#", "b": "b", "♭": "b"}.get(accidental.lower(), accidental.lower().strip(" -"))
    tonic = letter.upper() + {"sharp": "#", "flat": "b"}.get(mark, mark)
    is_minor = mode.lower() in ("minor", "min") or mode == "m"
    return f"{_ENHARMONIC.get(tonic, tonic)} {'minor' if is_minor else 'major'}"


def _sentence(text: str) -> str:
    """One line that ends in a full stop, so that the tail of `to_prompt` can follow it."""
    text = _one_line(text)
    if not any(character.isalnum() for character in text):
        raise ValueError("the description is empty; say in a sentence what the music is like")
    return text if text[-1] in ".!?" else text + "."


def _unique(terms: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(terms))


def _round_bpm(value: Any) -> Any:
    return round(value) if isinstance(value, float) and math.isfinite(value) else value


def _lower(value: Any) -> Any:
    return _one_line(value).lower() if isinstance(value, str) else value


Term = Annotated[
    str,
    BeforeValidator(_lower),
    # No comma, colon or full stop: the tail of a prompt is read back by them.
    StringConstraints(pattern=r"^[^\W_][\w &'#/+-]*$", max_length=60),
]
Terms = Annotated[tuple[Term, ...], AfterValidator(_unique), Field(max_length=16)]
Key = Annotated[str, AfterValidator(normalize_key)]
Affect = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Caption(_Frozen):
    """What a picture shows and how it feels.

    `valence` (unpleasant to pleasant) and `arousal` (calm to excited) are in [-1, 1], and None
    where only a text is known. `palette` holds the main colours as ``#rrggbb``, the largest first.
    `source` says who wrote the caption.
    """

    text: Annotated[str, AfterValidator(_one_line), Field(min_length=1, max_length=CAPTION_MAX_CHARS)]
    valence: Affect | None = None
    arousal: Affect | None = None
    palette: tuple[Annotated[str, StringConstraints(pattern=r"^#[0-9a-f]{6}$")], ...] = ()
    source: str = "text"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """A caption that somebody typed. Raises `CaptionError` when it is empty or too long."""
        if is_blank(text):
            raise CaptionError("the caption is empty; describe the picture in a sentence")
        if len(text) > CAPTION_MAX_CHARS:
            raise CaptionError(f"the caption has {len(text):,} characters; at most {CAPTION_MAX_CHARS:,} are read")
        return cls(text=text)


class MusicDescription(_Frozen):
    """The music in words and attributes, under the names that MusicGen was trained on.

    `bpm` is in beats a minute, `key` is ``"<tonic> major|minor"``, `moods`, `instruments` and
    `keywords` are lower-case terms, the most telling first.
    """

    description: Annotated[str, AfterValidator(_sentence), Field(min_length=1, max_length=DESCRIPTION_MAX_CHARS)]
    genre: Annotated[Genre, BeforeValidator(_lower)]
    bpm: Annotated[int, BeforeValidator(_round_bpm), Field(ge=BPM_MIN, le=BPM_MAX)]
    key: Key
    moods: Annotated[Terms, Field(min_length=1)]
    instruments: Annotated[Terms, Field(min_length=1)]
    keywords: Terms = ()

    @property
    def tonic(self) -> int:
        """Pitch class of the tonic, 0 = C to 11 = B."""
        return TONICS.index(self.key.split()[0])

    @property
    def mode(self) -> Literal["major", "minor"]:
        return "minor" if self.key.endswith("minor") else "major"

    def to_prompt(self) -> str:
        """Prose, then the ``key: value`` tail in which a quarter of MusicGen's training captions end.

        Source: `merge_text_conditions` in audiocraft's `music_dataset.py` (pairs joined by ". ").
        """
        pairs = [
            ("bpm", str(self.bpm)),
            ("key", self.key),
            ("genre", self.genre),
            ("moods", ", ".join(self.moods)),
            ("instrument", ", ".join(self.instruments)),
            ("keywords", ", ".join(self.keywords)),
        ]
        return f"{self.description} " + ". ".join(f"{name}: {value}" for name, value in pairs if value)

    def to_json(self) -> str:
        """The description as one line of JSON: the form in which a model is taught to answer."""
        return self.model_dump_json()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a model's answer: the JSON of `to_json` (fenced or not) or the prompt of `to_prompt`.

        Raises `DescriptionError`, naming the field and the value, for anything that does not fit.
        """
        fields = answer_fields(text)
        fields.pop(ALTERNATIVES, None)
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise DescriptionError(f"not a music description: {first_problem(error)}") from None


def answer_fields(text: str) -> dict[str, Any]:
    """The fields of a model's answer, JSON (fenced or not) or a prompt, unchecked. Raises `DescriptionError`."""
    text = text.strip()
    if len(text) > ANSWER_MAX_CHARS:
        raise DescriptionError(
            f"not a music description: {len(text):,} characters; at most {ANSWER_MAX_CHARS:,} are read"
        )
    if text.startswith("```") and text.endswith("```") and len(text) >= 6:
        text = text[3:-3].removeprefix("json").strip()
    if not text.startswith("{"):
        return _read_prompt(text)
    try:
        fields: dict[str, Any] = json.loads(text, object_pairs_hook=unique_keys)  # an object, as it starts with a brace
    except (ValueError, RecursionError) as error:
        try:
            return _read_prompt(text)  # prose may begin with a brace
        except DescriptionError:
            raise DescriptionError(f"not a music description: the JSON cannot be read ({error})") from None
    return fields


_TAIL = re.compile(
    r" bpm: (?P<bpm>[^.]*)\. key: (?P<key>[^.]*)\. genre: (?P<genre>[^.]*)"
    r"\. moods: (?P<moods>[^.]*)\. instrument: (?P<instruments>[^.]*?)(?:\. keywords: (?P<keywords>[^.]*?))?\.?"
)


def _read_prompt(text: str) -> dict[str, Any]:
    # The tail is the last one: no value in it may hold a full stop, so none can hold another tail.
    end = max(text.rfind(f"{stop} bpm: ") for stop in ".!?") + 1
    match = _TAIL.fullmatch(text, end) if end else None
    if match is None:
        raise DescriptionError(
            "not a music description: expected a sentence, then 'bpm: …. key: …. genre: …. moods: …. "
            f"instrument: …' (keywords may follow); got {_shorten(text)!r}"
        )
    fields: dict[str, Any] = {"description": text[:end], **match.groupdict(default="")}
    for name in ("moods", "instruments", "keywords"):
        fields[name] = tuple(term for term in fields[name].split(", ") if term)
    return fields


def _shorten(value: object, limit: int = 80) -> str:
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def first_problem(error: ValidationError) -> str:
    """The first problem of a pydantic error in one line: field, what is wrong, the value."""
    problem = error.errors(include_url=False)[0]
    field = "".join(f"{_shorten(part)}: " for part in problem["loc"])
    value = "" if isinstance(problem["input"], dict) else f" (got {_shorten(problem['input'])!r})"
    return f"{field}{problem['msg'].removeprefix('Value error, ')}{value}"


class Measures(_Frozen):
    """What a track was asked to be, or was measured to be. None: not asked, or not measurable."""

    bpm: float | None = None
    key: Key | None = None
    loudness_lufs: float | None = None
    true_peak_dbtp: float | None = None
    duration_s: float | None = None
    longest_silence_s: float | None = None
    seam_db: float | None = None
    """Of a loop: the step from its last sample to its first, against the largest that it makes elsewhere."""


class StageVersion(_Frozen):
    """Which implementation of a stage did the work, in the version that did it."""

    name: str
    version: str


class Take(_Frozen):
    """One of several takes: its seed, how well it fits what was asked (the more the better), and why."""

    seed: int
    fit: float
    reasons: tuple[str, ...]


PermittedUse = Literal["any", "non-commercial"]


class TrackCard(_Frozen):
    """How a track came to be: enough to make it again, byte for byte.

    `fallback_from` is the describer that was asked before `describer`, and failed. `watermark` names what a generator
    hides in its audio. `players` are the instruments that play, where they are known; `libraries` the versions of
    those that the sound comes from. `takes` are all that were played, the best first, where there was a choice. `files`
    maps each file's name to the sha256 of its bytes. A card holds no time and no machine, so that the same inputs give
    the same card.
    """

    image_sha256: Sha256 | None = None
    caption: Caption | None = None
    description: MusicDescription
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    is_loop: bool = False
    captioner: StageVersion | None = None
    describer: StageVersion | None = None
    fallback_from: StageVersion | None = None
    musician: StageVersion
    libraries: dict[str, str] = {}
    players: tuple[str, ...] = ()
    licence: str
    permitted_use: PermittedUse
    watermark: str | None = None
    requested: Measures
    measured: Measures
    takes: tuple[Take, ...] = ()
    files: dict[str, Sha256]

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a ``card.json``. Raises `CardError`, naming the field that does not fit."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise CardError(f"not a track card: {first_problem(error)}") from None


@dataclass(frozen=True, eq=False)
class Track:
    """Finished audio and its card.

    `audio` is float32 ``[channels, samples]`` in [-1, 1]; `files` are the finished files by name
    (``track.wav``, and ``track.mid`` where there is a score), whose hashes the card holds.
    """

    audio: npt.NDArray[np.float32]
    sample_rate: int
    files: dict[str, bytes]
    card: TrackCard

    @property
    def whole(self) -> dict[str, bytes]:
        """The files by name, and last ``card.json``, which vouches for them."""
        return {**self.files, "card.json": self.card.to_json().encode()}

    def with_card(self, **update: object) -> Track:
        """The same track with some fields of its card replaced, on the card and in ``track.wav``, which carries it."""
        from melodify_lib.music.formats import encode

        card = self.card.model_copy(update=update)
        wave = encode(self.audio, self.sample_rate, "wav", card)
        files = {"track.wav": wave, **{name: data for name, data in self.files.items() if name != "track.wav"}}
        hashes = {name: sha256(data) for name, data in files.items()}
        return replace(self, files=files, card=card.model_copy(update={"files": hashes}))

    def save(self, folder: Path | str, formats: Iterable[Format] = ()) -> None:
        """Write the files and ``card.json`` into `folder`, each whole or not at all, in place of an older track's.

        Each of `formats` adds a ``track.mp3``, ``track.flac`` or ``track.ogg``. They are not on the card: they can be
        made from the WAV again, and their bytes are their encoders' (Ogg's has a random number in it).
        """
        from melodify_lib.music.formats import encode

        exports = {
            f"track.{format}": encode(self.audio, self.sample_rate, format, self.card)
            for format in formats
            if format != "wav"
        }
        save_files(folder, {**exports, **self.whole})

    def put(self, store: Store, prefix: str = "") -> str:
        """Store the files and ``card.json`` under `prefix`; return the card's address.

        Where there is a card, the files that it names are whole.
        """
        from melodify_lib.store import put_all

        put_all(store, prefix, self.whole)
        return store.address(f"{prefix}card.json")

    def put_song(self, store: Store) -> str:
        """`put` under the hash of the card: the same request finds the same song, another never overwrites it."""
        return self.put(store, f"songs/{sha256(self.card.to_json().encode())[:16]}/")


def save_files(folder: Path | str, files: Mapping[str, bytes]) -> None:
    """Write a track's files into `folder`, each whole or not at all, in place of those of the track that is there.

    The last of `files` is ``card.json``, which vouches for the others.
    """
    from melodify_lib.music.formats import FORMATS
    from melodify_lib.store import FolderStore, put_all

    store = FolderStore(folder)
    with suppress(StoreError, CardError):  # no card, or not one of ours: then nothing here is
        older = TrackCard.from_json(store.get("card.json")).files
        store.delete("card.json")
        for name in (*older, *(f"track.{format}" for format in FORMATS)):
            if name.startswith(("track.", "stems/")) and name not in files:
                store.delete(name)
    put_all(store, "", files)


def own_seed(data: bytes) -> int:
    """The seed of a picture, or of what else music is made for, where no other is given: no two share their dice."""
    return int(sha256(data)[:13], 16)  # 52 bits, which JSON's numbers can hold


def sha256(data: bytes) -> str:
    """Hex digest by which pictures, models and files are named on cards and in caches."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """The same of a file, which is not read into memory. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
