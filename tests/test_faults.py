"""Each fault at each server, by the table in docs/cloud.md: the real clients meet them over the wire.

A cell of the table says what happens:

again   it is asked again, and the right answer comes; a fault that stays is an error that says what to do
found   what was ordered is not ordered again, but found
error   an error that says what to do, at once

and always: within the deadline, without a secret in a log or an error; nothing is ordered twice, and what was ordered
is found when the same is asked again; an object is whole or not there.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any

import orders
import pytest
from PIL import Image

import emulators.lyria
import emulators.vertex
from emulators import gcs
from emulators.iam import IamEmulator
from emulators.openai import OpenAIEmulator
from emulators.proxy import Fault, Proxy
from emulators.server import Emulator
from emulators.vertex import VertexEmulator
from melodify_lib import stages
from melodify_lib.cloud import endpoints, retry
from melodify_lib.describe.local import SHIPPED
from melodify_lib.errors import CloudError, MelodifyError
from melodify_lib.logs import redact
from melodify_lib.nouns import Caption, MusicDescription
from melodify_lib.settings import Settings
from melodify_lib.store import open_store
from melodify_lib.tuning import vertex
from pipelines import vertex as pipelines
from pipelines.graph import music_pipeline, spec_of

ROOT = Path(__file__).parent.parent
KEY, TOKEN = "sk-emulated-0123456789abcdefghij", "ya29.emulated-0123456789abcdefghij"
ACCOUNT = "songs@melodify.iam.gserviceaccount.com"
MUSIC: dict[str, Any] = {
    "description": "A calm tune.", "genre": "jazz", "bpm": 100, "key": "C major", "moods": ["calm"],
    "instruments": ["piano"], "keywords": [],
}  # fmt: skip
SONG = b"RIFF" * 250
SONG_AT = "gs://melodify/songs/1/card.json"
DONE = {
    "state": "PIPELINE_STATE_SUCCEEDED",
    "jobDetail": {
        "taskDetails": [
            {
                "taskName": "play-and-store",
                "state": "SUCCEEDED",
                "outputs": {"song": {"artifacts": [{"uri": SONG_AT}]}},
            }
        ]
    },
}
"""What becomes of a pipeline job."""
TIMEOUT_S = 0.5
PASSES_S, STAYS_S = 20.0, 0.1
"""The deadline under a fault that passes, and under one that stays."""
SLACK_S = 8.0
"""For a busy machine; the clients' own limits are 60 s and more."""


@dataclass(frozen=True)
class Operation:
    """What is asked of a server; `request` is the one that is spoilt, `answer` the right one."""

    server: str
    request: str
    call: Callable[[Settings, Path], Any]
    answer: Any
    is_order: bool = False


def _predict(settings: Settings, folder: Path) -> Any:
    settings = settings.model_copy(update={"project": "deployed", "store": f"gs://{gcs.BUCKET}/deployed"})
    return stages.musician(settings).play(MusicDescription.model_validate(MUSIC), 4, 7).card.musician.name


def _wait(settings: Settings, folder: Path) -> Any:
    settings = settings.model_copy(update={"project": "deployed"})
    return pipelines.wait(f"{orders.place(settings)}/pipelineJobs/done", settings)[1]


def _lyria(settings: Settings, folder: Path) -> Any:
    settings = settings.model_copy(update={"musician": "lyria"})
    return stages.musician(settings).play(MusicDescription.model_validate(MUSIC), 4, 7).card.musician.name


def _link(settings: Settings, folder: Path) -> Any:
    return "X-Goog-Signature=" in open_store(settings).link("song")


