"""Requested against measured: many descriptions over all genres, played, and the finished files listened to.

The card's figures are the library's own; beside them stand those of `listen`, which the library does not use. From the
same files follow whether genres are told apart and whether seeds are different pieces (`style`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from melodify_lib.dataset.form import Example
from melodify_lib.errors import InputError
from melodify_lib.evaluate import style
from melodify_lib.evaluate.bars import Bar
from melodify_lib.evaluate.listen import Sound, key_credit, same_tempo
from melodify_lib.genres import GENRES
from melodify_lib.music.finish import LOUDNESS_LUFS, TRUE_PEAK_DBTP, check_request
from melodify_lib.music.measure import SILENCE_MAX_S
from melodify_lib.nouns import Measures, MusicDescription
from melodify_lib.stages import Musician

if TYPE_CHECKING:
    import numpy.typing as npt

LOUDNESS_TOLERANCE_LU = 0.5
DURATION_TOLERANCE_S = 0.5

Who = Literal["heard", "card"]


@dataclass(frozen=True, eq=False)
class Played:
    """One track: what was asked, what its card says, what was heard in its file."""

    description: MusicDescription
    seed: int
    seconds: float
    card: Measures
    heard: Measures
    features: npt.NDArray[np.float64]

    def credit(self, who: Who) -> dict[str, float]:
        """1 for a promise that is kept, ½ for the relative key, else 0; NaN for the tempo where there is no pulse."""
        got = self.heard if who == "heard" else self.card
        asked = self.description
        return {
            "tempo": float("nan") if self.heard.bpm is None else float(same_tempo(asked.bpm, got.bpm)),
            "key": key_credit(asked.key, got.key),
            "loudness": float(abs((got.loudness_lufs or 0.0) - LOUDNESS_LUFS) <= LOUDNESS_TOLERANCE_LU),
            "peak": float((got.true_peak_dbtp or 0.0) <= TRUE_PEAK_DBTP),
            "silence": float((got.longest_silence_s or 0.0) <= SILENCE_MAX_S),
            "duration": float(abs((got.duration_s or 0.0) - self.seconds) <= DURATION_TOLERANCE_S),
        }


BARS = {"tempo": 0.95, "key": 0.85, "loudness": 1.0, "peak": 1.0, "silence": 1.0, "duration": 1.0}
"""Promise → the share of tracks that must keep it."""
PROMISES = tuple(BARS)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was played and heard. `told_apart` is None where there were too few tracks, `overlaps` without scores."""

    musician: str
    played: list[Played]
    told_apart: style.ToldApart | None = None
    overlaps: dict[str, style.Overlap] = field(default_factory=dict)

    @property
    def genres(self) -> list[str]:
        present = {one.description.genre for one in self.played}
        return [genre for genre in GENRES if genre in present]

    def shares(self, who: Who, genre: str | None = None) -> dict[str, float]:
        """Promise → share of tracks (of `genre`, if given) that keep it; the tempo is of tracks with a pulse."""
        rows = [one.credit(who) for one in self.played if genre in (None, one.description.genre)]
        return {name: _mean(row[name] for row in rows) for name in PROMISES}

    def pulses(self, genre: str | None = None) -> int:
        """How many tracks (of `genre`, if given) have a pulse."""
        return sum(one.heard.bpm is not None for one in self.played if genre in (None, one.description.genre))

    def bars(self) -> list[Bar]:
        """The bars of this evaluation, by what was heard."""
        shares = self.shares("heard")
        bars = [Bar(name, shares[name], bar) for name, bar in BARS.items()]
        apart = float("nan") if self.told_apart is None else self.told_apart.accuracy
        few = f"{style.FOLDS} tracks at least of each of two genres or more" if self.told_apart is None else ""
        bars.append(Bar("genres told apart", apart, style.TOLD_APART, too_few=few))
        return bars

    def worst(self, count: int = 12) -> list[str]:
        """Tracks that were heard to break a promise, those that break the most first; each in a line."""
        broken = []
        for one in self.played:
            missed = [name for name, value in one.credit("heard").items() if value < 1]
            if missed:
                broken.append((sum(1 - one.credit("heard")[name] for name in missed), one, missed))
        broken.sort(key=lambda row: -row[0])
        return [_told(one, missed) for _, one, missed in broken[:count]]

    def to_dict(self) -> dict[str, Any]:
        """All of it but the features, as JSON types."""
        return {
            "musician": self.musician,
            "bars": [one.to_dict() for one in self.bars()],
            "total": {who: _rounded(self.shares(who)) for who in ("heard", "card")},
            "genres": {
                genre: {
                    "tracks": sum(one.description.genre == genre for one in self.played),
                    "with a pulse": self.pulses(genre),
                    "heard": _rounded(self.shares("heard", genre)),
                    "card": _rounded(self.shares("card", genre)),
                }
                for genre in self.genres
            },
            "worst": self.worst(),
            "told_apart": None if self.told_apart is None else self.told_apart.to_dict(),
            "overlaps": {genre: asdict(one) for genre, one in self.overlaps.items()},
            "tracks": [
                {
                    "description": one.description.model_dump(mode="json"),
                    "seed": one.seed,
                    "seconds": one.seconds,
                    "card": one.card.model_dump(exclude_none=True),
                    "heard": one.heard.model_dump(exclude_none=True),
                }
                for one in self.played
            ],
        }


