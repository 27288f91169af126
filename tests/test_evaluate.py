"""Evaluation: figures that mean what they say, and a gate that promotes, refuses, and cannot be walked around."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from melodify_lib import cli, stages
from melodify_lib.dataset import Example, read
from melodify_lib.describe.local import SHIPPED
from melodify_lib.errors import DatasetError, DescriptionError, ModelError
from melodify_lib.evaluate import gate
from melodify_lib.evaluate.cases import Case, read_cases
from melodify_lib.evaluate.describer import METRICS, Evaluation, evaluate, middle_tempos
from melodify_lib.genres import GENRES
from melodify_lib.nouns import Caption, MusicDescription, StageVersion
from melodify_lib.settings import Settings

DATA = Path(__file__).parent.parent / "data" / "generate_jsonl"
OOD = DATA / "ood_captions.jsonl"


def music(genre: str = "jazz", bpm: int = 100, key: str = "C major", text: str = "A tune.") -> MusicDescription:
    return MusicDescription.model_validate(
        {"description": text, "genre": genre, "bpm": bpm, "key": key, "moods": ("calm",), "instruments": ("piano",)}
    )


class Scripted:
    """Answers each caption with what the script says; None is an answer that is not valid."""

    def __init__(self, script: dict[str, MusicDescription | None]) -> None:
        self.script = script

    @property
    def version(self) -> StageVersion:
        return StageVersion(name="scripted", version="1")

    def export(self, folder: Path) -> None:
        raise NotImplementedError

    def describe(self, caption: Caption, genre: str | None = None) -> MusicDescription:
        answer = self.script[caption.text]
        if answer is None:
            raise DescriptionError("not a music description")
        return answer

    def describe_many(self, captions: Sequence[Caption], genre: str | None = None) -> list[MusicDescription]:
        return [self.describe(caption, genre) for caption in captions]


def case(caption: str, genres: str = "jazz", energy: str = "any", mode: str = "any", paraphrase: str = "") -> Case:
    return Case.model_validate(
        {
            "caption": caption,
            "genres": genres.split(),
            "energy": energy,
            "mode": mode,
            "paraphrase": paraphrase or None,
        }
    )


MIDDLES = dict.fromkeys(GENRES, 100.0)


def test_every_figure_is_what_it_says() -> None:
    cases = [
        case("a", "jazz blues", "high", "minor", "a again"),
        case("b", "rock", "low", "major"),
        case("c", "jazz"),
        case("d", "jazz", "high", "major", "d again"),
    ]
    test = [
        Example("t", music("rock", 120, "D minor")),
        Example("u", music("jazz", 90), alternatives=("blues", "rock")),
    ]
    script = {
        "a": music("blues", 101, "A minor", "One."),
        "a again": music("blues", 90, text="Two."),
        "b": music("jazz", 99, "A minor", "Same."),
        "c": music("jazz", text="Same."),
        "d": None,
        "d again": music(text="Three."),
        "t": music("rock", 126, "C minor"),
        "u": music("rock", 120),
    }
    one = evaluate({"scripted": Scripted(script)}, test, cases, MIDDLES)
    values = {metric: round(figure.value, 3) for metric, figure in one.figures()["scripted"].items()}
    assert values == {
        "valid": round(7 / 8, 3),
        "ood genre": 0.5,  # a and c
        "ood energy": round(2 / 3, 3),  # a and b; d gave no answer
        "ood mode": round(1 / 3, 3),
        "paraphrase genre": 1.0,
        "same genre": 0.5,
        "distinct": 0.5,  # "Same." twice, and one that is not valid
        "test genre": 1.0,  # rock is one of u's alternatives
        "test mode": 1.0,
        "test energy": 0.5,
        "bpm error": 18.0,
        "moods F1": 1.0,
        "instruments F1": 1.0,
    }
    assert set(values) == set(METRICS)
    assert one.genres["scripted"]["jazz"] == (2, 1)
    rock, jazz = GENRES.index("rock"), GENRES.index("jazz")
    assert one.confusion["scripted"][rock, rock] == one.confusion["scripted"][jazz, rock] == 1
    assert one.figure("scripted", "ood energy").cases == 3


def evaluation(**scores: list[float]) -> Evaluation:
    """An evaluation with these genre scores, all else equal and good."""
    size = len(next(iter(scores.values())))
    return Evaluation(
        versions=dict.fromkeys(scores, "1"),
        scores={
            name: {metric: np.array(values if metric == "ood genre" else [1.0] * size) for metric in METRICS}
            for name, values in scores.items()
        },
        confusion={},
        genres={},
    )


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    chance = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        one = evaluation(model=list((chance.random(120) < 0.7).astype(float))).figure("model", "ood genre")
        covered += one.low <= 0.7 <= one.high
    assert 0.90 <= covered / 200 <= 0.99


def test_what_is_hard_for_both_cancels_out_of_a_difference() -> None:
    hard = [0.0, 1.0] * 50
    better = [1.0 if index % 10 == 0 else value for index, value in enumerate(hard)]
    one = evaluation(model=better, baseline=hard)
    apart = one.figure("model", "ood genre"), one.figure("baseline", "ood genre")
    assert apart[0].low < apart[1].high  # the single intervals overlap
    assert one.difference("model", "baseline", "ood genre").low > 0


def model(tmp_path: Path) -> Path:
    folder = tmp_path / "describer"
    shutil.copytree(SHIPPED, folder)
    (folder / gate.VERDICT_FILE).unlink(missing_ok=True)
    return folder


GOOD, POOR = [1.0] * 80 + [0.0] * 20, [0.0] * 50 + [1.0] * 50


def test_a_model_that_beats_both_baselines_is_promoted(tmp_path: Path) -> None:
    verdict = gate.judge(evaluation(zero=POOR, retrieval=POOR, tuned=GOOD), "tuned", model(tmp_path))
    assert verdict.promoted
    assert verdict.reasons == ()


@pytest.mark.parametrize(
    "scores",
    [
        {"zero": POOR, "retrieval": GOOD, "tuned": GOOD},  # as good as one of them
        {"zero": GOOD, "retrieval": POOR, "tuned": POOR},
        {"zero": [0.0] * 50 + [1.0] * 50, "retrieval": POOR, "tuned": [0.0] * 48 + [1.0] * 52},  # better by luck
    ],
)
def test_a_model_that_does_not_beat_both_is_refused_and_told_why(
    tmp_path: Path, scores: dict[str, list[float]]
) -> None:
    verdict = gate.judge(evaluation(**scores), "tuned", model(tmp_path))
    assert not verdict.promoted
    assert all("ood genre against" in reason for reason in verdict.reasons)


@pytest.mark.parametrize("metric", [metric for metric in METRICS if metric != gate.DECIDES])
def test_a_model_that_loses_anything_else_is_refused(tmp_path: Path, metric: str) -> None:
    one = evaluation(zero=POOR, tuned=GOOD)
    worse = np.array([3.0 if metric == "bpm error" else 0.5] * 100)
    one.scores["tuned"][metric] = worse
    verdict = gate.judge(one, "tuned", model(tmp_path))
    assert [reason.split(" against")[0] for reason in verdict.reasons] == [metric]


def test_a_gate_without_a_baseline_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="baseline"):
        gate.judge(evaluation(tuned=GOOD), "tuned", model(tmp_path))


def test_a_metric_that_no_case_asks_for_decides_nothing(tmp_path: Path) -> None:
    one = evaluation(zero=POOR, tuned=GOOD)
    for name in one.scores:
        one.scores[name]["ood mode"] = np.full(100, math.nan)
    assert gate.judge(one, "tuned", model(tmp_path)).promoted


def label(folder: Path, *, good: bool) -> None:
    one = evaluation(zero=POOR, tuned=GOOD if good else POOR)
    gate.label(folder, gate.judge(one, "tuned", folder), one)


def test_a_refused_model_is_kept_labelled_and_not_served(tmp_path: Path) -> None:
    folder = model(tmp_path)
    label(folder, good=False)
    settings = Settings.load(describer_model=folder)
    with pytest.raises(ModelError, match="the gate refused"):
        stages.describer(settings)
    with pytest.raises(ModelError, match="the gate refused"):
        gate.promote(folder, tmp_path / "served")
    assert not (tmp_path / "served").exists()
    assert json.loads((folder / gate.VERDICT_FILE).read_text())["verdict"] == "refused"
    assert stages.describer(settings, refused_too=True).describe(Caption.from_text("a cat")).genre in GENRES


def test_a_promoted_model_is_copied_whole_and_served(tmp_path: Path) -> None:
    folder, served = model(tmp_path), tmp_path / "served"
    with pytest.raises(ModelError, match="not judged"):
        gate.promote(folder, served)
    label(folder, good=True)
    gate.promote(folder, served)
    assert {path.name: path.read_bytes() for path in served.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    assert stages.describer(Settings.load(describer_model=served)).version


def test_a_verdict_is_of_one_model_only(tmp_path: Path) -> None:
    folder = model(tmp_path)
    label(folder, good=True)
    card = json.loads((folder / "describer.json").read_text())
    (folder / "describer.json").write_text(json.dumps({**card, "examples": card["examples"] + 1}))
    for use in (lambda: gate.refuse(folder), lambda: gate.promote(folder, tmp_path / "served")):
        with pytest.raises(ModelError, match=r"not on the model beside it; evaluate"):
            use()


def test_white_space_in_a_card_does_not_take_off_a_refusal(tmp_path: Path) -> None:
    folder = model(tmp_path)
    label(folder, good=False)
    with (folder / "describer.json").open("a") as file:
        file.write("\n \n")
    with pytest.raises(ModelError, match="the gate refused"):
        gate.refuse(folder)


def test_a_folder_is_one_model(tmp_path: Path) -> None:
    folder = model(tmp_path)
    label(folder, good=True)
    served = tmp_path / "served"
    served.mkdir()
    (served / "vertex.json").write_text("{}")
    with pytest.raises(ModelError, match="two models"):
        gate.promote(folder, served)
    (folder / "vertex.json").write_text("{}")
    with pytest.raises(ModelError, match="two models"):
        gate.refuse(folder)


def test_a_model_that_was_never_judged_is_not_promoted(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not judged"):
        gate.promote(model(tmp_path), tmp_path / "served")


def test_a_win_on_a_few_captions_is_none(tmp_path: Path) -> None:
    folder = model(tmp_path)
    few = evaluation(tuned=[1.0] * 20, zero_shot=[0.0] * 20, retrieval=[0.0] * 20)
    verdict = gate.judge(few, "tuned", folder)
    assert not verdict.promoted
    assert "at least 100 are needed" in verdict.reasons[-1]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"verdict": "yes"}', "\ud800".encode("utf-8", "surrogatepass")])
def test_a_damaged_verdict_is_not_a_pass(tmp_path: Path, text: str | bytes) -> None:
    folder = model(tmp_path)
    (folder / gate.VERDICT_FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelError, match=r"gate\.json"):
        stages.describer(Settings.load(describer_model=folder))


def test_the_shipped_describer_passed_the_gate() -> None:
    verdict = gate.read_verdict(SHIPPED)
    assert verdict is not None
    assert verdict.promoted
    assert set(verdict.baselines) == {"zero_shot", "retrieval"}


def test_the_hand_written_captions_are_enough_and_nobody_trained_on_them() -> None:
    cases = read_cases(OOD)
    captions = {one.caption for one in cases}
    assert len(captions) == len(cases) >= 120
    assert sum(one.paraphrase is not None for one in cases) >= 40
    for wanted in ("low", "high"):
        assert sum(one.energy == wanted for one in cases) >= 40
    for wanted in ("major", "minor"):
        assert sum(one.mode == wanted for one in cases) >= 40
    assert {genre for one in cases for genre in one.genres} == set(GENRES)
    trained = {example.caption for split in ("train", "validation") for example in read(DATA / f"output/{split}.jsonl")}
    assert not captions & trained


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ('{"caption": "x", "genres": ["polka"], "energy": "any", "mode": "any"}', "line 2: genres.*polka"),
        ('{"caption": "x", "genres": [], "energy": "any", "mode": "any"}', "line 2: genres"),
        ('{"caption": "x", "genres": ["jazz"], "energy": "huge", "mode": "any"}', "line 2: energy"),
        ("[]", "line 2"),
    ],
)
def test_a_broken_case_is_named_by_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(f'{{"caption": "x", "genres": ["jazz"], "energy": "any", "mode": "any"}}\n{line}\n')
    with pytest.raises(DatasetError, match=message):
        read_cases(path)


def test_middles_lie_between_the_slowest_and_the_fastest() -> None:
    examples = [Example("a", music("jazz", 90)), Example("b", music("jazz", 130)), Example("c", music("rock", 150))]
    assert middle_tempos(examples) == {"jazz": 110, "rock": 150}


def test_the_command_prints_both_tables_and_writes_the_verdict(tmp_path: Path) -> None:
    small = tmp_path / "data"
    small.mkdir()
    for split, count in (("train", 400), ("test", 30)):
        rows = (DATA / f"output/{split}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (small / f"{split}.jsonl").write_text("".join(rows[:count]), encoding="utf-8")
    ood = tmp_path / "ood.jsonl"
    ood.write_text("".join(OOD.read_text(encoding="utf-8").splitlines(keepends=True)[:60]), encoding="utf-8")
    folder, out = model(tmp_path), tmp_path / "out"
    options = ["--dataset", str(small), "--ood", str(ood), "--out", str(out), "--describer-model", str(folder)]
    result = CliRunner().invoke(cli.app, ["evaluate", "describer", *options])
    assert "ood genre" in result.stdout
    assert "cinematic" in result.stdout
    written = json.loads((out / "evaluation.json").read_text())
    assert set(written["figures"]) == {"zero_shot", "retrieval", "tuned"}
    verdict = gate.read_verdict(folder)
    assert verdict is not None
    assert (result.exit_code == 0) == verdict.promoted
