"""The dataset: built to the byte, balanced, split by scene, and inside the genre table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from melodify_lib import dataset
from melodify_lib.dataset import synthesize, tables
from melodify_lib.errors import DatasetError
from melodify_lib.genres import GENRES
from melodify_lib.moods import MOODS

SOURCE = Path(__file__).parent.parent / "data" / "generate_jsonl"
OUTPUT = SOURCE / "output"
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    dataset.build(SOURCE, folder)
    return folder


@pytest.fixture(scope="module")
def plan() -> dict[str, list[synthesize.Assignment]]:
    return synthesize.plan(tables.load(SOURCE), per_genre=synthesize.PER_GENRE, seed=0)


@pytest.mark.parametrize("split", SPLITS)
def test_a_build_gives_the_committed_bytes(built: Path, split: str) -> None:
    assert (built / f"{split}.jsonl").read_bytes() == (OUTPUT / f"{split}.jsonl").read_bytes()


def test_the_shipped_files_have_no_problems() -> None:
    paths = [OUTPUT / f"{split}.jsonl" for split in SPLITS]
    assert dataset.check(*paths, genres=tables.load_genres(SOURCE)) == []


def test_every_genre_has_the_same_number_and_at_least_a_hundred_for_training() -> None:
    counts = Counter(example.description.genre for example in dataset.read(OUTPUT / "train.jsonl"))
    assert set(counts) == set(GENRES)
    assert len(set(counts.values())) == 1
    assert min(counts.values()) >= 100


def test_no_scene_is_on_two_sides_of_the_split(plan: dict[str, list[synthesize.Assignment]]) -> None:
    scenes = [{one.choice.scene.name for one in plan[split]} for split in SPLITS]
    assert not (scenes[0] & scenes[1] or scenes[0] & scenes[2] or scenes[1] & scenes[2])
    assert sum(map(len, scenes)) >= 600


def test_no_two_captions_and_no_two_descriptions_are_alike() -> None:
    examples = [example for split in SPLITS for example in dataset.read(OUTPUT / f"{split}.jsonl")]
    assert len({example.caption for example in examples}) == len(examples)
    assert len({example.description.description for example in examples}) == len(examples)


def test_descriptions_stay_inside_the_genre_table() -> None:
    genres = yaml.safe_load((SOURCE / "genres.yaml").read_text(encoding="utf-8"))
    for split in SPLITS:
        for example in dataset.read(OUTPUT / f"{split}.jsonl"):
            music = example.description
            row = genres[music.genre]
            assert row["bpm"][0] <= music.bpm <= row["bpm"][1]
            assert set(music.instruments) <= set(row["instruments"])
            assert len(music.instruments) >= 3
            assert set(music.moods) <= set(MOODS)


def test_bright_pictures_are_in_major_and_dark_ones_in_minor(plan: dict[str, list[synthesize.Assignment]]) -> None:
    examples = dataset.read(OUTPUT / "train.jsonl")
    for assignment, example in zip(plan["train"], examples, strict=True):
        assert assignment.choice.genre == example.description.genre
        valence = MOODS[assignment.choice.mood][0]
        if valence >= 0.7:
            assert example.description.mode == "major"
        if valence <= -0.5 and assignment.choice.genre != "country":
            assert example.description.mode == "minor"


def test_another_seed_gives_another_dataset(tmp_path: Path) -> None:
    summary = dataset.build(SOURCE, tmp_path, per_genre=10, seed=1)
    other = dataset.build(SOURCE, tmp_path, per_genre=10, seed=2)
    assert summary.train_sha256 != other.train_sha256
    assert (summary.train, summary.validation, summary.test) == (160, 20, 20)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.jsonl", "train.jsonl", "validation.jsonl"]


def test_progress_counts_up_to_the_whole(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    dataset.build(SOURCE, tmp_path, per_genre=10, on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 200) for done in range(1, 201)]


def test_lines_and_examples_are_each_others_inverse() -> None:
    path = OUTPUT / "validation.jsonl"
    assert path.read_text(encoding="utf-8") == "".join(
        dataset.to_line(example) + "\n" for example in dataset.read(path)
    )


def test_a_table_with_an_unknown_name_is_refused_by_file_and_name(tmp_path: Path) -> None:
    for table in SOURCE.glob("*.yaml"):
        text = table.read_text(encoding="utf-8")
        (tmp_path / table.name).write_text(text.replace("{role: bass,", "{role: bassoon,"), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"instruments\.yaml: .*role"):
        dataset.build(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_source_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"cannot read the table .*genres\.yaml"):
        dataset.build(tmp_path / "nowhere", tmp_path)
