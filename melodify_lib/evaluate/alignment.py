"""Does the music fit the picture? Pictures and their music against pictures and the music of others.

Each picture's valence and arousal are set beside those heard in its audio. If music fits, a picture lies nearer to its
own music than to another's: the mean distance of true pairs is compared with that after shuffling (a permutation test;
Phipson & Smyth 2010: p = (1 + at least as good) / (1 + shuffles)). Then pictures are changed in steps, and the music
must go the way that published studies say, or stay.

The captioner's valence and arousal are what drives the music, so a match with them shows that the way from caption to
sound holds; that the captioner reads pictures well it cannot show. The plain formula of Valdez & Mehrabian, which takes
nothing from the captioner, stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from melodify_lib import moods
from melodify_lib.errors import InputError
from melodify_lib.evaluate import affect
from melodify_lib.evaluate.bars import Bar
from melodify_lib.evaluate.listen import Cues, Sound
from melodify_lib.evaluate.pictures import CHANGES, Axis, Change
from melodify_lib.music.finish import check_request
from melodify_lib.nouns import Caption, MusicDescription
from melodify_lib.stages import Captioner, Describer, Musician

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

    Floats = npt.NDArray[np.float64]

Way = Literal["right", "strictly", "reversed"]
AXES: tuple[Axis, ...] = ("valence", "arousal")
LARGEST_P = 0.01
FEWEST_PICTURES = 60
"""On fewer, the bar is not held to be reached."""
STEPS_RIGHT = 0.90
STEPS = 4
OTHER_SEEDS = 4
"""With which the music of a picture that is changed is played, too, to learn what chance alone does."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Pictures, by one reading of them, against audio; both ``[pictures, (valence, arousal)]`` in standard deviations.

    `distance` is the mean distance of true pairs and `shuffled` that of each shuffle; `effect` is Cohen's d of the
    distances of true pairs against those of all others; `r` and `r_p` are the correlation of each axis and its p-value
    by the same shuffles, one-sided.
    """

    picture: Floats
    audio: Floats
    distance: float
    shuffled: Floats
    p: float
    effect: float
    r: tuple[float, float]
    r_p: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, without the single shuffles."""
        return {
            "distance": round(self.distance, 4),
            "distance shuffled": round(float(self.shuffled.mean()), 4),
            "p": round(self.p, 6),
            "cohens_d": round(self.effect, 4),
            **{axis: {"r": round(r, 4), "p": round(p, 6)} for axis, r, p in zip(AXES, self.r, self.r_p, strict=True)},
        }


def compare(picture: Floats, audio: Floats, *, permutations: int = 10_000, seed: int = 0) -> Comparison:
    """True pairs (row by row) against shuffled ones. Raises `InputError` for fewer than three pairs."""
    if len(picture) < 3:
        raise InputError(f"to shuffle pairs takes 3 pictures at least, and to say much 60; got {len(picture)}")
    picture, audio = affect.standardised(picture), affect.standardised(audio)
    between = np.linalg.norm(picture[:, None] - audio[None], axis=2)
    true, others = np.diag(between), between[~np.eye(len(between), dtype=bool)]
    rows = np.arange(len(picture))
    chance = np.random.default_rng(seed)
    shuffles = [chance.permutation(len(picture)) for _ in range(permutations)]
    distances = np.array([between[rows, order].mean() for order in shuffles])
    r = (picture * audio).mean(axis=0)
    shuffled_r = np.array([(picture * audio[order]).mean(axis=0) for order in shuffles])
    spread = np.sqrt((true.var(ddof=1) + others.var(ddof=1)) / 2)
    slack = 1e-12  # a shuffle that changes nothing is as good, whatever the rounding
    p_of_r = (1 + (shuffled_r >= r - slack).sum(axis=0)) / (1 + permutations)
    return Comparison(
        picture,
        audio,
        distance=float(true.mean()),
        shuffled=distances,
        p=float((1 + (distances <= true.mean() + slack).sum()) / (1 + permutations)),
        effect=float((others.mean() - true.mean()) / spread) if spread > 0 else 0.0,
        r=(float(r[0]), float(r[1])),
        r_p=(float(p_of_r[0]), float(p_of_r[1])),
    )


