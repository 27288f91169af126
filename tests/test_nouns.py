"""The nouns: what they accept, what they refuse, and that nothing is lost on the way through text."""

import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodify_lib.errors import CaptionError, CardError, DescriptionError
from melodify_lib.genres import GENRES
from melodify_lib.nouns import BPM_MAX, BPM_MIN, TONICS, Caption, MusicDescription, TrackCard, normalize_key

LETTERS = st.characters(categories=["Ll", "Lu", "Lo", "Nd"])
TERMS = st.builds(str.__add__, LETTERS, st.text(LETTERS | st.sampled_from(" &'#/+-"), max_size=20))
DESCRIPTIONS = st.builds(
    MusicDescription,
    description=st.text(min_size=1, max_size=300).filter(lambda text: any(c.isalnum() for c in text)),
    genre=st.sampled_from(GENRES),
    bpm=st.integers(BPM_MIN, BPM_MAX),
    key=st.builds("{} {}".format, st.sampled_from(TONICS), st.sampled_from(["major", "minor"])),
    moods=st.lists(TERMS, min_size=1, max_size=6),
    instruments=st.lists(TERMS, min_size=1, max_size=6),
    keywords=st.lists(TERMS, max_size=6),
)
PIANO = MusicDescription(
    description="A calm piano piece", genre="jazz", bpm=90, key="d minor", moods=["calm"], instruments=["Piano"]
)


@given(DESCRIPTIONS)
def test_every_description_survives_its_prompt(description: MusicDescription) -> None:
    assert MusicDescription.parse(description.to_prompt()) == description


@given(DESCRIPTIONS)
def test_every_description_survives_its_json(description: MusicDescription) -> None:
    assert MusicDescription.parse(description.to_json()) == description
    assert MusicDescription.parse(f"```json\n{description.to_json()}\n```") == description


def test_prose_that_begins_with_a_brace_is_read_back() -> None:
    music = MusicDescription(
        description="{Half} a song.", genre="pop", bpm=99, key="C major", moods=("calm",), instruments=("piano",)
    )
    assert MusicDescription.parse(music.to_prompt()) == music


@given(DESCRIPTIONS, DESCRIPTIONS)
def test_a_prompt_inside_the_prose_stays_prose(outer: MusicDescription, inner: MusicDescription) -> None:
    nested = outer.model_copy(update={"description": inner.to_prompt()[:1900].strip() + "."})
    assert MusicDescription.parse(nested.to_prompt()) == nested


def test_prompt_ends_in_the_tail_that_musicgen_was_trained_on() -> None:
    assert PIANO.to_prompt() == (
        "A calm piano piece. bpm: 90. key: D minor. genre: jazz. moods: calm. instrument: piano"
    )


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ("C", "C major"), ("Am", "A minor"), ("A# minor", "Bb minor"), ("e-flat major", "Eb major"),
        ("Gb", "F# major"), ("F♯ min", "F# minor"), ("B minor", "B minor"), ("bb minor", "Bb minor"),
    ],
)  # fmt: skip
def test_keys_have_one_spelling(said: str, key: str) -> None:
    assert normalize_key(said) == key


FIELDS = json.loads(PIANO.to_json())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"genre": "polka"}, "genre"),
        ({"bpm": 0}, "bpm"),
        ({"bpm": "quick"}, "bpm"),
        ({"bpm": float("nan")}, "bpm"),
        ({"key": "H major"}, "key"),
        ({"moods": []}, "moods"),
        ({"instruments": ["piano. genre: rock"]}, "instruments"),
        ({"instruments": "piano"}, "instruments"),
        ({"keywords": ["x" * 61]}, "keywords"),
        ({"description": " … "}, "description"),
        ({"tempo": 90}, "tempo"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: dict[str, object], named: str) -> None:
    with pytest.raises(DescriptionError, match=named):
        MusicDescription.parse(json.dumps({**FIELDS, **change}))


@given(st.text(max_size=200))
def test_any_text_parses_or_is_refused(text: str) -> None:
    for answer in (text, "{" + text, PIANO.to_json()[:-1] + text):
        with contextlib.suppress(DescriptionError):
            MusicDescription.parse(answer)


def test_deep_json_is_refused() -> None:
    with pytest.raises(DescriptionError):
        MusicDescription.parse('{"a":' * 100_000)


@pytest.mark.parametrize(
    "answer",
    [
        "```" + "\n" * 6_000 + "x",
        "```json" + " " * 19_000 + "x```",
        "a! bpm: " * 2_400,
        "a. bpm: 1. key: " * 1_200,
        PIANO.to_json().replace("D minor", "D" + " " * 19_000 + "x"),
        "a! bpm: " * 1_000_000,
    ],
    ids=["fence", "empty fence", "tails", "half tails", "key", "long"],
)
def test_no_answer_takes_long_to_refuse(answer: str) -> None:
    started = time.process_time()
    with pytest.raises(DescriptionError):
        MusicDescription.parse(answer)
    assert time.process_time() - started < 0.5


def test_captions_are_one_line_and_not_empty() -> None:
    assert Caption.from_text(" a\n\tcat\u2028 ").text == "a cat"
    with pytest.raises(CaptionError, match="empty"):
        Caption.from_text(" \n\u200b ")
    with pytest.raises(CaptionError, match="empty"):
        Caption.from_text("\u2060\u200d")
    with pytest.raises(CaptionError, match="4,000"):
        Caption.from_text("a" * 10_000)


@pytest.mark.parametrize("text", ["", "[]", '{"seed": 1}', "\x00", '{"files": {"track.wav": "no hash"}}'])
def test_what_is_no_card_is_refused(text: str) -> None:
    with pytest.raises(CardError, match="not a track card"):
        TrackCard.from_json(text)
