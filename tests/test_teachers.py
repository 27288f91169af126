"""Teachers that are paid, over the wire to emulators: valid, within limits and budget, and never paid twice."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emulators.openai import OpenAIEmulator
from emulators.pupil import SOURCE, Pupil
from emulators.server import DROP, HANG, Fault, Reply, Request
from emulators.vertex import VertexEmulator, blocked, stopped
from melodify_lib import dataset
from melodify_lib.cloud import retry
from melodify_lib.dataset import synthesize, tables, teachers
from melodify_lib.dataset.teachers import Estimate, journal, paid, prompt
from melodify_lib.dataset.teachers.journal import JOURNAL_FILE, Answered, open_journal
from melodify_lib.errors import BudgetError, CloudError, DatasetError, PaidError, SettingsError
from melodify_lib.genres import GENRES
from melodify_lib.settings import Settings

KEY, TOKEN = "sk-emulated-0123456789abcdefghij", "ya29.emulated-0123456789abcdefghij"
SPLITS = ("train", "validation", "test")
LINES = 200  # ten a genre, the fewest that can be split
TABLES = tables.load(SOURCE)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal.os, "fsync", lambda file: None)


class World:
    """One teacher, its emulated service, and the settings to reach it."""

    def __init__(self, teacher: str) -> None:
        self.teacher = teacher
        self.pupil = Pupil()
        self.emulator = (
            OpenAIEmulator(self._respond, KEY) if teacher == "openai" else VertexEmulator(self._respond, TOKEN)
        )
        self.asked: Counter[str] = Counter()  # how often each assignment was asked
        self.spoil: Callable[[dict[str, Any], dict[str, Any], int], Any] = lambda answer, question, time: answer
        self._lock = threading.Lock()

    def _respond(self, question: str) -> Any:
        with self._lock:
            asked = json.loads(question)
            self.asked[_picture(asked)] += 1
            return self.spoil(self.pupil(question), asked, self.asked[_picture(asked)])

    @property
    def environment(self) -> dict[str, str]:
        addresses = (
            {"OPENAI_BASE_URL": self.emulator.base_url, "OPENAI_API_KEY": KEY}
            if isinstance(self.emulator, OpenAIEmulator)
            else {"VERTEX_BASE_URL": self.emulator.url, "ACCESS_TOKEN": TOKEN, "PROJECT": "melodify"}
        )
        return {f"MELODIFY_{name}": value for name, value in {**addresses, "ALLOW_PAID": "true"}.items()}

    def settings(self, **more: Any) -> Settings:
        fields = {name.removeprefix("MELODIFY_").lower(): value for name, value in self.environment.items()}
        return Settings.load(**{**fields, **more})

    def build(self, out: Path, **options: Any) -> dataset.DatasetSummary:
        options = {"budget": 5.0, "rate": 60_000, "settings": self.settings(), **options}
        return dataset.build(SOURCE, out, per_genre=10, teacher=self.teacher, **options)

    def teach(self, folder: Path, count: int = 40, **options: Any) -> teachers.Taught:
        """The first assignments of the same build, without writing splits."""
        plan = synthesize.plan(TABLES, per_genre=10, seed=0)
        on_progress, settings = options.pop("on_progress", None), options.pop("settings", self.settings())
        terms = teachers.Terms(folder, **{"budget": 5.0, "rate": 60_000, **options})
        return teachers.teacher(self.teacher, settings, terms).teach(plan["train"][:count], TABLES, on_progress)


def _picture(question: dict[str, Any]) -> str:
    return f"{question['picture']['shows']} {question['mood']} {question['genre']} {question['manner']}"


@pytest.fixture(params=["openai", "gemini"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(request.param)
    with made.emulator:
        yield made


@pytest.fixture
def openai() -> Iterator[World]:
    made = World("openai")
    with made.emulator:
        yield made


def once(fault: Fault, count: int) -> Callable[[Request], Fault | None]:
    """The fault for `count` questions, each when it is asked for the first time."""
    seen: set[str] = set()
    lock = threading.Lock()

    def choose(request: Request) -> Fault | None:
        with lock:
            body = json.dumps(request.body)
            if body in seen or len(seen) == count:
                return None
            seen.add(body)
            return fault

    return choose


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / JOURNAL_FILE).read_text("utf-8").splitlines()]


def test_each_teacher_writes_a_balanced_dataset_that_passes_the_check(world: World, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    estimates: list[Estimate] = []
    requests_when_estimated: list[int] = []

    def on_estimate(estimate: Estimate) -> None:
        estimates.append(estimate)
        requests_when_estimated.append(len(world.emulator.log))

    summary = world.build(tmp_path, on_estimate=on_estimate, on_progress=lambda *call: calls.append(call))
    assert (summary.train, summary.validation, summary.test, summary.dropped) == (160, 20, 20, {})
    assert dataset.check(*(tmp_path / f"{split}.jsonl" for split in SPLITS), genres=tables.load_genres(SOURCE)) == []
    counts = Counter(one.description.genre for split in SPLITS for one in dataset.read(tmp_path / f"{split}.jsonl"))
    assert counts == dict.fromkeys(GENRES, 10)
    assert requests_when_estimated == [0] and estimates[0].requests == LINES
    assert estimates[0].dollars / 3 < summary.spent < estimates[0].dollars
    assert summary.spent == pytest.approx(sum(one.get("cost", 0) for one in records(tmp_path)))
    assert calls[0] == (0, LINES) and calls[-1] == (LINES, LINES) and calls == sorted(calls)


def test_examples_stand_in_the_order_of_the_plan_whatever_the_order_of_answers(openai: World, tmp_path: Path) -> None:
    openai.emulator.pause_s = 0.005
    order: list[str] = []
    openai.spoil = lambda answer, question, time: order.append(question["picture"]["shows"]) or answer
    openai.build(tmp_path)
    plan = synthesize.plan(TABLES, per_genre=10, seed=0)
    asked = [one.choice for split in SPLITS for one in plan[split]]
    assert order != [choice.scene.name for choice in asked]
    written = [one.description for split in SPLITS for one in dataset.read(tmp_path / f"{split}.jsonl")]
    assert [(one.genre, one.moods[0]) for one in written] == [(choice.genre, choice.mood) for choice in asked]


def test_a_finished_build_is_done_again_for_nothing(world: World, tmp_path: Path) -> None:
    first = world.build(tmp_path)
    before = {split: (tmp_path / f"{split}.jsonl").read_bytes() for split in SPLITS}
    asked = len(world.emulator.log)
    assert world.build(tmp_path, budget=None) == first
    assert len(world.emulator.log) == asked
    assert {split: (tmp_path / f"{split}.jsonl").read_bytes() for split in SPLITS} == before


SPOILT: dict[str, tuple[Callable[[dict[str, Any]], Any], str, str]] = {
    "wrong genre": (
        lambda one: {**one, "genre": "jazz" if one["genre"] != "jazz" else "rock"},
        "genre",
        "was asked for",
    ),
    "too fast": (lambda one: {**one, "bpm": 259}, "bpm", "259 is outside"),
    "strange instrument": (lambda one: {**one, "instruments": ["kazoo"]}, "instruments", "kazoo not in"),
    "other mood first": (
        lambda one: {**one, "moods": ["epic"] if one["moods"][0] != "epic" else ["calm"]},
        "moods",
        "first",
    ),
    "no such mood": (lambda one: {**one, "moods": [one["moods"][0], "purple"]}, "moods", "purple not in"),
    "empty caption": (lambda one: {**one, "caption": " "}, "caption", "empty"),
    "endless caption": (lambda one: {**one, "caption": "so long " * 80}, "caption", "640 characters"[4:]),
    "no key": (lambda one: {**one, "key": "H sharp"}, "form", "not a key"),
    "artist": (lambda one: {**one, "description": "In the style of The Beatles."}, "contents", "artist"),
    "personal data": (lambda one: {**one, "caption": "Mail me: jane.doe@example.com"}, "contents", "e-mail"),
    "seen before": (lambda one: {**one, "caption": "A  cat on A sofa."}, "seen before", "the same caption"),
    "not JSON": (lambda one: json.dumps(one)[:-20], "form", "JSON"),
}


def test_what_is_wrong_with_an_answer_is_said_and_asked_again(openai: World, tmp_path: Path) -> None:
    names = list(SPOILT)
    count = 5 * len(names)
    spoilt: dict[str, str] = {}  # picture → what was done to its first answer

    def spoil(answer: dict[str, Any], question: dict[str, Any], time: int) -> Any:
        if time > 1:
            return answer
        name = spoilt[_picture(question)] = names[len(spoilt) % len(names)]
        return SPOILT[name][0](answer)

    openai.spoil = spoil
    taught = openai.teach(tmp_path, count=count)
    assert all(taught.examples) and taught.dropped == {}
    again = [json.loads(one.body["input"]) for one in openai.emulator.log]
    again = [one for one in again if "your_last_answer_was_refused" in one]
    assert len(again) == count - 1  # the first cat on a sofa has not been seen before
    for question in again:
        assert SPOILT[spoilt[_picture(question)]][2] in question["your_last_answer_was_refused"]
    kinds = Counter(one["kind"] for one in records(tmp_path) if "kind" in one)
    assert kinds == Counter(SPOILT[name][1] for name in spoilt.values()) - Counter(["seen before"])
    assert taught.spent == pytest.approx(sum(one.get("cost", 0) for one in records(tmp_path)))


def test_what_stays_invalid_is_dropped_and_counted_by_reason(world: World, tmp_path: Path) -> None:
    moods: list[str] = []

    def spoil(answer: dict[str, Any], question: dict[str, Any], time: int) -> Any:
        if question["genre"] != "jazz":
            return answer
        moods.append(question["mood"])
        return {**answer, "bpm": 259} if question["mood"] == moods[0] else answer

    world.spoil = spoil
    summary = world.build(tmp_path)
    lost = summary.dropped["bpm"]
    assert set(summary.dropped) == {"bpm"} and 0 < lost < 10
    assert summary.train + summary.validation + summary.test == LINES - lost
    asked = Counter(world.asked.values())
    assert asked[paid.ATTEMPTS] == lost and asked[1] == LINES - lost


def test_refusals_and_answers_cut_off_are_billed_and_asked_again(openai: World, tmp_path: Path) -> None:
    emulator = openai.emulator
    assert isinstance(emulator, OpenAIEmulator)
    openai.spoil = lambda answer, question, time: "x" * 9_000 if time == 1 and question["genre"] == "rock" else answer
    first = iter([True])
    emulator.fault = lambda request: emulator.refusal(request) if next(first, False) else None
    taught = openai.teach(tmp_path)
    assert all(taught.examples)
    reasons = {one["reason"] for one in records(tmp_path) if "reason" in one}
    assert reasons == {"the model refused", "the answer was cut off (max_output_tokens); be brief"}
    assert taught.spent == pytest.approx(sum(one.get("cost", 0) for one in records(tmp_path)))


def test_blocked_and_stopped_answers_are_named(tmp_path: Path) -> None:
    gemini = World("gemini")
    faults = iter([Reply(blocked()), Reply(stopped("PROHIBITED_CONTENT")), Reply({})])
    gemini.emulator.fault = lambda request: next(faults, None)
    with gemini.emulator:
        gemini.teach(tmp_path)
    reasons = Counter(one["reason"] for one in records(tmp_path) if "reason" in one)
    assert reasons == {
        "the question was blocked (SAFETY)": 1,
        "the answer was stopped (PROHIBITED_CONTENT)": 1,
        "the answer was empty": 1,
    }


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_service_is_asked_again_when_it_says(
    world: World, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    whole = paid._pause
    monkeypatch.setattr(paid, "_pause", lambda state: pauses.append(whole(state)) or 0.0)
    busy = Reply(world.emulator.error(status, "too busy"), status, {"Retry-After": "7"})
    world.emulator.fault = once(busy, 10)
    taught = world.teach(tmp_path)
    assert all(taught.examples) and pauses == [7.0] * 10
    outcomes = Counter(next(iter(one)) for one in records(tmp_path))
    assert outcomes == {"asked": 40 + 10, "answered": 40} | ({"unserved": 10} if status != 408 else {})


def test_a_pause_that_nobody_names_grows_by_chance(
    openai: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.001)
    openai.emulator.fault = once(Reply(openai.emulator.error(500, "oops"), 500), 3)
    assert all(openai.teach(tmp_path).examples)


def test_lost_requests_count_at_their_most(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.0)
    world.emulator.fault = once(DROP, 5)
    taught = world.teach(tmp_path)
    written = records(tmp_path)
    costs = sum(one.get("cost", 0) for one in written)
    most = [one["most"] for one in written if "most" in one]
    assert len(most) == 40 + 5
    assert costs + 4 * min(most) < taught.spent < costs + 6 * max(most)
    with open_journal(tmp_path) as opened:
        assert opened.spent == pytest.approx(taught.spent)


def test_an_answer_that_is_no_json_at_all_is_lost_too(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.0)
    world.emulator.fault = once(Reply(b"<html>a proxy says hello</html>"), 3)
    assert all(world.teach(tmp_path).examples)
    assert sum("asked" in one for one in records(tmp_path)) == 40 + 3


def test_a_request_that_hangs_is_given_up(openai: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.0)
    openai.emulator.fault = once(HANG, 2)
    assert all(openai.teach(tmp_path).examples)


def test_what_no_waiting_mends_stops_at_once_and_keeps_what_was_paid(world: World, tmp_path: Path) -> None:
    count = iter(range(10_000))
    forbidden = Reply(world.emulator.error(403, f"the key {KEY} {TOKEN} may not"), 403)
    world.emulator.fault = lambda request: forbidden if next(count) >= 20 else None
    with pytest.raises(CloudError, match="403") as caught:
        world.teach(tmp_path)
    assert KEY not in str(caught.value) and TOKEN not in str(caught.value)
    assert len(world.emulator.log) < 20 + 2 * paid.IN_FLIGHT
    assert sum("answered" in one for one in records(tmp_path)) == 20
    assert not (tmp_path / "train.jsonl").exists()
    world.emulator.fault = lambda request: None
    assert all(world.teach(tmp_path).examples)
    assert len(world.emulator.served()) == 40 and set(world.asked.values()) == {1}


def test_no_more_requests_are_open_than_allowed(world: World, tmp_path: Path) -> None:
    world.emulator.pause_s = 0.01
    world.teach(tmp_path)
    assert 2 <= world.emulator.most_at_once <= paid.IN_FLIGHT


def test_requests_keep_to_the_rate(openai: World, tmp_path: Path) -> None:
    started = time.monotonic()
    openai.teach(tmp_path, rate=6_000)  # one in 10 ms
    assert time.monotonic() - started >= (40 - 1) * 0.01


def test_a_paid_teacher_needs_leave_a_budget_and_a_price(world: World, tmp_path: Path) -> None:
    with pytest.raises(PaidError, match="MELODIFY_ALLOW_PAID"):
        world.teach(tmp_path, settings=world.settings(allow_paid=False))
    with pytest.raises(BudgetError, match=r"about \$\d+\.\d+; say what it may cost: --budget"):
        world.teach(tmp_path, budget=None)
    with pytest.raises(BudgetError, match=r"the budget is \$0\.01: raise"):
        world.teach(tmp_path, budget=0.01)
    for nothing in (math.nan, math.inf):
        with pytest.raises(BudgetError, match="is none; give a number"):
            world.teach(tmp_path, budget=nothing)
    with pytest.raises(SettingsError, match="a rate of 0 requests"):
        world.teach(tmp_path, rate=0)
    unknown = world.settings(openai_model="gpt-99", gemini_model="gemini-99")
    with pytest.raises(SettingsError, match=r"no price for '(gpt|gemini)-99' in .*prices\.yaml"):
        world.teach(tmp_path, settings=unknown)
    assert world.emulator.log == []


def test_an_unknown_teacher_is_refused_with_the_choices(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="offline, openai, gemini"):
        dataset.build(SOURCE, tmp_path, teacher="claude")


def test_the_budget_is_never_passed(world: World, tmp_path: Path) -> None:
    """Answers cost far more than was estimated: the run stops, and its true cost is within the budget."""
    world.emulator.pause_s = 0.002
    world.spoil = lambda answer, question, time: {**answer, "description": answer["description"] + " Slowly." * 700}
    budget = 0.1
    with pytest.raises(BudgetError, match=r"the budget of \$0\.10 is used up: .* are kept in .*answers\.journal"):
        world.teach(tmp_path, budget=budget)
    spent = sum(one.get("cost", 0) for one in records(tmp_path))
    assert 0.7 * budget < spent <= budget
    paid_for = len(world.emulator.served())
    assert sum("answered" in one for one in records(tmp_path)) == paid_for  # nobody was cut off
    world.spoil = lambda answer, question, time: answer
    assert world.teach(tmp_path, budget=5.0).spent > spent
    assert set(world.asked.values()) <= {1, 2, 3}


def test_a_killed_run_goes_on_without_paying_twice(world: World, tmp_path: Path) -> None:
    answered = 60
    count = iter(range(10_000))
    world.emulator.fault = lambda request: HANG if next(count) >= answered else None
    command = [
        sys.executable,
        "-m",
        "melodify_lib.cli",
        "dataset",
        "build",
        "--source",
        str(SOURCE),
        "--out",
        str(tmp_path),
    ]
    command += ["--per-genre", "10", "--teacher", world.teacher, "--budget", "5", "--rate", "60000"]
    code = "import sys; from melodify_lib.cli import main; sys.argv[0] = 'melodify'; main()"
    command[1:3] = ["-c", code]
    environment = {**os.environ, **world.environment}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and _count(tmp_path, "answered") < answered:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert _count(tmp_path, "answered") == answered and not (tmp_path / "train.jsonl").exists()
    with (tmp_path / JOURNAL_FILE).open("ab") as file:  # killed in the middle of a line
        file.write(b'{"answered": "4f')
    world.emulator.fault = lambda request: None
    world.emulator.release()

    estimates: list[Estimate] = []
    summary = world.build(tmp_path, on_estimate=estimates.append)
    assert (summary.train, estimates[0].requests) == (160, LINES - answered)
    assert estimates[0].spent > 0
    assert set(world.asked.values()) == {1} and len(world.emulator.served()) == LINES
    lost = [one for one in records(tmp_path) if "most" in one]
    assert summary.spent < sum(one.get("cost", 0) for one in records(tmp_path)) + 8 * max(one["most"] for one in lost)


def _count(folder: Path, what: str) -> int:
    path = folder / JOURNAL_FILE
    return path.read_bytes().count(f'"{what}"'.encode()) if path.exists() else 0


def test_no_key_is_in_the_journal_or_in_a_message(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    secret = "AKIA" + "Z7Q2" * 4
    world.spoil = lambda answer, question, time: {**answer, "key": f"\\u0041 {secret} {KEY}"} if time == 1 else answer
    world.teach(tmp_path)
    wrong = world.settings(openai_api_key=f"{KEY}x", access_token=f"{TOKEN}x")
    with pytest.raises(CloudError, match="401") as caught:
        world.teach(tmp_path / "other", settings=wrong)
    for text in ((tmp_path / JOURNAL_FILE).read_text("utf-8"), str(caught.value), caplog.text, repr(wrong)):
        assert KEY not in text and TOKEN not in text and secret not in text


def test_one_folder_has_one_writer(openai: World, tmp_path: Path) -> None:
    with open_journal(tmp_path), pytest.raises(DatasetError, match="another process is building"):
        openai.teach(tmp_path)
    assert openai.emulator.log == []


def test_a_journal_that_is_damaged_in_the_middle_is_named_by_its_line(tmp_path: Path) -> None:
    with open_journal(tmp_path) as opened:
        opened.asked("a", 1, 0.5)
        opened.answered(Answered("a", "{}"), 1, 0.25)
    path = tmp_path / JOURNAL_FILE
    path.write_bytes(path.read_bytes() + b"garbage\n" + path.read_bytes())
    with pytest.raises(DatasetError, match="line 3: damaged"), open_journal(tmp_path):
        pass


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_line_cut_short_is_dropped_and_what_was_asked_counts_at_its_most(tmp_path: Path, cut: int) -> None:
    with open_journal(tmp_path) as opened:
        opened.asked("a", 1, 0.5)
        opened.answered(Answered("a", '{"caption": "Straße"}'), 1, 0.25)
        opened.asked("b", 1, 0.5)
        opened.answered(Answered("b", "{}"), 1, 0.25)
    path = tmp_path / JOURNAL_FILE
    path.write_bytes(path.read_bytes()[:-cut])
    for _ in range(2):  # the second time it is whole
        with open_journal(tmp_path) as opened:
            assert [answer.key for answer in opened.answers] == ["a"]
            assert opened.spent == 0.75


def test_answers_to_another_question_are_not_taken(
    openai: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = openai.teach(tmp_path)
    monkeypatch.setattr(prompt, "VERSION", "another")
    second = openai.teach(tmp_path)
    assert len(openai.emulator.served()) == 2 * 40
    assert second.spent > 1.9 * first.spent  # what a folder cost is counted together


def test_the_teachers_that_are_named_are_there() -> None:
    terms = teachers.Terms(Path("nowhere"))
    settings = Settings.load(allow_paid=True, openai_api_key=KEY, access_token=TOKEN, project="melodify")
    for name in teachers.TEACHERS:
        assert callable(teachers.teacher(name, settings, terms).teach)


def test_what_nearly_repeats_another_is_asked_again_by_the_same_teacher(world: World, tmp_path: Path) -> None:
    alike = iter(["A ginger cat sleeps on a red sofa.", "A ginger cat is sleeping on a red sofa."])

    def spoil(answer: dict[str, Any], question: dict[str, Any], time: int) -> Any:
        return {**answer, "caption": next(alike, answer["caption"])}

    world.spoil = spoil
    summary = world.build(tmp_path)
    assert summary.train + summary.validation + summary.test + sum(summary.dropped.values()) == LINES
    assert len(world.emulator.served()) > LINES
    assert summary.spent == pytest.approx(sum(one.get("cost", 0) for one in records(tmp_path)))


def test_what_was_never_sent_is_not_booked(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.0)
    nowhere = "http://127.0.0.1:9"
    with pytest.raises(CloudError, match="did not answer"):
        world.teach(tmp_path, settings=world.settings(openai_base_url=nowhere, vertex_base_url=nowhere))
    with open_journal(tmp_path) as opened:
        assert opened.spent == pytest.approx(0)


def _shapes(teacher: str) -> list[Any]:
    """Answers with 200 that no client should stumble over."""
    if teacher == "gemini":
        part = {"candidates": [{"content": {"parts": [{"text": "x"}]}}]}
        return [
            [], None, "hello", b'{"x":"\xff"}', {"candidates": [None]},
            {"candidates": [{"content": {"parts": [None]}}]}, {"candidates": [{"content": None}]},
            {**part, "usageMetadata": {"promptTokenCount": "x"}}, {**part, "usageMetadata": {}},
        ]  # fmt: skip
    base = {"id": "r", "object": "response", "status": "completed", "model": "m", "output": []}
    contents: list[Any] = [None, [None], [{"type": "output_text", "text": 5}], [{"type": "output_text", "text": None}]]
    items = [[{"id": "m", "type": "message", "role": "assistant", "content": one}] for one in contents]
    return [
        {}, [], None, "hello", b'{"x":"\xff"}', {**base, "output": None}, {**base, "output": [None]},
        {**base, "usage": {}}, {**base, "usage": {"input_tokens": "9", "output_tokens": "9"}},
        *({**base, "output": item} for item in items),
    ]  # fmt: skip


def test_answers_of_another_form_are_asked_again(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.0)
    shapes = iter(_shapes(world.teacher))
    lock = threading.Lock()

    def shape(request: Request) -> Fault | None:
        with lock:
            return next((Reply(body) for body in shapes), None)

    world.emulator.fault = shape
    taught = world.teach(tmp_path)
    assert sum(one is None for one in taught.examples) <= 2


def test_an_error_in_one_request_leaves_the_answers_to_the_others(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.emulator.pause_s = 0.05
    whole, count = paid._Lesson._judge, iter(range(1_000))

    def judge(self: Any, row: int, answer: Answered) -> Answered:
        if next(count) == 0:
            raise ZeroDivisionError
        return whole(self, row, answer)

    monkeypatch.setattr(paid._Lesson, "_judge", judge)
    with pytest.raises(ZeroDivisionError):
        world.teach(tmp_path)
    assert sum("answered" in one for one in records(tmp_path)) == len(world.emulator.served()) - 1 > 0


def test_counts_that_are_none_do_not_widen_the_budget(world: World, tmp_path: Path) -> None:
    for said in (-(10**9), 10**15):
        usage = {"input_tokens": said, "output_tokens": said, "total_tokens": 0}
        counts = {"promptTokenCount": said, "candidatesTokenCount": said}
        odd = {"output": [], "usage": usage, "usageMetadata": counts}
        world.emulator.fault = once(Reply(odd), 3)
        world.teach(tmp_path / str(said))
        written = records(tmp_path / str(said))
        most = max(one["most"] for one in written if "most" in one)
        assert all(0 < one["cost"] <= most for one in written if "cost" in one)


def test_a_journal_cannot_give_money_back(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_FILE).write_text('{"answered": "a", "attempt": 1, "cost": -9.0, "text": "{}"}\n')
    with open_journal(tmp_path) as opened:
        assert opened.spent == 0
    (tmp_path / JOURNAL_FILE).write_text('{"answered": "a", "cost": NaN, "text": "{}"}\n{"unserved": "b"}\n')
    with pytest.raises(DatasetError, match="line 1: damaged"), open_journal(tmp_path):
        pass


@pytest.mark.parametrize("pause", ["\u00b2", "-1", "nan", "inf", "soon"])
def test_a_pause_that_is_none_is_passed_over(
    world: World, pause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.0)
    busy = Reply(world.emulator.error(429, "busy"), 429, {"Retry-After": pause})
    world.emulator.fault = once(busy, 2)
    assert all(world.teach(tmp_path, 8).examples)


def test_an_answer_that_trickles_is_given_up(openai: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.0)

    async def trickle(*_: Any) -> None:
        while True:
            await asyncio.sleep(0.05)

    asks = iter([trickle])
    lesson = paid.PaidTeacher.teach

    def teach(self: paid.PaidTeacher, *given: Any) -> Any:
        whole = self.model.ask

        def ask(*words: Any) -> Any:
            return next(asks, whole)(*words)

        monkeypatch.setattr(self.model, "ask", ask)
        return lesson(self, *given)

    monkeypatch.setattr(paid.PaidTeacher, "teach", teach)
    assert all(openai.teach(tmp_path, 4).examples)
    assert sum("asked" in one for one in records(tmp_path)) == 5
