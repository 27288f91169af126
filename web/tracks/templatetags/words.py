"""Words and shapes of the pages: the library's own terms in the visitor's language, seconds, a waveform."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import template
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop as known

register = template.Library()

GENRES = {
    "pop": known("Pop"), "hip-hop": known("Hip-hop"), "rock": known("Rock"), "jazz": known("Jazz"),
    "classical": known("Classical"), "electronic": known("Electronic"), "r&b": known("R&B"),
    "country": known("Country"), "blues": known("Blues"), "folk": known("Folk"), "reggae": known("Reggae"),
    "metal": known("Metal"), "funk": known("Funk"), "soul": known("Soul"), "disco": known("Disco"),
    "latin": known("Latin"), "ambient": known("Ambient"), "lo-fi": known("Lo-fi"), "k-pop": known("K-pop"),
    "cinematic": known("Cinematic"),
}  # fmt: skip
MUSICIANS = {
    "arranger": known("Arranger: writes a score and plays it"),
    "musicgen": known("MusicGen: a neural network"),
    "endpoint": known("MusicGen: a neural network"),
    "lyria": known("Lyria: a neural network"),
}
TERMS = (
    # moods
    known("adventurous"), known("aggressive"), known("angry"), known("bleak"), known("calm"), known("confident"),
    known("cosy"), known("dark"), known("dramatic"), known("dreamy"), known("elegant"), known("energetic"),
    known("epic"), known("euphoric"), known("festive"), known("gloomy"), known("gritty"), known("groovy"),
    known("hopeful"), known("intense"), known("joyful"), known("lonely"), known("majestic"), known("melancholic"),
    known("mysterious"), known("nostalgic"), known("ominous"), known("peaceful"), known("playful"),
    known("rebellious"), known("relaxed"), known("restless"), known("romantic"), known("sad"), known("sensual"),
    known("serene"), known("sombre"), known("sunny"), known("tender"), known("tense"), known("triumphant"),
    known("uplifting"), known("warm"), known("wistful"),
    # instruments
    known("accordion"), known("acoustic bass"), known("acoustic guitar"), known("banjo"), known("bells"),
    known("brass section"), known("brush drums"), known("cello"), known("choir"), known("clarinet"),
    known("clavinet"), known("distorted guitar"), known("double bass"), known("drum kit"), known("drum machine"),
    known("electric bass"), known("electric guitar"), known("electric piano"), known("fiddle"), known("flute"),
    known("french horn"), known("harmonica"), known("harp"), known("jazz guitar"), known("latin percussion"),
    known("mandolin"), known("melodica"), known("nylon guitar"), known("oboe"), known("organ"),
    known("pedal steel guitar"), known("piano"), known("slap bass"), known("strings"), known("sub bass"),
    known("synth bass"), known("synth lead"), known("synth pad"), known("synth pluck"), known("taiko drums"),
    known("tenor saxophone"), known("timpani"), known("trumpet"), known("vibraphone"), known("violin"),
    # why a song could not be made
    known("something went wrong on our side; try again later"),
    known("the song could not be made: its worker stopped several times"),
)  # fmt: skip
"""What the describer says; a visitor's own words stay as they are."""

REFUSALS = (
    ("is empty", known("This file is empty. Choose another picture.")),
    ("MiB", known("This picture is too large: at most 30 MB. Make it smaller and try again.")),
    ("megapixels", known("This picture is too large: at most 50 megapixels. Make it smaller and try again.")),
    ("each side needs", known("This picture is too small: each side needs at least 16 pixels.")),
    ("longer than", known("This picture is too long and narrow: at most 20 : 1. Crop it and try again.")),
    ("looks like", known("This file is not a picture in JPEG, PNG or WebP form. Choose another one.")),
    ("", known("This picture is damaged. Open it in a picture editor, save it again and try once more.")),
)
"""What `ImageError` says → what a visitor is told."""
FIELDS = {
    "seconds": known("Length"), "seed": known("Seed"), "genre": known("Genre"), "musician": known("Musician"),
    "description": known("Description"), "bpm": known("Tempo"), "key": known("Key"), "moods": known("Moods"),
    "instruments": known("Instruments"),
}  # fmt: skip

BARS = 120
"""Of a waveform: as many as a telephone shows apart."""
STEP, HEIGHT, STROKE = 5, 100, 3


def why_refused(error: str) -> str:
    """Why a picture is not taken, in the visitor's language."""
    return _(next(said for sign, said in REFUSALS if sign in error))


def field_problem(field: str, said: str) -> str:
    """What is wrong with a field of a form. `said` is empty where nobody says it in words for visitors."""
    said = said or _("This cannot be used. Words may have letters, numbers and spaces, with commas between them.")
    return _("%(field)s: %(problem)s") % {"field": _(FIELDS[field]) if field in FIELDS else field, "problem": said}


@register.filter
def genre(name: str) -> str:
    return _(GENRES[name]) if name in GENRES else name


@register.filter
def musician(name: str) -> str:
    return _(MUSICIANS[name]) if name in MUSICIANS else name


@register.filter
def term(text: str) -> str:
    return _(text) if text in TERMS else text


@register.filter
def key(name: str) -> str:
    """``Bb major`` as it is printed: B♭ major."""
    tonic, _space, mode = name.partition(" ")
    tonic = tonic.replace("b", "♭").replace("#", "♯")
    return _("%(tonic)s minor") % {"tonic": tonic} if mode == "minor" else _("%(tonic)s major") % {"tonic": tonic}


@register.filter
def clock(seconds: float) -> str:
    """Minutes and seconds: 1:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


@register.filter
def length_words(seconds: float) -> str:
    """A length as one says it."""
    if seconds >= 60 and seconds % 60 == 0:
        return _("%(count)s min") % {"count": f"{seconds / 60:g}"}
    return _("%(count)s s") % {"count": f"{seconds:g}"}


@register.filter
def figure(value: float | None, places: int = 1) -> str:
    """A number as it is printed, with a minus and not a hyphen."""
    return "" if value is None else f"{value:.{places}f}".removesuffix(".0").replace("-", "−")


@register.filter
def unlocalized(value: float) -> str:
    """A number as forms send and read it."""
    return f"{value:.15g}" if isinstance(value, float) else str(value)


@register.filter
def waveform(peaks: Sequence[float] | None) -> str:
    """The path of a waveform's bars in a box of `BARS` × `STEP` by `HEIGHT`."""
    if not peaks:
        return ""
    share = len(peaks) / BARS
    bars = [max(peaks[int(bar * share) : max(int((bar + 1) * share), int(bar * share) + 1)]) for bar in range(BARS)]
    loudest = max(*bars, 1e-6)
    path = []
    for bar, peak in enumerate(bars):
        half = max((HEIGHT - STROKE) / 2 * peak / loudest, 1)
        path.append(f"M{bar * STEP + STEP / 2:g} {HEIGHT / 2 - half:.0f}V{HEIGHT / 2 + half:.0f}")
    return "".join(path)


@register.filter
def swatches(palette: Sequence[str]) -> list[dict[str, Any]]:
    """A palette as boxes side by side, in a width of 100."""
    width = 100 / max(len(palette), 1)
    return [{"colour": colour, "x": f"{at * width:g}", "width": f"{width:g}"} for at, colour in enumerate(palette)]