OPERATIONS = {
    "caption": Operation(
        "openai",
        "POST .*/responses",
        lambda settings, _: stages.captioner(settings).caption(Image.new("RGB", (64, 64))).text,
        "A cup of coffee.",
    ),
    "describe": Operation(
        "vertex",
        "POST .*:generateContent",
        lambda settings, _: stages.describer(settings).describe(Caption.from_text("A cat.")).description,
        "A calm tune.",
    ),
    "upload": Operation("gcs", "POST .*/o", orders.tune, "gemini-3.5-flash-lite"),
    "tune": Operation("vertex", "POST .*/tuningJobs", orders.tune, "gemini-3.5-flash-lite", is_order=True),
    "watch": Operation("vertex", r"GET .*/tuningJobs/\d+", orders.tune, "gemini-3.5-flash-lite"),
    "register": Operation("vertex", "POST .*/models:upload", orders.register, "melodify-musician@1", is_order=True),
    "deploy": Operation("vertex", "POST .*:deployModel", orders.deploy, "melodify-musician", is_order=True),
    "operation": Operation("vertex", "GET .*/operations/.*", orders.register, "melodify-musician@1"),
    "predict": Operation("vertex", "POST .*:predict", _predict, "arranger"),
    "submit": Operation("vertex", "POST .*/pipelineJobs", orders.submit, "melodify-music", is_order=True),
    "wait": Operation("vertex", "GET .*/pipelineJobs/.*", _wait, SONG_AT),
    "Lyria": Operation("vertex", "POST .*:predict", _lyria, "lyria", is_order=True),
    "put": Operation("gcs", "POST .*/o", lambda settings, _: open_store(settings).put("song", SONG)[-5:], "/song"),
    "get": Operation("gcs", "GET .*/o/.*", lambda settings, _: open_store(settings).get("song"), SONG),
    "list": Operation("gcs", "GET .*/o", lambda settings, _: open_store(settings).list(), ["song"]),
    "delete": Operation("gcs", "DELETE .*/o/.*", lambda settings, _: open_store(settings).delete("song"), None),
    "link": Operation("iam", "POST .*:signBlob", _link, True),
}
ASKED_TWICE = ("null", "empty JSON", "wrong length", "expired credentials (401)")
"""An answer that does not fit its form is asked for once more; Google's clients look for fresh credentials once."""
NO_ANSWER = r"did not answer|no whole answer|cannot be read"
NOTHING = "cannot be read|names no operation|not arrive whole|empty|0 predictions|0 clips"
FAULTS: dict[str, tuple[Fault, str]] = {
    "429 with Retry-After": ({"status": 429, "retry_after": "0.01"}, "answered 429: .*try again later"),
    "429": ({"status": 429}, "answered 429: .*try again later"),
    "Retry-After beyond the deadline": ({"status": 429, "retry_after": "3600"}, "answered 429: .*try again later"),
    "503 with Retry-After": ({"status": 503, "retry_after": "0.01"}, "answered 503: .*try again later"),
    "503": ({"status": 503}, "answered 503: .*try again later"),
    "503 though it was taken": ({"status": 503, "taken": True}, "answered 503: .*try again later"),
    "connection reset": ("reset", "(?i)check the network"),
    "answer lost": ("lose the answer", "(?i)check the network"),
    "answer cut off": ("cut the answer", NO_ANSWER),
    "a byte now and then": ("trickle", "no whole answer came in .* check the network"),
    "truncated JSON": ("halve the answer", "cannot be read|did not arrive whole"),
    "malformed JSON": ("not JSON", "cannot be read|did not arrive whole"),
    "null": ("null", NOTHING),
    "empty JSON": ("{}", NOTHING),
    "wrong types": ("wrong types", "cannot be read"),
    "wrong length": ("empty the lists", "empty|0 predictions|0 clips"),
    "expired credentials (401)": ({"status": 401}, "credentials.*; (check the key|set a new MELODIFY_ACCESS_TOKEN)"),
    "permission denied (403)": ({"status": 403}, "refused the credentials .*permissions"),
    "quota used up": ({"status": 429, "code": "insufficient_quota"}, "quota|answered 429"),
    "not found (404)": ({"status": 404}, "nothing is stored|answered 404: .*check the name"),
    "precondition failed (412)": ({"status": 412}, "others write .* try again"),
    "half an upload": ("cut the request", "check the network"),
    "client killed": (None, ""),
}


