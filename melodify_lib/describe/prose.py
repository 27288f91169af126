"""Prose for music: attributes become the one or two sentences in which a musician would say them.

Used twice: by the offline teacher, which writes the dataset, and by the local describer, which
predicts attributes and lets this module say them. The words are in ``prose.yaml``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from melodify_lib.tables import read_yaml

Energy = Literal["calm", "even", "lively"]
_WORDINGS = 6


def write(
    *,
    genre: str,
    bpm: int,
    energy: float,
    mode: str,
    moods: Sequence[str],
    instruments: Sequence[str],
    keywords: Sequence[str],
    seed: str,
) -> str:
    """Describe music in one or two sentences; the same arguments give the same sentences.

    `energy` is where the tempo lies in the genre's range, 0 (slowest) to 1 (fastest); the first of
    `instruments` leads, the first of `keywords` that has a setting gives it. Names that the tables do not
    know are said as they are. Of a few wordings, the one that says the fewest words twice is taken.
    """
    chance = random.Random(seed)  # a text seed is hashed: the same on every machine
    wordings = [_word(genre, bpm, energy, mode, moods, instruments, keywords, chance.choice) for _ in range(_WORDINGS)]
    return min(wordings, key=_repetitions)


def speaks_of(kind: str) -> frozenset[str]:
    """The names that the tables have words for; `kind` is ``genres``, ``instruments`` or ``keywords``."""
    return frozenset(_tables()[kind])


def named(caption: str, instruments: Sequence[str]) -> list[str]:
    """Those of `instruments` that a caption names, by the words in the tables, in their order."""
    text = caption.lower()
    return [
        name
        for name in instruments
        if any(re.search(rf"\b{word}s?\b", text) for word in _tables()["instruments"].get(name, {}).get("seen", ()))
    ]


def _word(
    genre: str,
    bpm: int,
    energy: float,
    mode: str,
    moods: Sequence[str],
    instruments: Sequence[str],
    keywords: Sequence[str],
    choose: Callable[[Sequence[Any]], Any],
) -> str:
    tables = _tables()
    level: Energy = "calm" if energy < 0.38 else "even" if energy < 0.7 else "lively"
    side: Energy = "lively" if level == "lively" else "calm"

    tempo = choose(tables["tempo"][level]["slow" if bpm < 80 else "mid" if bpm <= 112 else "fast"])
    piece = choose(tables["genres"][genre]["piece"])
    mood, mood2 = moods[0], moods[min(1, len(moods) - 1)]
    supports = [choose(_instrument(name)["support"]) for name in instruments[1:4]] or ["silence"]
    known = [tables["keywords"][word] for word in keywords if word in tables["keywords"]]
    words = {
        "mood": mood,
        "mood2": mood2,
        "tempo": tempo,
        "lead": choose(_instrument(instruments[0])[side]),
        "support": _listed(supports),
        "groove": choose(tables["genres"][genre][level]),
        "harmony": choose(tables["harmony"][mode]),
        "dynamics": choose(tables["dynamics"][level]),
        "contrast": choose(tables["contrast"][level]),
        "setting": choose((known[0] if known else tables["no_keyword"])[side]),
        "a_mood_piece": f"a {mood} {piece}",
        "a_tempo_piece": f"a {tempo} {piece}",
        "a_mood_tempo_piece": f"a {mood}, {tempo} {piece}",
        "a_mood2_tempo_piece": f"a {mood2}, {tempo} {piece}",
    }
    # With one mood word there is no second to add.
    sentences = [text for text in tables["sentences"] if mood != mood2 or "mood2" not in text]
    return fill(choose(sentences), words)


def _repetitions(text: str) -> int:
    """How many words of five letters or more are said again."""
    words = re.findall(r"[a-z]{5,}", text.lower())
    return len(words) - len(set(words))


def fill(pattern: str, words: dict[str, str]) -> str:
    """Put `words` into the ``{slots}`` of `pattern`, with "a" or "an" as they need it.

    A slot whose name has a capital gets its word with a capital.
    """

    def word(match: re.Match[str]) -> str:
        slot = match[1]
        text = words[slot[0].lower() + slot[1:]]
        return text[0].upper() + text[1:] if slot[0].isupper() else text

    text = re.sub(r"\{(\w+)\}", word, pattern)
    return re.sub(r"\b([Aa]) (?=(?!eu|uni|us|one)[aeiou]|R&B)", r"\1n ", text)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _instrument(name: str) -> dict[str, list[str]]:
    spoken: dict[str, list[str]] | None = _tables()["instruments"].get(name)
    return spoken or {"calm": [f"soft {name}"], "lively": [f"spirited {name}"], "support": [name]}


@cache
def _tables() -> Any:
    return read_yaml(Path(__file__).with_name("prose.yaml"))
