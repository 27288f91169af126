"""The tables of `data/generate_jsonl/`, read and checked: what a musician may change without reading Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from melodify_lib.describe import prose
from melodify_lib.errors import DatasetError
from melodify_lib.genres import GENRES, Genre
from melodify_lib.moods import MOODS, OPPOSITE, apart
from melodify_lib.nouns import MusicDescription, first_problem
from melodify_lib.tables import read_yaml

T = TypeVar("T")


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Genres = Annotated[tuple[Genre, ...], BeforeValidator(_tuple), Field(min_length=1)]
Words = Annotated[tuple[str, ...], BeforeValidator(_tuple), Field(min_length=1)]


class GenreRow(_Row):
    """One genre: tempo range in beats a minute, share of minor keys, line-up, moods."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # the arranger may keep fields of its own here

    bpm: tuple[int, int]
    minor: Annotated[float, Field(gt=0, lt=1)]
    instruments: Words
    moods: Words


def unusual(music: MusicDescription, row: GenreRow) -> Iterator[tuple[str, str, str]]:
    """(field, what, fix) of what is not usual for the music's genre."""
    slowest, fastest = row.bpm
    if not slowest <= music.bpm <= fastest:
        what = f"{music.bpm} is outside {slowest} to {fastest}, the range of {music.genre}"
        yield "bpm", what, "choose a tempo inside it, or another genre"
    if strange := [name for name in music.instruments if name not in row.instruments]:
        what = f"{', '.join(strange)} not in the line-up of {music.genre}"
        yield "instruments", what, f"choose among {', '.join(row.instruments)}"


class InstrumentRow(_Row):
    """What an instrument is for, and how it feels."""

    role: Literal["lead", "harmony", "bass", "drums"]
    valence: float
    arousal: float


class SceneRow(_Row):
    """One picture: what it shows, and which genres a person would play to it in which mood.

    `captions` say the same in other words, as whole captions that no pattern gave their shape.
    """

    subject: str
    detail: str = ""
    light: str = ""
    keywords: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    music: dict[str, Genres]

    @property
    def name(self) -> str:
        """Subject and detail: what the scene is called, and how it is put into a sentence."""
        return f"{self.subject} {self.detail}".strip()


class SceneGroup(_Row):
    group: str
    keywords: tuple[str, ...]
    light: str
    scenes: tuple[SceneRow, ...]


class LightRow(_Row):
    phrases: Words
    colours: Words


class MoodRow(_Row):
    words: Words
    colours: Words


class CaptionTable(_Row):
    """How captions are worded."""

    light: dict[str, LightRow]
    moods: dict[str, MoodRow]
    patterns: dict[str, Words]
    share: dict[str, float]
    own: Annotated[float, Field(ge=0, le=1)]
    views: Words
    looks: Words
    layouts: Words


@dataclass(frozen=True)
class Tables:
    """All tables, with each scene's own light and keywords filled in from its group."""

    genres: Mapping[Genre, GenreRow]
    instruments: Mapping[str, InstrumentRow]
    scenes: tuple[SceneRow, ...]
    captions: CaptionTable


@dataclass(frozen=True)
class Choice:
    """A scene in one mood with one of the genres that fit it: what a teacher is asked to write of."""

    scene: SceneRow
    mood: str
    genre: Genre

    @property
    def name(self) -> str:
        return f"{self.scene.name} | {self.mood} | {self.genre}"

    @property
    def alternatives(self) -> tuple[Genre, ...]:
        """The other genres that fit the scene: those of the same mood first, then those of moods near it."""
        of_mood = self.scene.music[self.mood]
        near = (row for mood, row in self.scene.music.items() if apart(mood, self.mood) <= OPPOSITE)
        of_all = (genre for row in near for genre in row)
        fitting = dict.fromkeys((*of_mood, *of_all))
        return tuple(genre for genre in fitting if genre != self.genre)


def choices(scene: SceneRow) -> Iterator[tuple[int, Choice]]:
    """All choices of a scene, with their rank: 0 for the genre that fits a mood best."""
    for mood, genres in scene.music.items():
        for rank, genre in enumerate(genres):
            yield rank, Choice(scene, mood, genre)


def load(source: Path) -> Tables:
    """Read the tables of a folder, ``scenes/*.yaml`` among them. Raises `DatasetError`, naming the file and the row."""
    genres = load_genres(source)
    instruments = _read(source / "instruments.yaml", dict[str, InstrumentRow])
    captions = _read(source / "captions.yaml", CaptionTable)
    files = sorted((source / "scenes").glob("*.yaml"))
    if not files:
        raise DatasetError(f"no scenes in {source / 'scenes'}; --source takes the folder with the tables")
    groups = [group for file in files for group in _read(file, tuple[SceneGroup, ...])]
    scenes = tuple(
        scene.model_copy(
            update={
                "light": scene.light or group.light,
                "keywords": tuple(dict.fromkeys((*scene.keywords, *group.keywords))),
            }
        )
        for group in groups
        for scene in group.scenes
    )
    tables = Tables(genres, instruments, scenes, captions)
    _check_references(tables, source)
    return tables


def load_genres(source: Path) -> dict[Genre, GenreRow]:
    """Read ``genres.yaml`` of a folder. Raises `DatasetError`, naming the row."""
    return _read(source / "genres.yaml", dict[Genre, GenreRow])


def _read(path: Path, shape: type[T]) -> T:
    try:
        return TypeAdapter(shape).validate_python(read_yaml(path))
    except OSError as error:
        raise DatasetError(f"cannot read the table {path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise DatasetError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise DatasetError(f"{path}: {first_problem(error)}") from None


def _spoken(tables: Tables) -> dict[str, set[str]]:
    """What descriptions will speak of."""
    return {
        "genres": set(tables.genres),
        "instruments": {name for row in tables.genres.values() for name in row.instruments},
        "keywords": {word for scene in tables.scenes for word in scene.keywords},
    }


def _check_references(tables: Tables, source: Path) -> None:
    """Every name that a table uses must be a row of the table that it points to."""

    def require(names: Any, known: Any, what: str, where: str) -> None:
        for name in names:
            if name not in known:
                raise DatasetError(f"{source / where}: no {what} {name!r}")

    require(GENRES, tables.genres, "genre", "genres.yaml")
    unspoken = {kind: names - prose.speaks_of(kind) for kind, names in _spoken(tables).items()}
    for kind, names in unspoken.items():
        if names:
            raise DatasetError(f"melodify_lib/describe/prose.yaml has no words for {', '.join(sorted(names))} ({kind})")
    for row in tables.genres.values():
        require(row.instruments, tables.instruments, "instrument", "genres.yaml")
        require(row.moods, MOODS, "mood", "genres.yaml")
    require(MOODS, tables.captions.moods, "mood", "captions.yaml")
    require(tables.captions.share, tables.captions.patterns, "kind of pattern", "captions.yaml")
    for scene in tables.scenes:
        require([scene.light], tables.captions.light, "light", "scenes")
        require(scene.music, MOODS, "mood", "scenes")
    doubled = [name for name, count in Counter(scene.name for scene in tables.scenes).items() if count > 1]
    doubled += [
        text for text, count in Counter(text for one in tables.scenes for text in one.captions).items() if count > 1
    ]
    if doubled:
        raise DatasetError(f"{source / 'scenes'}: {doubled[0]!r} stands there twice")
