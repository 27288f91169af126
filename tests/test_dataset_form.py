"""One line of the dataset: what is written is read back, and what else fits travels with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodify_lib.dataset import Example, check, read, to_line
from melodify_lib.errors import DatasetError
from melodify_lib.genres import GENRES, Genre
from melodify_lib.nouns import MusicDescription

MUSIC = MusicDescription(
    description="A slow blues.", genre="blues", bpm=70, key="A minor", moods=("lonely",), instruments=("harmonica",)
)


@given(st.lists(st.sampled_from(GENRES), max_size=6))
def test_alternatives_come_back_once_each_and_without_the_genre_itself(
    tmp_path_factory: pytest.TempPathFactory, names: list[Genre]
) -> None:
    path = tmp_path_factory.mktemp("form") / "one.jsonl"
    path.write_text(to_line(Example("An empty bar.", MUSIC, tuple(names))), encoding="utf-8")
    [example] = read(path)
    assert example.description == MUSIC
    assert example.alternatives == tuple(name for name in dict.fromkeys(names) if name != "blues")


def test_a_line_without_alternatives_is_read() -> None:
    assert MusicDescription.parse(MUSIC.to_json()) == MUSIC
    assert MusicDescription.parse(json.dumps({**json.loads(MUSIC.to_json()), "alternatives": ["jazz"]})) == MUSIC


@pytest.mark.parametrize("alternatives", [["polka"], "jazz", [3], {"jazz": 1}, None])
def test_what_is_no_list_of_genres_is_named(tmp_path: Path, alternatives: object) -> None:
    path = tmp_path / "one.jsonl"
    record = json.loads(to_line(Example("An empty bar.", MUSIC)))
    answer = {**json.loads(MUSIC.to_json()), "alternatives": alternatives}
    record["contents"][1]["parts"][0]["text"] = json.dumps(answer)
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"line 1: contents\[1\].parts: alternatives"):
        read(path)
    [problem] = [one for one in check(path, alike=False) if one.line]
    assert "alternatives" in problem.what
