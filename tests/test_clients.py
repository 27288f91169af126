"""The clients of paid services: where they go, and what they say when they are refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest
import soundfile

from emulators.iam import IamEmulator
from emulators.proxy import Proxy
from emulators.server import Reply
from emulators.vertex import VertexEmulator
from melodify_lib import stages
from melodify_lib.cloud import clients, endpoints, store
from melodify_lib.cloud.objects import list_names
from melodify_lib.errors import CloudError, ModelError
from melodify_lib.music.foreign import read_wav
from melodify_lib.nouns import Caption
from melodify_lib.settings import Settings

TOKEN = "ya29.emulated-0123456789abcdefghij"


def settings(**more: Any) -> Settings:
    fields = {"allow_paid": True, "project": "melodify", "access_token": TOKEN, "openai_api_key": "sk-local"}
    return Settings(**{**fields, **more})


@pytest.mark.parametrize(
    ("location", "vertex"),
    [
        ("us-central1", "us-central1-aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_the_settings_alone_say_where_a_token_goes(monkeypatch: pytest.MonkeyPatch, location: str, vertex: str) -> None:
    for name in ("OPENAI_BASE_URL", "GOOGLE_VERTEX_BASE_URL", "STORAGE_EMULATOR_HOST"):
        monkeypatch.setenv(name, "http://elsewhere.example.com")
    one = settings(location=location)
    assert str(clients.openai(one).base_url).rstrip("/") == "https://api.openai.com/v1"
    assert str(clients.gemini(one)._api_client._http_options.base_url).rstrip("/") == f"https://{vertex}"
    assert clients.storage_client(one)._connection.API_BASE_URL == "https://storage.googleapis.com"


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("7", 7, 7),
        (format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True), 3000, 3600),
        (format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True), 0, 0),
        ("Fri, 31 Dec 9999 23:59:59 -0000", 86_400, 86_400),
        ("1e300", 86_400, 86_400),
    ],
    ids=["seconds", "a date", "a date that is over", "a far date", "a large number"],
)
def test_a_retry_after_is_a_number_or_a_date(said: str, least: float, most: float) -> None:
    pause = clients.refusal("it", 503, "", {"retry-after": said}, settings()).retry_after
    assert pause is not None and least <= pause <= most


@pytest.mark.parametrize("said", ["", "soon", "-1", "nan", "Fri, 99 Foo 2026 99:99:99 GMT"])
def test_a_retry_after_that_is_no_time_is_none(said: str) -> None:
    assert clients.refusal("it", 503, "", {"retry-after": said}, settings()).retry_after is None


def test_why_google_refuses_is_said_and_not_the_token_in_its_text() -> None:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SERVICE_DISABLED", "domain": "x"}
    error = {"error": {"code": 403, "message": f"{TOKEN}: enable it", "status": "PERMISSION_DENIED", "details": [info]}}
    with VertexEmulator(lambda text: {}, TOKEN) as vertex, IamEmulator(TOKEN, "a@b.c") as iam:
        vertex.fault = iam.fault = lambda request: Reply(error, 403)
        one = settings(vertex_base_url=vertex.url, describer="gemini", service_account="a@b.c")
        asks: list[Callable[[], object]] = [
            lambda: endpoints.get(one, "projects/melodify/locations/us-central1/endpoints/1"),
            lambda: stages.describer(one).describe(Caption.from_text("A storm over a black sea.")),
            lambda: clients.ask_google(one, lambda: clients.post_iam(one, iam.url, "signBlob", {})),
        ]
        for ask in asks:
            with pytest.raises(CloudError, match=r"refused \(403, SERVICE_DISABLED\).* API .* billing") as caught:
                ask()
            assert TOKEN not in repr(caught.value)


def test_why_cloud_storage_refuses_is_said() -> None:
    error = {"reason": "accountDisabled", "domain": "global", "message": f"{TOKEN} is not paid for"}
    with Proxy("http://127.0.0.1:9") as proxy:
        proxy.faults = [lambda *_: {"status": 403, "errors": [error]}] * 2
        with pytest.raises(CloudError, match=r"refused \(403, accountDisabled\)") as caught:
            list_names(settings(gcs_base_url=proxy.url), "gs://melodify/x")
        assert TOKEN not in repr(caught.value)


@pytest.mark.parametrize("reason", [None, 7, "two words", TOKEN, ["X"]], ids=str)
@pytest.mark.parametrize("form", ["{}", "[]", "null", "details"])
def test_a_reason_that_is_no_word_is_left_out(form: str, reason: Any) -> None:
    answer = {"error": {"details": [{"reason": reason}]}} if form == "details" else form
    assert clients._reason(answer) == ""


def test_signing_and_asking_iam_have_addresses_of_their_own() -> None:
    with IamEmulator(TOKEN, "a@b.c") as iam, VertexEmulator(lambda text: {}, TOKEN) as other:
        one = settings(service_account="a@b.c", iam_base_url=other.url, iam_credentials_base_url=iam.url)
        assert store._signing(one).sign_bytes(b"x") and not other.log


def _sound(seconds: float = 1, channels: int = 1, subtype: str = "PCM_16", form: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros((round(seconds * 8000), channels)), 8000, subtype=subtype, format=form)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [b"", b"RIFF", _sound(form="FLAC"), _sound(subtype="FLOAT"), _sound(channels=6), _sound(seconds=302)],
    ids=["nothing", "no header", "FLAC", "floats", "six channels", "302 s"],
)
def test_audio_from_elsewhere_is_plain_and_short(data: bytes) -> None:
    with pytest.raises(ModelError, match="their audio"):
        read_wav(data, "their audio")
    audio, rate = read_wav(_sound(seconds=300, channels=2), "ours")
    assert audio.shape == (2, 2_400_000) and rate == 8000