def read_table() -> list[tuple[str, str, str]]:
    """Fault, operation and what happens, of each cell of the table that is not empty."""
    section = (
        (ROOT / "docs" / "cloud.md").read_text(encoding="utf-8").partition("\n## Faults\n")[2].partition("\n## ")[0]
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return [
        (row[0], operation, says)
        for row in (rows[0], *rows[2:])[1:]
        for operation, says in zip(rows[0][1:], row[1:], strict=True)
        if says
    ]


TABLE = read_table()


def test_the_documented_table_is_of_these_faults_and_operations() -> None:
    assert list(dict.fromkeys(fault for fault, _, _ in TABLE)) == list(FAULTS)
    assert {operation for _, operation, _ in TABLE} == set(OPERATIONS)
    assert {says for _, _, says in TABLE} == {"again", "found", "error"}


class QuickVertex(VertexEmulator):
    """Takes orders, and has them done at once: what is tested is the wire."""

    starts = False

    def _start(self, number: str, model: dict[str, Any]) -> None:
        if self.starts:
            super()._start(number, model)

    def _execute(self, job: dict[str, Any]) -> None:
        job.update(DONE)


class Clouds:
    """The servers behind their proxies."""

    def __init__(self, stack: ExitStack) -> None:
        self.gcs_url = stack.enter_context(gcs.gcs())
        openai = OpenAIEmulator(lambda question: {}, KEY)
        openai.see = lambda image: {"text": "A cup of coffee.", "valence": 0.5, "arousal": -0.25}
        self.vertex = QuickVertex(lambda text: MUSIC, TOKEN, self.gcs_url)
        self.servers: dict[str, Emulator] = {
            "openai": openai,
            "vertex": self.vertex,
            "iam": IamEmulator(TOKEN, ACCOUNT),
        }
        urls = {name: stack.enter_context(server).url for name, server in self.servers.items()}
        self.proxies = {name: stack.enter_context(Proxy(url)) for name, url in {**urls, "gcs": self.gcs_url}.items()}
        self._cells = 0

    def settings(self, project: str = "", **more: Any) -> Settings:
        """Of a project of its own for each cell, so that nothing is found that another ordered."""
        self._cells += not project
        project = project or f"cell-{self._cells}"
        fields = {
            "captioner": "openai", "describer": "gemini", "musician": "endpoint", "tuner": "vertex", "allow_paid": True,
            "project": project, "bucket": gcs.BUCKET, "store": f"gs://{gcs.BUCKET}/{project}", "image": orders.IMAGE,
            "endpoint": "melodify-musician", "openai_api_key": KEY, "access_token": TOKEN, "service_account": ACCOUNT,
            "openai_base_url": f"{self.proxies['openai'].url}/openai/v1", "vertex_base_url": self.proxies["vertex"].url,
            "gcs_base_url": self.proxies["gcs"].url, "iam_base_url": self.proxies["iam"].url,
            "iam_credentials_base_url": self.proxies["iam"].url,
        }  # fmt: skip
        return Settings(**{**fields, **more})

    def orders(self, operation: Operation, settings: Settings) -> int:
        """How many were taken, of what can be ordered."""
        return sum(
            operation.is_order
            and bool(re.fullmatch(operation.request, f"{one.method} {one.path}"))
            and one.status == 200
            and f"/{settings.project}/" in one.path
            for one in getattr(self.servers.get(operation.server), "log", ())
        )


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    patch = pytest.MonkeyPatch()
    clips: dict[tuple[str, int], bytes] = {}
    clip = emulators.lyria.clip
    with ExitStack() as stack:
        stack.callback(patch.undo)
        patch.setattr(emulators.vertex, "tune", lambda path, out: copytree(SHIPPED, out))
        patch.setattr(emulators.lyria, "clip", lambda *asked: clips.get(asked) or clips.setdefault(asked, clip(*asked)))
        patch.setattr(endpoints, "POLL_S", 0.01)
        made = Clouds(stack)
        settings = made.settings("deployed")
        made.vertex.machine = {
            f"MELODIFY_{name.upper()}": value
            for name, value in {
                "allow_paid": "true", "project": "deployed", "access_token": TOKEN, "gcs_base_url": made.gcs_url,
                "store": settings.store,
            }.items()
        }  # fmt: skip
        made.vertex.starts = True
        orders.deploy(settings, tmp_path_factory.mktemp("deployed"))
        made.vertex.starts = False
        name = f"{orders.place(settings)}/pipelineJobs/done"
        made.vertex.pipeline_jobs[name] = {"name": name, "pipelineSpec": spec_of(music_pipeline()), **DONE}
        yield made


@pytest.fixture(autouse=True)
def _short(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.001)
    for module in (vertex, pipelines, endpoints):
        monkeypatch.setattr(module, "POLL_S", 0.01)
    yield
    for proxy in clouds.proxies.values():
        proxy.release()


class _Ear(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(str(vars(record)))


@contextmanager
def listening() -> Iterator[list[str]]:
    """All that any library has to say. Not by caplog, which would keep gigabytes of it."""
    root, ear = logging.getLogger(), _Ear()
    handlers = root.handlers
    loggers = [one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    levels = {one: one.level for one in (root, *loggers)}
    root.handlers = [ear]
    for one in levels:  # those too that somebody has silenced
        one.setLevel(logging.DEBUG)
    try:
        yield ear.heard
    finally:
        root.handlers = handlers
        for one, level in levels.items():
            one.setLevel(level)


class Cell:
    """One operation under one fault, in a project of its own."""

    def __init__(self, clouds: Clouds, operation: Operation, folder: Path) -> None:
        self.clouds, self.operation, self.folder = clouds, operation, folder
        self.proxy = clouds.proxies[operation.server]
        self.settings = clouds.settings()
        if operation in [OPERATIONS[name] for name in ("get", "list", "delete", "link")]:
            self._store().put("song", SONG)
        if operation is OPERATIONS["upload"]:
            datasets = open_store(self._outside(store=f"gs://{gcs.BUCKET}/datasets"))
            for name in datasets.list():
                datasets.delete(name)

    def ask(self, fault: Fault = None, times: int = 0) -> Any:
        """What comes, an answer or an error, within the deadline and without a secret."""
        deadline = PASSES_S if times <= 1 else STAYS_S

        def spoil(method: str, path: str) -> Fault:
            return fault if re.fullmatch(self.operation.request, f"{method} {path.partition('?')[0]}") else None

        self.proxy.release()
        self.proxy.faults = [spoil] * times
        started = time.monotonic()
        answer: Any
        with pytest.MonkeyPatch.context() as patch, listening() as heard:
            patch.setattr(retry, "DEADLINE_S", deadline)
            if fault == "trickle":
                for module, limit in ((retry, "TIMEOUT_S"), (retry, "TRANSFER_S"), (endpoints, "SHARED_S")):
                    patch.setattr(module, limit, TIMEOUT_S)
            try:
                answer = self.operation.call(self.settings.model_copy(update={"deadline": deadline}), self.folder)
            except MelodifyError as error:
                self._check_no_secret("".join(traceback.format_exception(error)), repr(error))
                answer = error
        assert time.monotonic() - started < deadline + TIMEOUT_S + SLACK_S
        assert heard
        self._check_no_secret(*heard)
        return answer

    def orders(self) -> int:
        return self.clouds.orders(self.operation, self.settings)

    def objects(self) -> dict[str, bytes]:
        """What is in the store of this project."""
        stored = self._store()
        return {name: stored.get(name) for name in stored.list()}

    def _store(self) -> Any:
        return open_store(self._outside())

    def _outside(self, **more: Any) -> Settings:
        """Past the proxy."""
        return self.settings.model_copy(update={"gcs_base_url": self.clouds.gcs_url, **more})

    def _check_no_secret(self, *texts: str) -> None:
        for text in texts:
            assert KEY not in text and TOKEN not in text and "upload_id=" not in text, redact(text, self.settings)


@pytest.mark.parametrize(("fault", "name", "happens"), [row for row in TABLE if row[0] != "client killed"])
def test_each_fault_at_each_server(clouds: Clouds, fault: str, name: str, happens: str, tmp_path: Path) -> None:
    what, says = FAULTS[fault]
    if isinstance(what, dict):
        what = {**what, "body": f"no, {KEY} {TOKEN}"}
    operation = OPERATIONS[name]
    if happens != "error":
        cell = Cell(clouds, operation, tmp_path / "passes")
        assert cell.ask(what, 1) == operation.answer
        assert cell.proxy.hit == 1 and cell.orders() == operation.is_order
        assert cell.objects() == {"song": SONG} or name != "put"
    if happens != "found":
        cell = Cell(clouds, operation, tmp_path / "stays")
        error = cell.ask(what, 1000)
        assert isinstance(error, MelodifyError) and re.search(says, str(error)), error
        if isinstance(what, dict) and isinstance(error, CloudError):
            assert error.status in (what["status"], 402)
        assert cell.proxy.hit == 1 or happens == "again" or fault in ASKED_TWICE
        assert cell.orders() <= operation.is_order
        assert set(cell.objects().values()) <= {SONG}
        if name != "Lyria":  # whose clips have no name
            assert cell.ask() == operation.answer
            assert cell.orders() == operation.is_order


@pytest.mark.parametrize("name", [operation for fault, operation, _ in TABLE if fault == "client killed"])
def test_what_a_killed_client_ordered_is_found(clouds: Clouds, name: str, tmp_path: Path) -> None:
    """Killed as soon as the order is taken."""
    cell = Cell(clouds, OPERATIONS[name], tmp_path)
    secrets = {"openai_api_key": KEY, "access_token": TOKEN}
    given = {**cell.settings.model_dump(exclude_defaults=True), **secrets}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment |= {f"MELODIFY_{field.upper()}": str(value) for field, value in given.items()}
    client = subprocess.Popen(
        [sys.executable, orders.__file__, name, str(tmp_path)], env=environment, stderr=subprocess.PIPE
    )
    until = time.monotonic() + 60
    while not cell.orders() and client.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    client.send_signal(signal.SIGKILL)
    _, said = client.communicate()
    assert cell.orders() == 1, said.decode()
    assert cell.ask() == cell.operation.answer
    assert cell.orders() == 1
