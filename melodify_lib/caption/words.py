"""The captioner's tables: words.yaml and imagenet.txt, read and checked once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melodify_lib.tables import read_yaml

if TYPE_CHECKING:
    from melodify_lib.caption.look import Look


@dataclass(frozen=True)
class Group:
    """A group of ImageNet classes; `affect` is where the subject pulls (valence, arousal)."""

    noun: str
    kingdom: str
    affect: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Rule:
    """A phrase, the bounds within which each measure of a `Look` calls for it, and where it pulls the feeling."""

    say: str
    bounds: dict[str, tuple[float, float]]
    affect: tuple[float, float] = (0.0, 0.0)

    def fits(self, look: Look) -> bool:
        return all(lowest <= getattr(look, name) <= highest for name, (lowest, highest) in self.bounds.items())


def first_rule(look: Look, rules: tuple[Rule, ...]) -> Rule:
    """The first rule that fits; the last row of each table has no bounds."""
    return next(rule for rule in rules if rule.fits(look))


def _rule(say: str, affect: Any = (0.0, 0.0), **bounds: Any) -> Rule:
    return Rule(say, {name: (lowest, highest) for name, (lowest, highest) in bounds.items()}, tuple(affect))


_FOLDER = Path(__file__).parent
_CLASSES = (_FOLDER / "imagenet.txt").read_text(encoding="utf-8").splitlines()
_TABLES: dict[str, Any] = read_yaml(_FOLDER / "words.yaml")

GROUPS: dict[str, Group] = {
    name: Group(row["noun"], row["kingdom"], tuple(row.get("affect", (0.0, 0.0))))
    for name, row in _TABLES["groups"].items()
}
KINGDOMS: dict[str, str] = _TABLES["kingdoms"]
COLOURS: dict[str, str] = _TABLES["colours"]
LIGHT, SCENE, TEXTURE, LAYOUT = (
    tuple(_rule(**row) for row in _TABLES[table]) for table in ("light", "scene", "texture", "layout")
)
MUSICAL_MOODS = frozenset(_TABLES["musical_moods"])
SENTENCES: tuple[str, ...] = tuple(_TABLES["sentences"])

CLASSES: tuple[tuple[str, str], ...] = tuple(
    (group, noun)
    for group, _, noun in (
        line.partition(": ")
        for line in (_FOLDER / "imagenet.txt").read_text(encoding="utf-8").splitlines()
        if line[0] != "#"
    )
)
"""(group, noun phrase) of each ImageNet class, by index."""
