"""The pages in Korean: nothing is missing, and what was compiled is what was written."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("django", reason="needs the extra web")
import polib
from conftest import ROOT
from django.utils.translation.template import templatize

from melodify_lib.genres import GENRES
from melodify_lib.image import MAX_ASPECT, MAX_BYTES, MAX_PIXELS, MAX_SIDE, MIN_SIDE
from web.tracks.templatetags import words

APP = ROOT / "web/tracks"
KOREAN = APP / "locale/ko/LC_MESSAGES/django.po"
LITERAL = r"""u?("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""


def test_what_was_compiled_is_what_was_written() -> None:
    written = {entry.msgid_with_context: entry.msgstr or entry.msgstr_plural for entry in polib.pofile(str(KOREAN))}
    compiled = polib.mofile(str(KOREAN.with_suffix(".mo")))
    assert {entry.msgid_with_context: entry.msgstr or entry.msgstr_plural for entry in compiled} == written


def test_nothing_is_untranslated() -> None:
    catalog = polib.pofile(str(KOREAN))
    assert [entry.msgid for entry in catalog if not entry.translated()] == []
    assert catalog.obsolete_entries() == []
    for entry in catalog:
        for text in [entry.msgstr, *entry.msgstr_plural.values()]:
            if text:
                names = [sorted(re.findall(r"%\(\w+\)s|\bNAME\b|\bNOW\b|\bALL\b", one)) for one in (entry.msgid, text)]
                assert names[0] == names[1], entry.msgid


def test_every_text_of_the_pages_is_in_the_catalog() -> None:
    known = {text for entry in polib.pofile(str(KOREAN)) for text in (entry.msgid, entry.msgid_plural) if text}
    said: set[str] = set()
    for path in [*APP.glob("*.py"), *APP.glob("templatetags/*.py"), *APP.glob("templates/**/*.html")]:
        source = path.read_text("utf-8")
        code = templatize(source) if path.suffix == ".html" else source
        for literal in re.findall(rf"\b(?:_|p?n?gettext(?:_noop|_lazy)?)\(\s*{LITERAL}", code):
            said.add(json.loads('"' + literal[1:-1].replace('"', r"\"").replace(r"\'", "'") + '"'))
    assert len(said) > 150
    assert said - known - {"seconds"} == set()  # a context, not a text


def test_the_describers_words_have_a_translation() -> None:
    assert tuple(words.GENRES) == GENRES
    said: set[str] = set()
    for line in (ROOT / "data/generate_jsonl/output/train.jsonl").read_text("utf-8").splitlines():
        answer = json.loads(json.loads(line)["contents"][1]["parts"][0]["text"])
        said.update(answer["moods"], answer["instruments"])
    assert said == set(words.TERMS)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("the picture is empty (0 bytes); use a JPEG, PNG or WebP file", "This file is empty"),
        ("not a picture that can be read: it looks like a PDF; use a JPEG, PNG or WebP file", "not a picture in JPEG"),
        ("the PNG is damaged or cut off (broken PNG file); open it …", "damaged"),
        ("the picture has more than 50 megapixels; scale it down and try again", "50 megapixels"),
        ("the picture is 9 × 900 pixels; each side needs at least 16", "at least 16 pixels"),
        ("the picture is 16 × 900 pixels, longer than 20 : 1; crop it and try again", "20 : 1"),
    ],
)
def test_a_visitor_is_told_in_plain_words(error: str, said: str) -> None:
    assert said in next(plain for sign, plain in words.REFUSALS if sign in error)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("it took longer than 900 s; ask for a shorter song", "Ask for a shorter one"),
        ("lyria-002 gives clips of 30 s; 20 s were asked for", "Choose another length or musician"),
        ("Gemini (gemini-2.5-flash) gave no music description in 3 answers: genre: …", "Change what you ask for"),
    ],
)
def test_why_there_is_no_song_is_said_in_plain_words(error: str, said: str) -> None:
    assert said in next(plain for sign, plain in words.REASONS if sign in error)


def test_the_limits_in_the_texts_are_the_librarys() -> None:
    assert (MAX_BYTES, MAX_PIXELS, MIN_SIDE, MAX_ASPECT, MAX_SIDE) == (30 * 2**20, 50_000_000, 16, 20, 1024)


def test_a_waveform_is_one_path_of_bars() -> None:
    path = words.waveform([0.0, 0.5, 1.0] * 80)
    assert path.count("M") == path.count("V") == words.BARS
    assert words.waveform(None) == ""
    assert words.waveform([0.0] * 240).count("M") == words.BARS


def test_numbers_as_they_are_printed() -> None:
    assert [words.figure(value) for value in (-14.0, -1.11, 72.4, None)] == ["−14", "−1.1", "72.4", ""]
    assert [words.clock(value) for value in (0, 9.9, 65, 600)] == ["0:00", "0:09", "1:05", "10:00"]
    assert words.unlocalized(20.0) == "20" and words.unlocalized(2**53 - 1) == "9007199254740991"
