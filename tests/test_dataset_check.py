"""Checks name the line, the field and the fix, on anybody's file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodify_lib import dataset
from melodify_lib.errors import DatasetError

GOOD = (Path(__file__).parent.parent / "data/generate_jsonl/output/validation.jsonl").read_text("utf-8").splitlines()


def changed(**changes: Any) -> str:
    return json.dumps({**json.loads(GOOD[0]), **changes})


def turn(role: Any, text: Any) -> dict[str, Any]:
    return {"role": role, "parts": [{"text": text}]}


USER, MODEL = json.loads(GOOD[0])["contents"]

BROKEN: dict[str, tuple[str, str, str]] = {
    # what is broken: (line, field, part of what is said)
    "not JSON": ("{", "line", "not JSON"),
    "a number that is not JSON": ('{"contents": NaN}', "line", "not JSON"),
    "nested deeply": ("[" * 100_000, "line", "nested too deeply"),
    "a long integer": ('{"contents": ' + "9" * 5000 + "}", "line", "not JSON"),
    "no object": ("[]", "line", "a list"),
    "no contents": ('{"systemInstruction": {"parts": [{"text": "x"}]}}', "contents", "is missing"),
    "contents of the wrong type": ('{"contents": 5}', "contents", "a number"),
    "one turn": (changed(contents=[USER]), "contents", "a list of 1"),
    "roles the wrong way round": (changed(contents=[MODEL, USER]), "contents[0].role", "'model'"),
    "a role that is a list": (changed(contents=[turn([1], "x"), MODEL]), "contents[0].role", "[1]"),
    "three turns": (changed(contents=[USER, MODEL, USER]), "contents[2].role", "last turn"),
    "an empty caption": (changed(contents=[turn("user", " "), MODEL]), "contents[0].parts[0].text", "empty"),
    "a text that is a number": (changed(contents=[turn("user", 7), MODEL]), "contents[0].parts[0].text", "a number"),
    "no parts": (changed(contents=[{"role": "user"}, MODEL]), "contents[0].parts", "missing"),
    "a turn that is a text": (changed(contents=["x", MODEL]), "contents[0]", "a string"),
    "an unknown genre": (
        changed(contents=[USER, turn("model", MODEL["parts"][0]["text"].replace('"genre":"', '"genre":"polka '))]),
        "contents[1].parts",
        "genre",
    ),
    "an answer in prose": (changed(contents=[USER, turn("model", "Something slow.")]), "contents[1].parts", "music"),
    "another field": (changed(messages=[]), "messages", "not a field"),
    "a system turn of another role": (changed(systemInstruction=turn("user", "x")), "systemInstruction.role", "'user'"),
    "a surrogate": (
        changed(contents=[turn("user", "\ud800"), MODEL]).replace("contents", "\ud800"),
        "line",
        "not JSON",
    ),
    "too long a line": ('{"contents": "' + "x" * 1_200_000 + '"}', "line", "longer than"),
}


ANSWER = MODEL["parts"][0]["text"]
BROKEN |= {
    "half a surrogate in the caption": (
        changed(contents=[turn("user", "half \ud800 pair"), MODEL]),
        "contents[0].parts[0].text",
        "surrogate",
    ),
    "half a surrogate in the answer": (
        changed(contents=[USER, turn("model", ANSWER.replace('"description":"', '"description":"\udfff'))]),
        "contents[1].parts[0].text",
        "surrogate",
    ),
    "a key twice": ('{"contents": [],' + GOOD[0][1:], "line", "the key 'contents' stands twice"),
    "a key of the answer twice": (
        changed(contents=[USER, turn("model", '{"genre":"jazz",' + ANSWER[1:])]),
        "contents[1].parts",
        "the key 'genre' stands twice",
    ),
    "a caption of no width": (
        changed(contents=[turn("user", "\u200b\u2060 "), MODEL]),
        "contents[0].parts[0].text",
        "empty",
    ),
    "an answer that never ends": (
        changed(contents=[USER, turn("model", "```" + "\n" * 19_000 + "x")]),
        "contents[1].parts",
        "music",
    ),
}
SUSPECT: dict[str, tuple[str, str, str]] = {
    # read by Gemini, and by us; what is suspected in which field
    "a key in the instruction": (
        changed(systemInstruction=turn("system", "key sk-proj-abcdefghij0123456789")),
        "systemInstruction.parts",
        "secret",
    ),
    "a mail in the instruction": (
        changed(systemInstruction=turn("system", "write to joe@x.org")),
        "systemInstruction.parts",
        "e-mail",
    ),
    "another field of a turn": (changed(contents=[{**USER, "weight": 0}, MODEL]), "contents[0].weight", "not a field"),
    "another field of a part": (
        changed(contents=[USER, {**MODEL, "parts": [{**MODEL["parts"][0], "bogus": 1}]}]),
        "contents[1].parts[0].bogus",
        "not a field",
    ),
    "a mail late in the caption": (
        changed(contents=[turn("user", "lake " * 4_100 + "joe@x.org"), MODEL]),
        "contents[0].parts",
        "e-mail",
    ),
    "an escaped name": (
        changed(contents=[USER, turn("model", ANSWER.replace('"description":"', r'"description":"Bj\u00f6rk '))]),
        "contents[1].parts",
        "'Björk'",
    ),
    "an escaped mail": (
        changed(contents=[USER, turn("model", ANSWER.replace('"description":"', r'"description":"joe\u0040x.org '))]),
        "contents[1].parts",
        "e-mail",
    ),
    "an escaped half of a surrogate": (
        changed(contents=[USER, turn("model", ANSWER.replace('"description":"', r'"description":"\ud800 '))]),
        "contents[1].parts",
        "surrogate",
    ),
    "a mark of byte order": ("\ufeff" + GOOD[0], "line", "byte-order mark"),
}


@pytest.mark.parametrize("name", SUSPECT)
def test_what_is_suspect_is_named_once_with_its_field(name: str, tmp_path: Path) -> None:
    line, field, what = SUSPECT[name]
    path = tmp_path / "file.jsonl"
    path.write_text("\n".join([*GOOD[1:], line]), encoding="utf-8")
    [problem] = [problem for problem in dataset.check(path, alike=False) if problem.line]
    assert (problem.line, problem.field) == (len(GOOD), field) and what in problem.what and problem.fix


def test_a_turn_is_named_by_its_place_when_another_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text(changed(contents=[{"role": "user", "parts": []}, turn("model", "mail joe@x.org")]), "utf-8")
    assert [one.field for one in dataset.check(path) if "e-mail" in one.what] == ["contents[1].parts"]


@pytest.mark.parametrize("name", ["a pipe", "a folder", "/dev/zero"])
def test_what_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "a pipe":
        os.mkfifo(path)
    elif name == "a folder":
        path.mkdir()
    for function in (dataset.check, dataset.read):
        with pytest.raises(DatasetError, match=r"cannot read .*: it is not a regular file"):
            function(path)


def test_a_file_given_twice_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text("{}", encoding="utf-8")
    (tmp_path / "link.jsonl").symlink_to(path)
    spellings = path, tmp_path / ".." / tmp_path.name / path.name, tmp_path / "link.jsonl"
    assert dataset.check(*spellings) == dataset.check(path)


def test_many_keys_do_not_take_long(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text("{" + ",".join(f'"{number}":0' for number in range(80_000)) + ',"0":1}', encoding="utf-8")
    started = time.process_time()
    assert dataset.check(path)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_line_is_named_with_its_field(name: str, tmp_path: Path) -> None:
    line, field, what = BROKEN[name]
    path = tmp_path / "file.jsonl"
    path.write_bytes("\n".join([*GOOD, line]).encode("utf-8", "surrogatepass"))
    problems = [problem for problem in dataset.check(path, alike=False) if problem.line == len(GOOD) + 1]
    assert any(problem.field == field and what in problem.what and problem.fix for problem in problems), problems


@pytest.mark.parametrize(
    "name", [name for name in BROKEN if name not in ("another field", "a system turn of another role")]
)
def test_reading_a_broken_file_names_the_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes("\n".join([*GOOD[:3], BROKEN[name][0]]).encode("utf-8", "surrogatepass"))
    with pytest.raises(DatasetError, match="line 4"):
        dataset.read(path)


def test_the_same_caption_twice_is_named_with_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text("\n".join([*GOOD, GOOD[2]]), encoding="utf-8")
    assert "line 3" in next(problem.what for problem in dataset.check(path) if problem.line == len(GOOD) + 1)


def test_an_unbalanced_file_names_the_genres(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text("\n".join(line for line in GOOD if '\\"genre\\":\\"jazz\\"' not in line), encoding="utf-8")
    [problem] = dataset.check(path)
    assert (problem.line, problem.field) == (0, "genre") and "jazz" in problem.what


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_file_is_a_problem_and_not_a_crash(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(content)
    assert "no examples" in dataset.check(path)[-1].what
    with pytest.raises(DatasetError, match="no examples"):
        dataset.read(path)


def test_more_validation_examples_than_gemini_takes_are_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "validation.jsonl"
    path.write_text("{}\n" * 5_001, encoding="utf-8")
    assert any("5,001 validation examples" in problem.what for problem in dataset.check(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for function in (dataset.check, dataset.read, dataset.stats):
        with pytest.raises(DatasetError, match=r"cannot read .*nothing\.jsonl"):
            function(tmp_path / "nothing.jsonl")


@given(st.binary(max_size=400))
def test_no_bytes_crash_the_check(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.jsonl"
    path.write_bytes(data)
    assert dataset.check(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "parts", "text"]), inner),
    max_leaves=8,
)


@given(st.fixed_dictionaries({"contents": st.lists(JSON, max_size=3)}, optional={"systemInstruction": JSON}))
def test_no_shape_of_json_crashes_the_check(tmp_path_factory: pytest.TempPathFactory, record: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "shape.jsonl"
    path.write_text(json.dumps(record), encoding="utf-8")
    assert dataset.check(path)
    with pytest.raises(DatasetError, match="line 1"):
        dataset.read(path)


def test_statistics_add_up() -> None:
    path = Path(__file__).parent.parent / "data/generate_jsonl/output/test.jsonl"
    stats = dataset.stats(path)
    assert stats.examples == sum(stats.genres.values()) == len(stats.caption_words)
    assert all(slowest <= mean <= fastest for slowest, mean, fastest in stats.bpm.values())
    assert all(0 <= share <= 1 for share in stats.minor_share.values())
