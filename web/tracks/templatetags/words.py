"""Words and shapes of the pages: the library's own terms in the visitor's language, seconds, a waveform."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import template
from django.utils.translation import gettext as _

register = template.Library()


def gettext_noop(text: str) -> str:
    """Marks a text for `makemessages`, without the settings that Django's own asks for."""
    return text


GENRES = {
    "pop": gettext_noop("Pop"), "hip-hop": gettext_noop("Hip-hop"), "rock": gettext_noop("Rock"),
    "jazz": gettext_noop("Jazz"), "classical": gettext_noop("Classical"), "electronic": gettext_noop("Electronic"),
    "r&b": gettext_noop("R&B"), "country": gettext_noop("Country"), "blues": gettext_noop("Blues"),
    "folk": gettext_noop("Folk"), "reggae": gettext_noop("Reggae"), "metal": gettext_noop("Metal"),
    "funk": gettext_noop("Funk"), "soul": gettext_noop("Soul"), "disco": gettext_noop("Disco"),
    "latin": gettext_noop("Latin"), "ambient": gettext_noop("Ambient"), "lo-fi": gettext_noop("Lo-fi"),
    "k-pop": gettext_noop("K-pop"), "cinematic": gettext_noop("Cinematic"),
}  # fmt: skip
TONICS = {
    "C#": gettext_noop("C sharp"), "Eb": gettext_noop("E flat"), "F#": gettext_noop("F sharp"),
    "Ab": gettext_noop("A flat"), "Bb": gettext_noop("B flat"),
}  # fmt: skip
MUSICIANS = {
    "arranger": gettext_noop("Arranger: writes a score and plays it"),
    "musicgen": gettext_noop("MusicGen: a neural network"),
    "endpoint": gettext_noop("MusicGen: a neural network"),
    "lyria": gettext_noop("Lyria: a neural network"),
}
TERMS = (
    # moods
    gettext_noop("adventurous"), gettext_noop("aggressive"), gettext_noop("angry"), gettext_noop("bleak"),
    gettext_noop("calm"), gettext_noop("confident"), gettext_noop("cosy"), gettext_noop("dark"),
    gettext_noop("dramatic"), gettext_noop("dreamy"), gettext_noop("elegant"), gettext_noop("energetic"),
    gettext_noop("epic"), gettext_noop("euphoric"), gettext_noop("festive"), gettext_noop("gloomy"),
    gettext_noop("gritty"), gettext_noop("groovy"), gettext_noop("hopeful"), gettext_noop("intense"),
    gettext_noop("joyful"), gettext_noop("lonely"), gettext_noop("majestic"), gettext_noop("melancholic"),
    gettext_noop("mysterious"), gettext_noop("nostalgic"), gettext_noop("ominous"), gettext_noop("peaceful"),
    gettext_noop("playful"), gettext_noop("rebellious"), gettext_noop("relaxed"), gettext_noop("restless"),
    gettext_noop("romantic"), gettext_noop("sad"), gettext_noop("sensual"), gettext_noop("serene"),
    gettext_noop("sombre"), gettext_noop("sunny"), gettext_noop("tender"), gettext_noop("tense"),
    gettext_noop("triumphant"), gettext_noop("uplifting"), gettext_noop("warm"), gettext_noop("wistful"),
    # instruments
    gettext_noop("accordion"), gettext_noop("acoustic bass"), gettext_noop("acoustic guitar"), gettext_noop("banjo"),
    gettext_noop("bells"), gettext_noop("brass section"), gettext_noop("brush drums"), gettext_noop("cello"),
    gettext_noop("choir"), gettext_noop("clarinet"), gettext_noop("clavinet"), gettext_noop("distorted guitar"),
    gettext_noop("double bass"), gettext_noop("drum kit"), gettext_noop("drum machine"),
    gettext_noop("electric bass"), gettext_noop("electric guitar"), gettext_noop("electric piano"),
    gettext_noop("fiddle"), gettext_noop("flute"), gettext_noop("french horn"), gettext_noop("harmonica"),
    gettext_noop("harp"), gettext_noop("jazz guitar"), gettext_noop("latin percussion"), gettext_noop("mandolin"),
    gettext_noop("melodica"), gettext_noop("nylon guitar"), gettext_noop("oboe"), gettext_noop("organ"),
    gettext_noop("pedal steel guitar"), gettext_noop("piano"), gettext_noop("slap bass"), gettext_noop("strings"),
    gettext_noop("sub bass"), gettext_noop("synth bass"), gettext_noop("synth lead"), gettext_noop("synth pad"),
    gettext_noop("synth pluck"), gettext_noop("taiko drums"), gettext_noop("tenor saxophone"),
    gettext_noop("timpani"), gettext_noop("trumpet"), gettext_noop("vibraphone"), gettext_noop("violin"),
)  # fmt: skip
"""What the describer says; a visitor's own words stay as they are."""