@dataclass(frozen=True)
class Step:
    """One step of a change: how far caption, description and audio went the right way.

    The caption's and the description's moods in units of the circumplex, the audio in standard deviations.
    `same_genre` when the description kept its genre; `stays` is what counts as no move of the audio.
    """

    picture: str
    change: str
    step: int
    caption: float
    description: float
    audio: float
    same_genre: bool
    stays: float

    @property
    def right(self) -> bool:
        """Did the music go the right way, or stay?"""
        return self.audio >= -self.stays

    @property
    def strictly(self) -> bool:
        """Did it go the right way, or not move at all?"""
        return self.audio >= 0

    @property
    def reversed(self) -> bool:
        """Would it be `right` if the other way were the right one? What an allowance gives away."""
        return -self.audio >= -self.stays


@dataclass(frozen=True, eq=False)
class Evaluation:
    """`comparisons` by who read the pictures; `steps` by ``free`` (whatever genre is described) and ``held``.

    `stays` is, for each axis, the deviation that another seed alone makes: a smaller step is none.
    """

    names: list[str]
    captions: list[Caption]
    descriptions: list[MusicDescription]
    comparisons: dict[str, Comparison]
    stays: dict[Axis, float]
    steps: dict[str, list[Step]]
    musician: str

    def share(self, genre: str, change: str | None = None, *, by: Way = "right") -> float:
        """Share of steps (of `change`, if given) that went the right way or stayed."""
        good = [getattr(one, by) for one in self.steps[genre] if change in (None, one.change)]
        return sum(good) / len(good) if good else float("nan")

    def bars(self) -> list[Bar]:
        """The bars of this evaluation; p is not held to be reached on fewer than `FEWEST_PICTURES`."""
        count = len(self.names)
        few = "" if count >= FEWEST_PICTURES else f"at least {FEWEST_PICTURES} pictures; there were {count}"
        return [
            *(Bar(f"p against {who}", one.p, LARGEST_P, True, few) for who, one in self.comparisons.items()),
            *(Bar(f"steps right, genre {genre}", self.share(genre), STEPS_RIGHT) for genre in self.steps),
        ]

    def to_dict(self) -> dict[str, Any]:
        """All of it but the single shuffles, as JSON types."""
        heard = next(iter(self.comparisons.values())).audio
        return {
            "musician": self.musician,
            "bars": [one.to_dict() for one in self.bars()],
            "comparisons": {name: one.to_dict() for name, one in self.comparisons.items()},
            "stays": {axis: round(value, 4) for axis, value in self.stays.items()},
            "steps": {
                genre: {
                    change.name: {
                        "right or stayed": _figure(self.share(genre, change.name)),
                        "strictly": _figure(self.share(genre, change.name, by="strictly")),
                        "reversed": _figure(self.share(genre, change.name, by="reversed")),
                        "captions": _figure(_never_back(steps, change.name, "caption")),
                        "descriptions": _figure(_never_back(steps, change.name, "description")),
                        "whole way, SD": _figure(_whole_way(steps, change.name)),
                    }
                    for change in CHANGES
                }
                for genre, steps in self.steps.items()
            },
            "pictures": [
                {
                    "picture": name,
                    "caption": caption.model_dump(include={"text", "valence", "arousal"}),
                    "music": music.model_dump(include={"genre", "bpm", "key"}),
                    "heard": [round(float(value), 4) for value in place],
                }
                for name, caption, music, place in zip(self.names, self.captions, self.descriptions, heard, strict=True)
            ],
        }


