"""Local tuning: repeatable to the byte, honest about itself, and the source of the shipped model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from melodify_lib.dataset import read
from melodify_lib.describe import heads
from melodify_lib.describe.heads import kernel, norm, rounded
from melodify_lib.describe.local import SHIPPED, LocalDescriber
from melodify_lib.errors import DatasetError, ModelError
from melodify_lib.nouns import Caption, sha256
from melodify_lib.tuning import local as tuning
from melodify_lib.tuning.local import tune

OUTPUT = Path(__file__).parent.parent / "data" / "generate_jsonl" / "output"


@pytest.fixture(scope="module")
def subset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("subset") / "train.jsonl"
    path.write_text("\n".join((OUTPUT / "train.jsonl").read_text("utf-8").splitlines()[:120]) + "\n", encoding="utf-8")
    return path


def test_tuning_twice_gives_the_same_bytes(subset: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        tune(subset, tmp_path / name)
    for file in (heads.WEIGHTS_FILE, heads.CARD_FILE):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["describer.json", "heads.safetensors"]


def test_curves_metrics_and_progress_are_reported(subset: Path, tmp_path: Path) -> None:
    validation = tmp_path / "validation.jsonl"
    validation.write_text(
        "\n".join((OUTPUT / "validation.jsonl").read_text("utf-8").splitlines()[:40]), encoding="utf-8"
    )
    calls: list[tuple[int, int]] = []
    result = tune(subset, tmp_path / "out", validation=validation, on_progress=lambda *call: calls.append(call))
    assert calls[-1] == (160, 160)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert result.steps == [15, 30, 60, 120]
    assert {"left-out genre", "validation genre", "validation mode"} <= set(result.curves)
    assert all(len(values) == len(result.steps) for values in result.curves.values())
    shares = {name: value for name, value in result.metrics.items() if "bpm" not in name}
    assert all(0 <= value <= 1 for value in shares.values())
    assert result.metrics["validation mode"] > 0.5
    assert result.seconds > 0


def test_the_shipped_model_is_what_tuning_makes_of_the_shipped_file(tmp_path: Path) -> None:
    tune(OUTPUT / "train.jsonl", tmp_path)
    made, shipped = heads.load(tmp_path), heads.load(SHIPPED)
    assert shipped.card.dataset_sha256 == sha256((OUTPUT / "train.jsonl").read_bytes())
    # The tensors' hash may differ: other processors round their last bits another way.
    unhashed = [one.card.model_copy(update={"heads_sha256": "0" * 64}) for one in (made, shipped)]
    assert unhashed[0] == unhashed[1]
    for name, tensor in shipped.tensors.items():
        step = 1 / 400 if name == "landmarks" else 0  # one step of int8
        np.testing.assert_allclose(made.tensors[name], tensor, rtol=1e-2, atol=2e-3 + step, err_msg=name)
    captions = [Caption.from_text(example.caption) for example in read(OUTPUT / "test.jsonl")[:50]]
    assert LocalDescriber(made).describe_many(captions) == LocalDescriber(shipped).describe_many(captions)


def test_the_shipped_model_is_small() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 2_500_000


def test_what_is_left_out_is_what_tuning_without_it_would_say() -> None:
    chance = np.random.default_rng(0)
    vectors = chance.normal(size=(30, 384)).astype(np.float32)
    vectors = rounded(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    targets = chance.normal(size=(30, 3))
    _, left_out = tuning._ridge(vectors, vectors, np.arange(30), targets)
    others = vectors[1:]
    # The landmark stays when all are landmarks, but it has no weight: the ridge in its dual form.
    alike = kernel(others, others)
    weight = np.linalg.solve(alike + tuning.PENALTY * np.eye(29), targets[1:])
    row = kernel(vectors[:1], others)
    np.testing.assert_allclose(left_out[:1], row @ weight / norm(row), rtol=1e-3, atol=1e-5)


def test_a_large_file_is_learned_through_some_of_its_captions(
    subset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "MAX_LANDMARKS", 50)
    monkeypatch.setattr(tuning, "_AT_ONCE", 32)
    result = tune(subset, tmp_path / "out")
    made = heads.load(tmp_path / "out")
    assert made.tensors["landmarks"].shape == (50, 384)
    assert made.card.examples == 120
    assert 0 <= result.metrics["left-out genre"] <= 1
    assert LocalDescriber(made).describe(Caption.from_text("A cat asleep by the fire.")).bpm > 0


def test_a_file_of_one_genre_is_refused(tmp_path: Path) -> None:
    lines = (OUTPUT / "train.jsonl").read_text("utf-8").splitlines()
    path = tmp_path / "jazz.jsonl"
    path.write_text("\n".join(line for line in lines if '\\"genre\\":\\"jazz\\"' in line), encoding="utf-8")
    with pytest.raises(DatasetError, match="fewer than two genres"):
        tune(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tuning_voids_the_verdict_and_refuses_a_folder_with_another_model(subset: Path, tmp_path: Path) -> None:
    (tmp_path / "gate.json").write_text("of what was here")
    tune(subset, tmp_path)
    assert not (tmp_path / "gate.json").exists()
    (tmp_path / "vertex").mkdir()
    (tmp_path / "vertex" / "vertex.json").write_text("{}")
    with pytest.raises(ModelError, match=r"another kind of describer \(vertex.json\)"):
        tune(subset, tmp_path / "vertex")


def test_a_genre_that_training_never_saw_counts_as_missed(subset: Path, tmp_path: Path) -> None:
    def lines(*genres: str) -> str:
        return "".join(f"{line}\n" for line in ALL if any(f'\\"genre\\":\\"{genre}\\"' in line for genre in genres))

    ALL = (OUTPUT / "validation.jsonl").read_text("utf-8").splitlines()
    (tmp_path / "train.jsonl").write_text(lines("metal", "ambient"))
    (tmp_path / "held.jsonl").write_text(lines("metal", "ambient", "reggae"))
    with_reggae = tune(tmp_path / "train.jsonl", tmp_path / "one", validation=tmp_path / "held.jsonl").metrics
    without = tune(tmp_path / "train.jsonl", tmp_path / "two", validation=tmp_path / "train.jsonl").metrics
    assert with_reggae["validation bpm error"] == without["validation bpm error"]
    assert with_reggae["validation genre"] < without["validation genre"]


def test_a_folder_that_cannot_be_written_is_named(subset: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelError, match="cannot write the describer into"):
        tune(subset, tmp_path / "file")