REFUSALS = (
    ("is empty", gettext_noop("This file is empty. Choose another picture.")),
    ("MiB", gettext_noop("This picture is too large: at most 30 MB. Make it smaller and try again.")),
    ("megapixels", gettext_noop("This picture is too large: at most 50 megapixels. Make it smaller and try again.")),
    ("each side needs", gettext_noop("This picture is too small: each side needs at least 16 pixels.")),
    ("longer than", gettext_noop("This picture is too long and narrow: at most 20 : 1. Crop it and try again.")),
    ("looks like", gettext_noop("This file is not a picture in JPEG, PNG or WebP form. Choose another one.")),
    ("", gettext_noop("This picture is damaged. Open it in a picture editor, save it again and try once more.")),
)
"""What `ImageError` says → what a visitor is told."""
REASONS = (
    ("on our side", gettext_noop("Something went wrong on our side. Please try again later.")),
    ("its worker stopped", gettext_noop("This song could not be made: the machine stopped several times.")),
    ("took longer than", gettext_noop("This song took too long. Ask for a shorter one.")),
    ("not described yet", gettext_noop("It is not known yet how this sounds. Wait until it is, then remix it.")),
    ("gives clips of", gettext_noop("This musician cannot play this length. Choose another length or musician.")),
    ("can be tried again", gettext_noop("Only a song that failed or was cancelled can be tried again.")),
    ("", gettext_noop("This song cannot be made as it was asked for. Change what you ask for and try again.")),
)
"""Why a song could not be made, as its row has it → what a visitor is told."""
PROBLEMS = {
    "throttled": gettext_noop("That was a lot of songs for one hour. Please come back a little later."),
    "busy": gettext_noop("Many songs are being made just now. Please try again in a moment."),
    "unavailable": gettext_noop("A part of the service does not answer. Please try again in a minute."),
    "idempotency-key-reused": gettext_noop("This was sent already. Look among your tracks."),
    "not-found": gettext_noop("It may have been deleted, or it is not yours."),
    "parse-error": gettext_noop("The request cannot be used."),
}
"""Kind of a `web.tracks.problems.Refusal`, where that says all → what a visitor is told."""
FIELDS = {
    "seconds": gettext_noop("Length"), "seed": gettext_noop("Seed"), "genre": gettext_noop("Genre"),
    "musician": gettext_noop("Musician"), "description": gettext_noop("Description"), "bpm": gettext_noop("Tempo"),
    "key": gettext_noop("Key"), "moods": gettext_noop("Moods"), "instruments": gettext_noop("Instruments"),
}  # fmt: skip
_WORDS = gettext_noop("This cannot be used. Write words of letters and numbers, with commas between them.")
UNUSABLE = {
    "moods": _WORDS, "instruments": _WORDS, "keywords": _WORDS,
    "key": gettext_noop("This is no key. Write a note and major or minor, such as D minor."),
    "": gettext_noop("This cannot be used. Change it and try again."),
}  # fmt: skip
"""What is said of a field of which a model says more than a visitor understands."""

BARS = 80
"""Of a waveform: as many as a telephone shows apart."""
STEP, HEIGHT, STROKE = 7.5, 100, 3
"""Of a bar, in a drawing that is 600 wide."""


def why_refused(error: str) -> str:
    """Why a picture is not taken, in the visitor's language."""
    return _(next(said for sign, said in REFUSALS if sign in error))


def problem(kind: str) -> str:
    """What is wrong, for kinds of which that is all; else empty."""
    return _(PROBLEMS[kind]) if kind in PROBLEMS else ""


def field_problem(field: str, said: str) -> str:
    """What is wrong with a field of a form. `said` is empty where nobody says it in words for visitors."""
    said = said or _(UNUSABLE.get(field, UNUSABLE[""]))
    return _("%(field)s: %(problem)s") % {"field": _(FIELDS[field]), "problem": said} if field in FIELDS else said


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
def reason(error: str) -> str:
    return _(next(said for sign, said in REASONS if sign in error))


@register.filter
def key(name: str) -> str:
    """``Bb major`` as it is said: B flat major."""
    tonic, _space, mode = name.partition(" ")
    tonic = _(TONICS[tonic]) if tonic in TONICS else tonic
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
    """The path of a waveform's bars, from the loudest of so many peaks each."""
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
