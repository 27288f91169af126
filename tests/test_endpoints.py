"""Model Registry, endpoints and the musician behind one, with the real clients against a server on this machine."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile

from emulators import gcs
from emulators.registry import NUMBER
from emulators.server import Reply, Request
from emulators.vertex import VertexEmulator
from melodify_lib import stages
from melodify_lib.cloud import clients, endpoints, labels, resources, retry
from melodify_lib.errors import CloudError, InputError, MelodifyError, PaidError, SettingsError
from melodify_lib.flow import replay
from melodify_lib.logs import tracing
from melodify_lib.nouns import MusicDescription, sha256
from melodify_lib.settings import Settings
from melodify_lib.store import open_store

TOKEN = "ya29.emulated-0123456789abcdefghij"
IMAGE = "us-docker.pkg.dev/melodify/melodify/serving:1"
MUSIC = MusicDescription(
    description="A calm tune.", genre="jazz", bpm=100, key="C major", moods=("calm",), instruments=("piano",)
)
TRACE_ID = "0123456789abcdef0123456789abcdef"
ARRANGER = {"MELODIFY_MUSICIAN": "arranger"}


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with gcs.gcs() as url:
        yield url


@pytest.fixture
def vertex(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[VertexEmulator]:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(retry, "DEADLINE_S", 0.5)
    monkeypatch.setattr(endpoints, "POLL_S", 0.02)
    with VertexEmulator(lambda text: {}, TOKEN, bucket) as emulator:
        emulator.machine = {
            "MELODIFY_ALLOW_PAID": "true",
            "MELODIFY_PROJECT": "melodify",
            "MELODIFY_ACCESS_TOKEN": TOKEN,
            "MELODIFY_GCS_BASE_URL": bucket,
            "MELODIFY_STORE": f"gs://{gcs.BUCKET}",
        }
        yield emulator


def settings(vertex: VertexEmulator, **more: Any) -> Settings:
    fields = {
        "allow_paid": True,
        "project": "melodify",
        "access_token": TOKEN,
        "vertex_base_url": vertex.url,
        "gcs_base_url": vertex.gcs_url,
        "store": f"gs://{gcs.BUCKET}",
        "musician": "endpoint",
        "endpoint": "melodify-musician",
    }
    return Settings(**{**fields, **more})


def posted(vertex: VertexEmulator, ending: str) -> list[Request]:
    return [request for request in vertex.log if request.method == "POST" and request.path.endswith(ending)]


def test_a_version_is_registered_once_and_a_second_has_the_next_number(vertex: VertexEmulator) -> None:
    one = settings(vertex)
    first = endpoints.register(one, IMAGE, environment=ARRANGER, aliases=["candidate"])
    assert first == "projects/melodify/locations/us-central1/models/melodify-musician@1"
    assert endpoints.register(one, IMAGE, environment=ARRANGER) == first
    second = endpoints.register(one, IMAGE.replace(":1", ":2"), environment=ARRANGER)
    assert second.endswith("@2") and len(posted(vertex, "models:upload")) == 2
    endpoints.alias(one, second, "candidate")
    versions = vertex.versions[first.partition("@")[0]]
    assert [version["versionAliases"] for version in versions] == [["default"], ["candidate"]]
    assert set(versions[0]["labels"]) == {"melodify-run", "melodify-request", "melodify-expires"}


def test_an_order_is_the_same_whether_the_service_names_the_project_by_id_or_number(vertex: VertexEmulator) -> None:
    one = settings(vertex)
    model = endpoints.register(one, IMAGE, environment=ARRANGER, aliases=["candidate"])
    assert model == endpoints.register(one, IMAGE, environment=ARRANGER)
    orders = []
    for name in (model, model.replace("/melodify/", f"/{NUMBER}/", 1), f"{model.partition('@')[0]}@candidate"):
        endpoint, deployed = endpoints.deploy(one, name)
        orders.append((endpoint, deployed))
        assert vertex.endpoints[endpoint]["deployedModels"][0]["id"] == endpoints._number("models/melodify-musician@1")
    assert len(set(orders)) == 1 and len(posted(vertex, ":deployModel")) == 1
    found = resources.find(one)
    assert [one.name for one in found] == [endpoint, model.partition("@")[0]]
    endpoints.undeploy(one, endpoint.replace("/melodify/", f"/{NUMBER}/", 1), deployed)
    assert not vertex.servers
    assert endpoints.delete_endpoint(one, endpoint) and endpoints.delete_model(one, model) and not resources.find(one)


def test_a_version_that_is_there_gets_the_aliases_too(vertex: VertexEmulator) -> None:
    one = settings(vertex)
    for aliases in ((), ("candidate", "best")):
        model = endpoints.register(one, IMAGE, environment=ARRANGER, aliases=aliases)
    assert vertex.versions[model.partition("@")[0]][0]["versionAliases"] == ["best", "candidate", "default"]


def test_what_is_used_again_expires_later(vertex: VertexEmulator) -> None:
    one = settings(vertex)
    model = endpoints.register(one, IMAGE, environment=ARRANGER)
    endpoints.register(one, f"{IMAGE}2", environment=ARRANGER)
    endpoint, _ = endpoints.deploy(one, model)

    def expired() -> list[str]:
        return [found.kind for found in resources.find(one) if found.is_expired()]

    first, second = (version["labels"] for version in vertex.versions[model.partition("@")[0]])
    served = vertex.endpoints[endpoint]["labels"]
    served[labels.EXPIRES] = first[labels.EXPIRES] = "2020-01-01"
    before = {**served, labels.EXPIRES: ""}
    assert expired() == ["endpoint"], "the second version keeps the model"
    second[labels.EXPIRES] = "2020-01-02"
    assert expired() == ["endpoint", "model"]
    endpoints.deploy(one, model)
    assert expired() == [] and {**vertex.endpoints[endpoint]["labels"], labels.EXPIRES: ""} == before
    vertex.versions[model.partition("@")[0]][0]["labels"][labels.EXPIRES] = "2020-01-01"
    assert expired() == ["model"]
    endpoints.register(one, IMAGE, environment=ARRANGER)
    assert expired() == []
    later = vertex.endpoints[endpoint]["labels"][labels.EXPIRES] = "2100-01-01"
    endpoints.deploy(one, model)
    assert vertex.endpoints[endpoint]["labels"][labels.EXPIRES] == later


def test_all_that_one_command_makes_has_one_run(vertex: VertexEmulator) -> None:
    one = settings(vertex)
    with tracing(TRACE_ID):
        model = endpoints.register(one, IMAGE, environment=ARRANGER)
        endpoints._endpoint(one, clients.vertex(one, _endpoint_service()), lambda text: None)
    assert [found.run for found in resources.find(one)] == [TRACE_ID, TRACE_ID]
    endpoints.delete_model(one, model)
    for number in range(2):  # without a trace, all of a process
        endpoints.register(one, f"{IMAGE}{number}")
    first, second = (version["labels"][labels.RUN] for version in vertex.versions[model.partition("@")[0]])
    assert first == second != TRACE_ID


def test_an_endpoint_of_its_own_has_time_for_a_long_song(
    vertex: VertexEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = settings(vertex, deadline=120)
    endpoints.deploy(one, endpoints.register(one, IMAGE, environment=ARRANGER))
    there = vertex.endpoints[endpoints.own_endpoint(one)]
    assert there["dedicatedEndpointEnabled"] and there["clientConnectionConfig"] == {"inferenceTimeout": "120s"}
    asked, build = [], clients.vertex

    def note(settings: Settings, service: Any, *, address: str | None = None) -> Any:
        asked.append(address)
        return build(one, service)

    public = one.model_copy(update={"vertex_base_url": None})
    endpoint = endpoints.get(one, endpoints.own_endpoint(one))
    song = {"description": MUSIC.model_dump(mode="json"), "seconds": 4, "seed": 7}
    with monkeypatch.context() as patch:
        patch.setattr(clients, "vertex", note)
        for address in (there["dedicatedEndpointDns"], "fasttryout.us-central1-fasttryout.prediction.vertexai.goog"):
            endpoint.dedicated_endpoint_dns = address
            assert endpoints.predict(public, endpoint, [song])
            assert asked.pop() == address
    assert there["dedicatedEndpointDns"].startswith("https://melodify-musician.us-central1-")

    monkeypatch.setattr(endpoints, "SHARED_S", 2)
    vertex.shared_s = 0.01
    vertex.fault = lambda request: time.sleep(4) if request.path.endswith(":predict") else None
    assert stages.musician(one).play(MUSIC, 4, 8).card.seed == 8
    for field in ("dedicatedEndpointEnabled", "dedicatedEndpointDns", "clientConnectionConfig"):
        del there[field]
    with pytest.raises(CloudError, match="no whole answer came in 2 s"):
        stages.musician(settings(vertex, deadline=1)).play(MUSIC, 4, 9)
    vertex.shared_s, vertex.fault = 60, lambda request: None
    monkeypatch.setattr(endpoints, "SHARED_S", 60)
    assert stages.musician(one).play(MUSIC, 4, 9).card.seed == 9


def test_where_nobody_has_any_traffic_a_canary_gets_all(vertex: VertexEmulator) -> None:
    one = settings(vertex)
    models = [endpoints.register(one, f"{IMAGE}{number}", environment=ARRANGER) for number in range(2)]
    endpoint, _ = endpoints.deploy(one, models[0])
    vertex.endpoints[endpoint]["trafficSplit"] = {}
    _, new = endpoints.deploy(one, models[1], traffic=10)
    assert vertex.endpoints[endpoint]["trafficSplit"] == {new: 100}


def test_the_failure_of_anothers_deployment_is_said_and_is_not_ours(vertex: VertexEmulator) -> None:
    one = settings(vertex)
    bad = endpoints.register(one, f"{IMAGE}-bad", environment={"MELODIFY_MUSICIAN": "nobody"})
    good = endpoints.register(one, IMAGE, environment=ARRANGER)
    start, begun, go_on = vertex._start, threading.Event(), threading.Event()

    def slow(number: str, model: dict[str, Any]) -> None:
        if number == endpoints._number("models/melodify-musician@1"):
            begun.set()
            go_on.wait(30)
        start(number, model)

    vertex._start = slow  # type: ignore[method-assign]

    def fail() -> None:
        with pytest.raises(CloudError, match="nobody"):
            endpoints.deploy(one, bad)

    threading.Thread(target=fail, daemon=True).start()
    assert begun.wait(30)
    events: list[str] = []

    def hear(text: str) -> None:
        events.append(text)
        go_on.set()

    endpoint, deployed = endpoints.deploy(one, good, on_event=hear)
    assert events[0].startswith("waiting for ") and " failed: " in events[1]
    assert vertex.endpoints[endpoint]["trafficSplit"] == {deployed: 100}


def _endpoint_service() -> Any:
    from google.cloud.aiplatform_v1 import EndpointServiceClient

    return EndpointServiceClient


def test_the_song_of_an_endpoint_is_the_song_of_the_same_musician_here(
    vertex: VertexEmulator, untrained: dict[str, Path], bucket: str
) -> None:
    with closing(gcs.client(bucket)) as storage:
        for path in untrained["mono"].iterdir():
            if path.is_file():
                storage.bucket(gcs.BUCKET).blob(f"checkpoint/{path.name}").upload_from_filename(path)
    one = settings(vertex)
    served = {"MELODIFY_MUSICIAN": "musicgen", "MELODIFY_SONGS": "2"}
    model = endpoints.register(one, IMAGE, artifacts=f"gs://{gcs.BUCKET}/checkpoint", environment=served)
    endpoint, deployed = endpoints.deploy(one, model)
    musician = stages.musician(one)
    assert musician.version.version == "melodify-musician@1"
    track = musician.play(MUSIC, 4, 7)
    here = stages.musician(Settings(musician="musicgen", checkpoint=str(untrained["mono"])))
    alone = here.play(MUSIC, 4, 7)
    there, nearby = (soundfile.read(io.BytesIO(one.files["track.wav"]))[0].tolist() for one in (track, alone))
    assert there == nearby
    assert track.card.musician.name == "musicgen" and track.card.measured == alone.card.measured
    here.close()  # type: ignore[attr-defined]
    endpoints.undeploy(one, endpoint, deployed)
    assert not vertex.servers


def test_a_canary_grows_and_is_rolled_back(vertex: VertexEmulator) -> None:
    one = settings(vertex)
    events: list[str] = []
    models = [endpoints.register(one, f"{IMAGE}{number}", environment=ARRANGER) for number in range(2)]
    endpoint, old = endpoints.deploy(one, models[0], on_event=events.append)
    _, new = endpoints.deploy(one, models[1], traffic=10, on_event=events.append)
    assert vertex.endpoints[endpoint]["trafficSplit"] == {old: 90, new: 10}
    assert endpoints.deploy(one, models[1], on_event=events.append) == (endpoint, new)
    assert events[-1] == f"deployed before: {new}" and len(posted(vertex, ":deployModel")) == 2
    endpoints.split(one, endpoint, {new: 100})
    assert vertex.endpoints[endpoint]["trafficSplit"] == {new: 100}
    endpoints.split(one, endpoint, {old: 100, new: 0})
    endpoints.undeploy(one, endpoint, new)
    endpoints.undeploy(one, endpoint, new)
    assert vertex.endpoints[endpoint]["trafficSplit"] == {old: 100} and list(vertex.servers) == [old]
    track = stages.musician(one).play(MUSIC, 4, 7)
    assert replay(track.card, Settings()).files == track.files
    with tracing(TRACE_ID):
        stages.musician(one).play(MUSIC, 4, 8)
    assert TRACE_ID in posted(vertex, ":predict")[-1].headers["traceparent"]
    _, third = endpoints.deploy(one, models[1], traffic=0)
    with pytest.raises(InputError, match="all the traffic"):
        endpoints.undeploy(one, endpoint, old)
    assert third == new and endpoints.delete_endpoint(one, endpoint) and not endpoints.delete_endpoint(one, endpoint)
    assert endpoints.delete_model(one, models[0]) and not endpoints.delete_model(one, models[0])
    assert not vertex.models and not vertex.endpoints


def test_a_deployment_that_was_ordered_by_a_client_that_is_gone_is_found(vertex: VertexEmulator) -> None:
    one = settings(vertex)
    model = endpoints.register(one, IMAGE, environment=ARRANGER)
    start, begun, go_on = vertex._start, threading.Event(), threading.Event()

    def slow(number: str, model: dict[str, Any]) -> None:
        begun.set()
        go_on.wait(30)
        start(number, model)

    vertex._start = slow  # type: ignore[method-assign]
    threading.Thread(target=endpoints.deploy, args=(one, model), daemon=True).start()
    assert begun.wait(30)
    events: list[str] = []
    threading.Timer(0.3, go_on.set).start()
    _, deployed = endpoints.deploy(one, model, on_event=events.append)
    assert events[0].startswith("waiting for ") and events[1] == f"deployed before: {deployed}"
    assert len(posted(vertex, ":deployModel")) == 1


@pytest.mark.parametrize("versions", [0, 1], ids="{} before".format)
def test_an_upload_that_was_ordered_by_a_client_that_was_killed_is_found(vertex: VertexEmulator, versions: int) -> None:
    one = settings(vertex)
    for number in range(versions):
        endpoints.register(one, f"{IMAGE}{number}")
    vertex.log.clear()
    vertex.hold.clear()
    code = f"endpoints.register(Settings.load(), {IMAGE!r})"
    environment = {**os.environ, **vertex.machine, "MELODIFY_VERTEX_BASE_URL": vertex.url}
    process = subprocess.Popen(
        [sys.executable, "-c", f"from melodify_lib.cloud import endpoints; from melodify_lib import Settings; {code}"],
        env=environment,
    )
    while not any("/operations/" in request.path for request in vertex.log):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    events: list[str] = []

    def hear(text: str) -> None:
        events.append(text)
        vertex.hold.set()

    model = endpoints.register(one, IMAGE, on_event=hear)
    assert model.endswith(f"melodify-musician@{versions + 1}")
    assert events[0].startswith("waiting for ") and events[1] == f"registered before: {model}"
    assert len(posted(vertex, "models:upload")) == 1


def test_who_is_second_at_the_same_moment_is_told_so(vertex: VertexEmulator) -> None:
    vertex.fault = lambda request: (
        Reply(vertex.error(409, "exists"), 409) if request.path.endswith("models:upload") else None
    )
    with pytest.raises(CloudError, match="another does the same at this moment; try again in a minute"):
        endpoints.register(settings(vertex), IMAGE)
    assert len(posted(vertex, "models:upload")) == 1


def test_what_is_not_ours_is_not_deleted(vertex: VertexEmulator) -> None:
    one = settings(vertex)
    parent = "projects/melodify/locations/us-central1"
    endpoint = {"name": f"{parent}/endpoints/7", "displayName": "prod", "deployedModels": [{"id": "1", "model": "m"}]}
    vertex.endpoints[f"{parent}/endpoints/7"] = endpoint
    vertex.models[f"{parent}/models/7"] = {"name": f"{parent}/models/7", "labels": {"team": "prod"}}
    for delete, name in ((endpoints.delete_endpoint, "endpoints/7"), (endpoints.delete_model, "models/7@1")):
        with pytest.raises(InputError, match="no label melodify-run, so Melodify did not make it: not deleted"):
            delete(one, f"{parent}/{name}")
        with pytest.raises(InputError, match="not of project 'melodify'"):
            delete(one, f"projects/others/locations/us-central1/{name}")
    assert {request.method for request in vertex.log} == {"GET"} and len(vertex.log) == 2


def test_a_server_that_does_not_start_is_an_error_that_says_why(vertex: VertexEmulator) -> None:
    one = settings(vertex)
    model = endpoints.register(one, IMAGE, environment={"MELODIFY_MUSICIAN": "nobody"})
    with pytest.raises(CloudError, match=r"deploying .* failed: .*nobody"):
        endpoints.deploy(one, model)


@pytest.mark.parametrize(
    "predictions",
    [
        [],
        [{}, {}],
        [None],
        ["card.json"],
        [{"card": 7}],
        [{"card": "gs://melodify/songs/nothing/card.json"}],
        [{"card": "gs://others/card.json"}],
        [{"card": "gs://melodify/../others/card.json"}],
        [{"card": "gs://melodify/songs/wrong/card.json"}],
        [{"card": "gs://melodify/songs/broken/card.json"}],
        [{"card": "gs://melodify/songs/no-card/card.json"}],
        [{"card": "gs://melodify/songs/flac/card.json"}],
    ],
    ids=str,
)
def test_an_answer_that_is_not_the_song_is_an_error(vertex: VertexEmulator, predictions: Any) -> None:
    one = settings(vertex)
    track = stages.musician(Settings()).play(MUSIC, 4, 7)
    other = stages.musician(Settings()).play(MUSIC, 4, 8)
    store = open_store(one)
    other.put(store, "songs/wrong/")
    track.put(store, "songs/broken/")
    store.put("songs/broken/track.wav", b"RIFF")
    store.put("songs/no-card/card.json", b"{}")
    flac = io.BytesIO()
    soundfile.write(flac, track.audio.T, track.sample_rate, format="FLAC")
    files = {**track.files, "track.wav": flac.getvalue()}
    digests = {name: sha256(data) for name, data in files.items()}
    replace(track, files=files, card=track.card.model_copy(update={"files": digests})).put(store, "songs/flac/")
    endpoints.deploy(one, endpoints.register(one, IMAGE, environment=ARRANGER))
    vertex.fault = lambda request: Reply({"predictions": predictions}) if request.path.endswith(":predict") else None
    with pytest.raises(MelodifyError):
        stages.musician(one).play(MUSIC, 4, 7)


def test_what_cannot_be_is_refused_before_anything_is_sent(vertex: VertexEmulator) -> None:
    one = settings(vertex)
    with pytest.raises(InputError, match=r"2\*\*53"):
        stages.musician(one).play(MUSIC, 4, 2**53)
    with pytest.raises(InputError, match="percent"):
        endpoints.deploy(one, "m@1", traffic=101)
    with pytest.raises(InputError, match="100 percent"):
        endpoints.split(one, "e", {"1": 50})
    for wrong in ("", "projects/others/locations/us-central1/endpoints/1", "../1"):
        with pytest.raises(SettingsError, match="MELODIFY_ENDPOINT"):
            stages.musician(settings(vertex, endpoint=wrong))
    with pytest.raises(PaidError):
        stages.musician(settings(vertex, allow_paid=False, store="runs/store"))
    assert not vertex.log


def test_no_request_carries_a_secret_in_its_body(vertex: VertexEmulator) -> None:
    one = settings(vertex)
    endpoints.register(one, IMAGE, environment=ARRANGER)
    assert TOKEN not in json.dumps([request.body for request in vertex.log])


def test_the_token_goes_to_no_address_that_is_not_the_services(vertex: VertexEmulator) -> None:
    one = settings(vertex)
    endpoints.deploy(one, endpoints.register(one, IMAGE, environment=ARRANGER))
    there = vertex.endpoints[endpoints.own_endpoint(one)]
    there |= {"dedicatedEndpointEnabled": True, "dedicatedEndpointDns": "evil.example.com"}
    with pytest.raises(CloudError, match=r"evil\.example\.com"):
        stages.musician(one).play(MUSIC, 4, 7)
