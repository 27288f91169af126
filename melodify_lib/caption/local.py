"""The captioner that needs no account: what a network sees, in what light and colours, and how it feels.

Each word of its caption can be traced: the subject to probabilities (content.py), light, colours and
texture to measures (look.py, palette.py), the mood to two published formulas (affect.py), and the
wording to a table (words.yaml).
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

from melodify_lib import moods
from melodify_lib.caption import content, words
from melodify_lib.caption.affect import affect_of
from melodify_lib.caption.look import Look, look_at
from melodify_lib.caption.palette import chroma, name_of, palette_of
from melodify_lib.fingerprint import fingerprint
from melodify_lib.nouns import Caption, StageVersion

if TYPE_CHECKING:
    from PIL.Image import Image

    from melodify_lib.settings import Settings

SUBJECT_PULL = 0.7
"""How far a subject that is certain pulls the feeling away from that of light and colour; a choice of ours."""
_SCENE_CONFIDENCE = 0.5
_GREY_SATURATION = 0.02


def from_settings(settings: Settings) -> LocalCaptioner:
    del settings  # there is nothing to choose
    return LocalCaptioner()


class LocalCaptioner:
    """Captions pictures; the same picture always gets the same caption."""

    def __init__(self) -> None:
        self._recogniser = content.Recogniser()

    @property
    def version(self) -> StageVersion:
        return StageVersion(name="local", version=f"{content.VERSION}+{fingerprint('caption', 'image.py', 'moods.py')}")

    def caption(self, image: Image) -> Caption:
        """Caption an RGB picture, as `melodify_lib.image.open_image` returns it."""
        look = look_at(image)
        palette = palette_of(image)
        seen = self._recogniser.recognise(image, look)
        if not seen.noun:
            scene = words.first_rule(look, words.SCENE)
            seen = content.Content(scene.say, _SCENE_CONFIDENCE, scene.affect)
        valence, arousal = _feeling(look, seen)
        text = _sentence(look, palette, seen, _moods(valence, arousal))
        return Caption(text=text, valence=valence, arousal=arousal, palette=palette, source="local")


def _feeling(look: Look, seen: content.Content) -> tuple[float, float]:
    """How it looks, pulled towards how its subject feels, as far as the subject is certain; 4 decimals."""
    pull = SUBJECT_PULL * seen.confidence if any(seen.affect) else 0.0
    valence, arousal = (
        round(by_look + pull * (by_subject - by_look), 4)
        for by_look, by_subject in zip(affect_of(look), seen.affect, strict=True)
    )
    return valence, arousal


def _sentence(look: Look, palette: tuple[str, ...], seen: content.Content, mood: tuple[str, ...]) -> str:
    slots = {
        "subject": seen.noun,
        "light": words.first_rule(look, words.LIGHT).say,
        "colours": _colours(look, palette),
        "texture": words.first_rule(look, words.TEXTURE).say,
        "layout": words.first_rule(look, words.LAYOUT).say,
        "mood": mood[0],
        "other_mood": mood[1],
    }
    # By the subject alone: describers hear how a thing is said, so a picture that is a little brighter is told in the
    # same sentence, with other words for its light and mood. hash() differs by process; a checksum does not.
    pattern = words.SENTENCES[zlib.crc32(seen.noun.encode()) % len(words.SENTENCES)]
    text = re.sub(r"\(a\) (?=(\w))", _article, pattern.format(**slots))
    return text[0].upper() + text[1:]


def _moods(valence: float, arousal: float) -> tuple[str, ...]:
    """The two nearest mood words that suit a picture."""
    nearest = moods.nearest(valence, arousal, count=2 + len(words.MUSICAL_MOODS))
    return tuple(mood for mood in nearest if mood not in words.MUSICAL_MOODS)[:2]


def _article(found: re.Match[str]) -> str:
    return "an " if found[1] in "aeiou" else "a "


def _colours(look: Look, palette: tuple[str, ...]) -> str:
    """Such as "brown, tan and red": the names of the two largest colours and of the most vivid other one."""
    largest, rest = palette[:2], palette[2:]
    vivid = max(rest, key=chroma) if rest else largest[-1]
    names = list(dict.fromkeys(name_of(colour) for colour in (*largest, vivid)))
    listed = " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
    return f"monochrome {listed}" if look.saturation < _GREY_SATURATION else listed