def evaluate(
    captioner: Captioner,
    describer: Describer,
    musician: Musician,
    pictures: Mapping[str, Image],
    *,
    seconds: float = 12,
    seed: int = 0,
    permutations: int = 10_000,
    changed: int = 8,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Caption, describe and play each of `pictures`, and listen; then change `changed` of them in steps.

    The same seed throughout. `on_progress` hears tracks done and, at most, in all.
    """
    check_request(seconds, seed)
    if len(pictures) < 3:
        raise InputError(f"to shuffle pairs takes 3 pictures at least, and to say much 60; got {len(pictures)}")
    names, images = list(pictures), list(pictures.values())
    chosen = [names[row] for row in np.unique(np.linspace(0, len(names) - 1, min(changed, len(names))).astype(int))]
    total = len(names) + len(chosen) * (OTHER_SEEDS + len(CHANGES) * STEPS * 2)
    ear = _Ear(musician, seconds, total, on_progress)

    captions = [captioner.caption(image) for image in images]
    descriptions = describer.describe_many(captions)
    cues = [ear.listen(description, seed) for description in descriptions]
    scale = affect.Scale.of(cues)
    audio = scale.place(cues)
    unit = np.where(audio.std(axis=0) > 0, audio.std(axis=0), 1.0)

    said = np.array([[caption.valence or 0.0, caption.arousal or 0.0] for caption in captions])
    read = {"the captioner": said, "Valdez & Mehrabian": affect.of_pictures(images)}
    others = [
        scale.place([ear.listen(descriptions[names.index(name)], seed + more) for more in range(1 + OTHER_SEEDS)])
        / unit
        for name in chosen
    ]
    stays = np.sqrt(np.mean([one.var(axis=0, ddof=1) for one in others], axis=0)) if others else np.zeros(2)

    steps: dict[str, list[Step]] = {"free": [], "held": []}
    for name in chosen:
        row = names.index(name)
        for change in CHANGES:
            stepped = [captions[row], *(captioner.caption(change.apply(images[row], step)) for step in _COUNTED)]
            for genre in steps:
                held = descriptions[row].genre if genre == "held" else None
                music = [descriptions[row], *describer.describe_many(stepped[1:], held)]
                places = scale.place([ear.listen(one, seed) for one in music]) / unit
                steps[genre] += _steps(name, change, stepped, music, places, stays)
    ear.end()
    return Evaluation(
        names,
        captions,
        descriptions,
        {who: compare(said, audio, permutations=permutations, seed=seed) for who, said in read.items()},
        dict(zip(AXES, map(float, stays), strict=True)),
        steps if chosen else {},
        f"{musician.version.name} {musician.version.version}",
    )


_COUNTED = range(1, STEPS + 1)


class _Ear:
    """Plays and listens; the same description and seed once."""

    def __init__(
        self, musician: Musician, seconds: float, total: int, on_progress: Callable[[int, int], None] | None
    ) -> None:
        self._musician, self._seconds, self._total, self._on_progress = musician, seconds, total, on_progress
        self._asked = 0
        self._heard: dict[tuple[str, int], Cues] = {}

    def listen(self, description: MusicDescription, seed: int) -> Cues:
        asked = (description.to_json(), seed)
        if asked not in self._heard:
            track = self._musician.play(description, self._seconds, seed)
            self._heard[asked] = Sound(track.files["track.wav"]).cues
            self._asked += 1
            if self._on_progress is not None:
                self._on_progress(min(self._asked, self._total), self._total)
        return self._heard[asked]

    def end(self) -> None:
        """All is heard: what was the same as before was not played again."""
        if self._on_progress is not None:
            self._on_progress(self._total, self._total)


def _steps(
    name: str,
    change: Change,
    captions: Sequence[Caption],
    music: Sequence[MusicDescription],
    places: Floats,
    stays: Floats,
) -> list[Step]:
    axis = AXES.index(change.axis)
    said = [getattr(caption, change.axis) or 0.0 for caption in captions]
    meant = [moods.affect(one.moods)[axis] for one in music]
    return [
        Step(
            name,
            change.name,
            step,
            caption=change.sign * (said[step] - said[step - 1]),
            description=change.sign * (meant[step] - meant[step - 1]),
            audio=float(change.sign * (places[step, axis] - places[step - 1, axis])),
            same_genre=music[step].genre == music[step - 1].genre,
            stays=float(stays[axis]),
        )
        for step in _COUNTED
    ]


def _never_back(steps: Sequence[Step], change: str, what: str) -> float:
    good = [getattr(one, what) >= 0 for one in steps if one.change == change]
    return sum(good) / len(good) if good else float("nan")


def _whole_way(steps: Sequence[Step], change: str) -> float:
    """Mean over pictures of how far the audio went the right way from the first to the last step."""
    far = [one.audio for one in steps if one.change == change]
    return sum(far) * STEPS / len(far) if far else float("nan")


def _figure(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)
