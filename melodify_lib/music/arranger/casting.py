"""Casting: which instrument takes which part.

Who is named in the description is heard; what the genre needs and nobody was named for is taken by
the style's own; who is left over doubles, shares the lead, or plays from ``extras.yaml``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from melodify_lib.errors import SettingsError
from melodify_lib.music.arranger.instruments import Instrument, Role, find
from melodify_lib.music.arranger.styles import PartStyle, Style
from melodify_lib.nouns import first_problem
from melodify_lib.tables import read_yaml

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Player:
    """An instrument in a part. `name` is the track's; `part` the key in the style.

    Of players who share a part, `turn` of `turns` says whose it is; `doubles` marks one who plays along.
    """

    name: str
    part: str
    style: PartStyle
    instrument: Instrument
    asked: bool
    turn: int = 0
    turns: int = 1
    doubles: bool = False


def cast(style: Style, names: Sequence[str], rng: np.random.Generator) -> list[Player]:
    """The players of a piece, in the order of the style's parts, extras last."""
    asked: dict[str, tuple[str, Instrument]] = {}
    for name in names:
        instrument = find(name)
        if instrument is not None:
            asked.setdefault(instrument.name, (name, instrument))
        else:
            log.info("nobody here plays the instrument %r: the card says who does play", name)
    taken: dict[str, Player] = {}
    waiting = list(asked.values())
    # Those whom the style expects go first, then everyone's favourite role, then what is left.
    for wish in ("expected", "favourite", "any"):
        for name, instrument in list(waiting):
            part = _free_part(style, instrument, taken, wish)
            if part is not None:
                taken[part] = Player(name, part, style.parts[part], instrument, asked=True)
                waiting.remove((name, instrument))
    for part, part_style in style.parts.items():
        if part not in taken and not part_style.optional:
            taken[part] = _by_default(style, part, list(asked.values()), taken, rng)
    players = [taken[part] for part in style.parts if part in taken]
    for name, instrument in waiting:
        players.append(_extra(style, name, instrument, players))
    return _sharing(players)


def _free_part(style: Style, instrument: Instrument, taken: dict[str, Player], wish: str) -> str | None:
    free = {part: part_style for part, part_style in style.parts.items() if part not in taken}
    if wish == "expected":
        return next((part for part, part_style in free.items() if instrument in _expected(part_style)), None)
    for role in instrument.roles[:1] if wish == "favourite" else _roles(instrument):
        for part, part_style in free.items():
            if part_style.role == role and (not part_style.only or instrument in _expected(part_style)):
                return part
    return None


def _roles(instrument: Instrument) -> list[Role]:
    """What it takes where it is not expected: the bass only if that is what it is for. A band with a piano has both."""
    return [role for role in instrument.roles if role != "bass" or role == instrument.roles[0]]


def _expected(part: PartStyle) -> list[Instrument | None]:
    return [find(name) for name in (*part.default, *part.only)]


def _by_default(
    style: Style, part: str, asked: list[tuple[str, Instrument]], taken: dict[str, Player], rng: np.random.Generator
) -> Player:
    """The style's own instrument; in styles for one player, somebody who is there already and can.

    A melody is not given to what somebody else plays, if there is a choice: it would be lost in it.
    """
    part_style = style.parts[part]
    if style.one_player:
        for name, instrument in asked:
            if part_style.role in instrument.roles and _reaches(instrument, part_style):
                return Player(f"{name} ({part})", part, part_style, instrument, asked=True)
    names: Sequence[str] = part_style.default
    if part_style.plays == "melody":
        names = [name for name in names if all(find(name) != player.instrument for player in taken.values())] or names
    weights = 0.5 ** np.arange(len(names))
    name = names[int(rng.choice(len(weights), p=weights / weights.sum()))]
    instrument_or_none = find(name)
    assert instrument_or_none is not None  # noqa: S101 – the style was checked on load
    return Player(name, part, part_style, instrument_or_none, asked=False)


def _reaches(instrument: Instrument, part: PartStyle) -> bool:
    low, high = max(instrument.range[0], part.compass[0]), min(instrument.range[1], part.compass[1])
    return high - low >= 9


def _extra(style: Style, name: str, instrument: Instrument, players: list[Player]) -> Player:
    """A place for an instrument whose parts are all taken: beside one who plays in its role, or an extra part."""
    for role in _roles(instrument):
        for part, part_style in style.parts.items():
            if part_style.role == role and not part_style.only and any(p.part == part for p in players):
                return Player(name, part, _beside(part_style), instrument, asked=True, doubles=True)
    role = instrument.roles[0]
    return Player(name, role, extras()[role], instrument, asked=True)


def _beside(part: PartStyle) -> PartStyle:
    mix = part.mix
    pan = -mix.pan if abs(mix.pan) > 0.1 else (0.0 if part.plays == "bass" else 0.35)
    return part.model_copy(update={"mix": mix.model_copy(update={"pan": pan, "level_db": mix.level_db - 1.5})})


def _sharing(players: list[Player]) -> list[Player]:
    """Leads who share a part take turns; everybody else plays along."""
    singers: dict[str, list[str]] = {}
    for player in players:
        if player.style.plays == "melody":
            singers.setdefault(player.part, []).append(player.name)
    return [
        replace(player, turn=singers[player.part].index(player.name), turns=len(singers[player.part]))
        if player.part in singers
        else player
        for player in players
    ]


@cache
def extras() -> dict[str, PartStyle]:
    """Role → what an instrument plays in a style that has no place for it."""
    path = Path(__file__).parent / "extras.yaml"
    try:
        return TypeAdapter(dict[str, PartStyle]).validate_python(read_yaml(path))
    except ValidationError as error:
        raise SettingsError(f"{path}: {first_problem(error)}") from None
