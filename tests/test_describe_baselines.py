"""The baselines: describers of their own right, selectable by name, and what they say they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from melodify_lib import stages
from melodify_lib.dataset import read
from melodify_lib.dataset.tables import load_genres
from melodify_lib.describe import zero_shot
from melodify_lib.describe.retrieval import RetrievalDescriber
from melodify_lib.describe.zero_shot import ZeroShotDescriber
from melodify_lib.errors import DatasetError, DescriptionError
from melodify_lib.genres import GENRES
from melodify_lib.nouns import Caption
from melodify_lib.settings import Settings
from melodify_lib.tables import read_yaml

TRAIN = Path(__file__).parent.parent / "data/generate_jsonl/output/train.jsonl"


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("train") / "train.jsonl"
    path.write_text("".join(TRAIN.read_text(encoding="utf-8").splitlines(keepends=True)[:200]), encoding="utf-8")
    return path


def test_retrieval_lends_the_description_of_the_nearest_caption(train: Path) -> None:
    describer = RetrievalDescriber(train)
    for example in read(train)[:5]:
        assert describer.describe(Caption.from_text(example.caption)) == example.description
        assert describer.describe(Caption.from_text(example.caption), "jazz").genre == "jazz"


def test_retrieval_travels_in_a_folder(train: Path, tmp_path: Path) -> None:
    RetrievalDescriber(train).export(tmp_path / "model")
    again = stages.describer(Settings.load(describer="retrieval", describer_model=tmp_path / "model"))
    assert again.version == RetrievalDescriber(train).version
    with pytest.raises(DatasetError, match="cannot read"):
        stages.describer(Settings.load(describer="retrieval", describer_model=tmp_path / "nowhere"))


def test_zero_shot_tells_clear_pictures_apart_and_is_always_valid() -> None:
    describer = stages.describer(Settings.load(describer="zero_shot"))
    answers = describer.describe_many(
        [
            Caption.from_text("People dance under a glittering mirror ball in sequins."),
            Caption.from_text("A farmer leads his horse past a red barn."),
            Caption.from_text("🎉"),
        ]
    )
    assert [music.genre for music in answers[:2]] == ["disco", "country"]
    assert answers == [
        describer.describe(Caption.from_text(text))
        for text in (
            "People dance under a glittering mirror ball in sequins.",
            "A farmer leads his horse past a red barn.",
            "🎉",
        )
    ]


@pytest.mark.parametrize("genre", GENRES)
def test_zero_shot_keeps_a_given_genre(genre: str) -> None:
    assert ZeroShotDescriber().describe(Caption.from_text("A quiet street."), genre).genre == genre


def test_baselines_refuse_an_unknown_genre(train: Path) -> None:
    for describer in (ZeroShotDescriber(), RetrievalDescriber(train)):
        with pytest.raises(DescriptionError, match="no genre 'polka'"):
            describer.describe(Caption.from_text("A street."), "polka")


def test_what_zero_shot_knows_of_a_genre_is_what_the_dataset_holds_usual() -> None:
    source = Path(__file__).parent.parent / "data" / "generate_jsonl"
    usual = load_genres(source)
    for genre, row in read_yaml(Path(zero_shot.__file__).with_suffix(".yaml")).items():
        assert tuple(row["bpm"]) == usual[genre].bpm
        assert row["minor"] == usual[genre].minor
        assert set(row["instruments"]) <= set(usual[genre].instruments)