def choose(examples: Sequence[Example], count: int, seed: int) -> list[MusicDescription]:
    """`count` descriptions of `examples`, as many of each genre (±1), drawn by `seed`; none twice.

    Raises `InputError` when there are not as many.
    """
    by_genre: dict[str, list[MusicDescription]] = {}
    for example in examples:
        by_genre.setdefault(example.description.genre, []).append(example.description)
    chance = np.random.default_rng(seed)
    genres = [genre for genre in GENRES if genre in by_genre]
    drawn = {genre: [by_genre[genre][row] for row in chance.permutation(len(by_genre[genre]))] for genre in genres}
    chosen = [drawn[genre][turn] for turn in range(len(examples)) for genre in genres if turn < len(drawn[genre])]
    if not 1 <= count <= len(chosen):
        raise InputError(f"the number of descriptions must be 1 to {len(chosen)}, as many as the file has; got {count}")
    return chosen[:count]


def evaluate(
    musician: Musician,
    descriptions: Sequence[MusicDescription],
    *,
    seconds: float,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Play each description, with a seed of its own from `seed` on, and listen.

    `on_progress` is called with tracks heard and in all.
    """
    check_request(seconds, seed)
    played = []
    for number, description in enumerate(descriptions):
        track = musician.play(description, seconds, seed + number)
        sound = Sound(track.files["track.wav"])
        played.append(Played(description, seed + number, seconds, track.card.measured, sound.measures, sound.features))
        if on_progress is not None:
            on_progress(number + 1, len(descriptions))
    first: dict[str, MusicDescription] = {}
    for one in descriptions:
        first.setdefault(one.genre, one)
    return Evaluation(
        musician=f"{musician.version.name} {musician.version.version}",
        played=played,
        told_apart=style.tell_apart([one.features for one in played], [one.description.genre for one in played]),
        overlaps=style.overlaps(first, seconds, seed) if musician.version.name == "arranger" else {},
    )


def _told(one: Played, missed: Sequence[str]) -> str:
    asked, heard = one.description, one.heard
    said = {
        "tempo": f"{asked.bpm} bpm asked, {heard.bpm} heard, {one.card.bpm} on the card",
        "key": f"{asked.key} asked, {heard.key} heard, {one.card.key} on the card",
        "loudness": f"{heard.loudness_lufs} LUFS",
        "peak": f"{heard.true_peak_dbtp} dBTP",
        "silence": f"{heard.longest_silence_s} s of silence",
        "duration": f"{heard.duration_s} s for {one.seconds:g}",
    }
    return f"{asked.genre}, seed {one.seed}: {'; '.join(said[name] for name in missed)}"


def _rounded(shares: dict[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(share) else round(share, 4) for name, share in shares.items()}


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return sum(known) / len(known) if known else float("nan")
