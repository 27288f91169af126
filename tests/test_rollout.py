"""A canary is asked, judged, and gets all or nothing, with the real clients against a server on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from emulators import gcs
from emulators.server import Fault, Reply, Request
from emulators.vertex import VertexEmulator
from melodify_lib.cloud import endpoints, retry, rollout
from melodify_lib.cloud.rollout import FOLDER, Gate, roll_out, settle
from melodify_lib.errors import CloudError, InputError, ModelError, PaidError, SettingsError
from melodify_lib.settings import Settings
from melodify_lib.store import open_store
from serving.process import Running, running

TOKEN = "ya29.emulated-0123456789abcdefghij"
IMAGE = "us-docker.pkg.dev/melodify/melodify/serving-cpu@sha256:"
ARRANGER = {"MELODIFY_MUSICIAN": "arranger"}
GATE = Gate(share=50, answers=2, seconds=4)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with gcs.gcs() as url:
        yield url


@pytest.fixture(scope="module")
def machine(bucket: str) -> dict[str, str]:
    """The environment of what is deployed, and of the command."""
    return {
        "MELODIFY_ALLOW_PAID": "true",
        "MELODIFY_PROJECT": "melodify",
        "MELODIFY_ACCESS_TOKEN": TOKEN,
        "MELODIFY_GCS_BASE_URL": bucket,
        "MELODIFY_STORE": f"gs://{gcs.BUCKET}",
    }


@pytest.fixture(scope="module")
def server(machine: dict[str, str]) -> Iterator[Running]:
    """The arranger, for all versions but those that a test has started for real: it takes seconds to start."""
    fields = {name.removeprefix("MELODIFY_").lower(): value for name, value in machine.items()}
    with running(Settings.load(**fields, musician="arranger")) as process:
        yield process


@pytest.fixture
def vertex(
    bucket: str, machine: dict[str, str], server: Running, monkeypatch: pytest.MonkeyPatch
) -> Iterator[VertexEmulator]:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(retry, "DEADLINE_S", 0.5)
    monkeypatch.setattr(endpoints, "POLL_S", 0.02)
    with VertexEmulator(lambda text: {}, TOKEN, bucket) as emulator:
        emulator.machine = machine

        def start(number: str, model: dict[str, Any]) -> None:
            if "nobody" in str(model["containerSpec"]):
                raise RuntimeError("no musician 'nobody'")
            emulator.servers[number], emulator._stacks[number] = server, ExitStack()

        monkeypatch.setattr(emulator, "_start", start)
        yield emulator


@pytest.fixture
def settings(vertex: VertexEmulator) -> Settings:
    return Settings(
        allow_paid=True,
        project="melodify",
        access_token=TOKEN,  # type: ignore[arg-type]
        vertex_base_url=vertex.url,
        gcs_base_url=vertex.gcs_url,
        store=f"gs://{gcs.BUCKET}",
    )


def version(settings: Settings, number: int, **environment: str) -> str:
    return endpoints.register(settings, f"{IMAGE}{number}", environment={**ARRANGER, **environment})


def endpoint(vertex: VertexEmulator) -> dict[str, Any]:
    (found,) = vertex.endpoints.values()
    return found


def serves_alone(vertex: VertexEmulator, deployed: str) -> bool:
    """Is it alone on the endpoint, with all the traffic, and the only server that runs?"""
    there = endpoint(vertex)
    ids = [one["id"] for one in there["deployedModels"]]
    return (ids, there["trafficSplit"], list(vertex.servers)) == ([deployed], {deployed: 100}, [deployed])


def fault(vertex: VertexEmulator, method: str, ending: str, answer: Callable[[Request], Fault | None]) -> None:
    def spoil(request: Request) -> Fault | None:
        return answer(request) if request.method == method and request.path.endswith(ending) else None

    vertex.fault = spoil


def refuse(vertex: VertexEmulator) -> Callable[[Request], Fault | None]:
    return lambda request: Reply(vertex.error(403, "no"), 403)


def test_a_canary_at_ten_percent_that_passes_gets_all_and_the_older_version_is_undeployed(
    vertex: VertexEmulator, settings: Settings
) -> None:
    first = roll_out(settings, version(settings, 1), replace(GATE, share=10, answers=1))
    assert first.older == "" and len(first.canary_s) == 1 and serves_alone(vertex, first.deployed)
    splits: list[Any] = []
    fault(vertex, "POST", ":predict", lambda request: splits.append(endpoint(vertex)["trafficSplit"]))
    second = roll_out(settings, version(settings, 2), replace(GATE, share=10, answers=1))
    assert splits and all(one == {first.deployed: 90, second.deployed: 10} for one in splits)
    assert second.older == first.deployed and len(second.canary_s) == 1 and serves_alone(vertex, second.deployed)
    assert open_store(settings).list(f"{FOLDER}/")
    asked = len(splits)
    again = roll_out(settings, version(settings, 2), GATE)
    assert again.deployed == second.deployed and len(splits) == asked
    assert len([one for one in vertex.log if one.path.endswith(":deployModel")]) == 2


@pytest.mark.parametrize("spoilt", ["slow", "silent", "broken", "failing", "never asked"])
def test_a_canary_that_is_refused_is_undeployed_and_the_older_version_is_as_it_was(
    vertex: VertexEmulator, settings: Settings, spoilt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = roll_out(settings, version(settings, 1), GATE).deployed
    gate = replace(GATE, within_s=0.001) if spoilt == "slow" else GATE
    if spoilt == "silent":
        monkeypatch.setattr(rollout, "_check", _silent(rollout._check))
    if spoilt == "broken":
        canary = endpoints._number("models/melodify-musician@2")
        fault(vertex, "POST", ":predict", lambda _: Reply({"predictions": [{"card": "x"}], "deployedModelId": canary}))
    if spoilt == "failing":
        fault(vertex, "POST", ":predict", lambda _: Reply(vertex.error(400, "cannot be made"), 400))
    if spoilt == "never asked":
        gate = replace(GATE, share=1, asks=1, answers=2)
    says = {
        "slow": "its slowest answer took",
        "silent": "silence",
        "broken": "names no card",
        "failing": "cannot be made",
        "never asked": "answers were its own, and 2 are needed",
    }
    with pytest.raises(
        ModelError, match=f"the gate refuses melodify-musician@2, which is undeployed: .*{says[spoilt]}"
    ):
        roll_out(settings, version(settings, 2), gate)
    assert serves_alone(vertex, old)


def _silent(check: Callable[..., None]) -> Callable[..., None]:
    def silenced(musician: Any, prediction: Any, asked: dict[str, Any]) -> None:
        fetch = musician.fetch
        musician.fetch = lambda *given: replace(fetch(*given), audio=0 * fetch(*given).audio)
        check(musician, prediction, asked)

    return silenced


def test_where_nothing_served_and_the_canary_is_refused_nothing_is_billed(
    vertex: VertexEmulator, settings: Settings
) -> None:
    with pytest.raises(ModelError, match="refuses"):
        roll_out(settings, version(settings, 1), replace(GATE, within_s=0.001))
    assert not vertex.servers and not endpoint(vertex)["deployedModels"]
    assert settle(settings) == ""


def test_a_canary_that_does_not_start_or_an_interrupt_leaves_the_older_version(
    vertex: VertexEmulator, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = roll_out(settings, version(settings, 1), GATE).deployed
    with pytest.raises(CloudError, match="nobody"):
        roll_out(settings, version(settings, 2, MELODIFY_MUSICIAN="nobody"), GATE)
    assert serves_alone(vertex, old)

    def interrupt(*_: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(endpoints, "predict", interrupt)
    with pytest.raises(KeyboardInterrupt):
        roll_out(settings, version(settings, 3), GATE)
    assert serves_alone(vertex, old)


def test_an_interrupt_while_the_canary_is_being_deployed_waits_for_it_and_takes_it_away(
    vertex: VertexEmulator, settings: Settings
) -> None:
    old = roll_out(settings, version(settings, 1), GATE).deployed

    def hear(text: str) -> None:
        if text.startswith("deployed: "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        roll_out(settings, version(settings, 2), GATE, on_event=hear)
    assert serves_alone(vertex, old)


def test_a_shift_that_fails_leaves_one_of_the_two(vertex: VertexEmulator, settings: Settings) -> None:
    old = roll_out(settings, version(settings, 1), GATE).deployed
    fault(vertex, "PATCH", "/endpoints/melodify-musician", refuse(vertex))
    with pytest.raises(CloudError, match="403"):
        roll_out(settings, version(settings, 2), replace(GATE, share=40))
    assert serves_alone(vertex, old)
    answers = iter([True])  # the undeployment of the older one is refused once: its canary has the traffic already
    fault(vertex, "POST", ":undeployModel", lambda one: refuse(vertex)(one) if next(answers, False) else None)
    with pytest.raises(CloudError, match="403"):
        roll_out(settings, version(settings, 2), GATE)
    assert serves_alone(vertex, endpoints._number("models/melodify-musician@2"))


DEPLOY = [sys.executable, "-c", "from melodify_lib.cli import main; main()", "cloud"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda one: one.name)
def test_a_command_that_is_killed_leaves_a_canary_and_one_that_is_terminated_none(
    vertex: VertexEmulator, settings: Settings, number: signal.Signals
) -> None:
    old = roll_out(settings, version(settings, 1), GATE).deployed
    asked: list[Request] = []
    fault(vertex, "POST", ":predict", lambda request: asked.append(request) or ("hang" if len(asked) > 1 else None))  # type: ignore[func-returns-value]
    environment = {**os.environ, **vertex.machine, "MELODIFY_VERTEX_BASE_URL": vertex.url}
    process = subprocess.Popen([*DEPLOY, "deploy", "--image", f"{IMAGE}2"], env=environment, stderr=subprocess.PIPE)
    while len(asked) < 2:
        assert process.poll() is None
        signal.sigtimedwait([], 0.01)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1].decode()
    vertex.release()
    assert process.returncode != 0
    if number == signal.SIGTERM:
        assert "rolling back" in said
        assert serves_alone(vertex, old)
    else:
        assert endpoint(vertex)["trafficSplit"][old] == 90 and len(vertex.servers) == 2
    settled = subprocess.run([*DEPLOY, "settle"], env=environment, capture_output=True, text=True, check=True)
    assert settled.stdout == f"{old} serves alone\n" and serves_alone(vertex, old)
    assert TOKEN not in said + settled.stderr


def test_the_command_deploys_names_what_is_live_and_says_how_fast_it_was(vertex: VertexEmulator) -> None:
    vertex._start = partial(type(vertex)._start, vertex)  # type: ignore[method-assign]
    environment = {**os.environ, **vertex.machine, "MELODIFY_VERTEX_BASE_URL": vertex.url}
    command = [*DEPLOY, "deploy", "--image", f"{IMAGE}1", "--answers", "1", "--seconds", "4", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert serves_alone(vertex, report["deployed"]) and len(report["canary_s"]) == 1
    (made,) = vertex.versions[report["model"].partition("@")[0]]
    assert made["versionAliases"] == ["candidate", "default", "live"]
    assert {"melodify-run", "melodify-request", "melodify-expires"} == set(made["labels"])
    listed = [*DEPLOY, "list", "--none"]
    assert subprocess.run(listed, env=environment, capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("passes", [True, False], ids="passes {}".format)
def test_a_first_version_whose_rollout_was_killed_is_judged_when_it_is_rolled_out_again(
    vertex: VertexEmulator, settings: Settings, passes: bool
) -> None:
    _, deployed = endpoints.deploy(settings, version(settings, 1), traffic=10)  # and then it was killed
    assert settle(settings) == deployed
    if passes:
        assert roll_out(settings, version(settings, 1), GATE).canary_s and serves_alone(vertex, deployed)
        assert not roll_out(settings, version(settings, 1), GATE).canary_s, "it has passed"
    else:
        with pytest.raises(ModelError, match="slowest answer"):
            roll_out(settings, version(settings, 1), replace(GATE, within_s=0.001))
        assert not vertex.servers


def test_under_another_name_it_touches_no_endpoint_but_its_own(vertex: VertexEmulator, settings: Settings) -> None:
    old = roll_out(settings, version(settings, 1), GATE).deployed
    nightly = settings.model_copy(update={"serving_name": "melodify-nightly"})
    roll_out(nightly, version(nightly, 1), GATE)
    served = {name.rpartition("/")[2]: one["trafficSplit"] for name, one in vertex.endpoints.items()}
    assert set(served) == {"melodify-musician", "melodify-nightly"} and served["melodify-musician"] == {old: 100}
    for name in list(vertex.endpoints):
        if name.endswith("/melodify-nightly"):
            assert endpoints.delete_endpoint(nightly, name)


def test_what_cannot_be_is_refused_before_anything_is_sent(vertex: VertexEmulator, settings: Settings) -> None:
    with pytest.raises(SettingsError, match="gs://"):
        roll_out(settings.model_copy(update={"store": "runs"}), "m@1")
    for share in (0, 100):
        with pytest.raises(InputError, match="1 to 99 percent"):
            roll_out(settings, "m@1", Gate(share=share))
    with pytest.raises(PaidError):
        roll_out(settings.model_copy(update={"allow_paid": False}), "m@1")
    assert not vertex.log
