"""Logs: JSON that Cloud Logging reads, one trace from upload to song, and no secret in any line."""

import json
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.cloud.aiplatform_v1.types import Endpoint

from emulators.openai import OpenAIEmulator
from emulators.server import Reply, Request
from emulators.vertex import VertexEmulator
from melodify_lib import logs
from melodify_lib.cloud import endpoints
from melodify_lib.describe.gemini import from_settings
from melodify_lib.flow import Composer
from melodify_lib.logs import redact
from melodify_lib.nouns import Caption, TrackCard
from melodify_lib.settings import Settings

MELODIFY = Path(sys.executable).with_name("melodify")
TRACE = "0af7651916cd43dd8448eb211c80319c"
KEY, TOKEN = "a-key-of-no-known-form", "a-token-of-no-known-form"
SETTINGS = Settings.load(project="melodify", openai_api_key=KEY, access_token=TOKEN)
DESCRIPTION = {
    "description": "A calm piano piece.",
    "genre": "jazz",
    "bpm": 90,
    "key": "D minor",
    "moods": ["calm"],
    "instruments": ["piano"],
    "keywords": [],
}
log = logging.getLogger("melodify_lib.test")


class Said:
    """What was written to standard error up to now."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    @property
    def text(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def melodify(*arguments: object, expect: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MELODIFY_LOG_FORMAT": "json", **variables}
    command = [MELODIFY, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == expect, done.stderr
    return done


def test_a_song_is_one_trace_and_json_stays_alone_on_standard_output(photograph: Path, tmp_path: Path) -> None:
    done = melodify("compose", photograph, "--seconds", 4, "--out", tmp_path, "--json", MELODIFY_PROJECT="melodify")
    card = TrackCard.from_json(done.stdout)
    *_, play = stages = lines(done.stderr)
    assert [line["logging.googleapis.com/labels"]["stage"] for line in stages] == ["caption", "describe", "play"]
    (trace,) = {line["logging.googleapis.com/trace"] for line in stages}
    assert trace.startswith("projects/melodify/traces/") and len(trace.rpartition("/")[2]) == 32
    assert {line["picture"] for line in stages} == {card.image_sha256}
    assert play["song"] == card.files["track.wav"]
    assert play["logging.googleapis.com/labels"]["version"] == card.musician.version
    assert all(line["severity"] == "INFO" and line["duration_s"] >= 0 for line in stages)
    assert card.caption is not None and card.caption.text not in done.stderr
    assert photograph.name not in done.stderr


@pytest.mark.parametrize(
    "variables", [{"MELODIFY_TRACE": TRACE}, {"TRACEPARENT": f"00-{TRACE}-b7ad6b7169203331-01"}], ids=str
)
def test_whoever_starts_the_process_chooses_the_trace_and_refusals_are_in_it(variables: dict[str, str]) -> None:
    done = melodify("compose", "missing.jpg", expect=1, **variables)
    (refused,) = lines(done.stderr)
    assert (refused["severity"], refused["logging.googleapis.com/trace"]) == ("ERROR", TRACE)
    assert "missing.jpg" in refused["message"] and done.stdout == ""


def test_two_runs_are_two_traces() -> None:
    one, other = (lines(melodify("compose", "missing.jpg", expect=1).stderr)[0] for _ in range(2))
    assert one["logging.googleapis.com/trace"] != other["logging.googleapis.com/trace"]


@pytest.mark.parametrize("variables", [{"MELODIFY_TRACE": "x"}, {"MELODIFY_LOG_FORMAT": "xml"}], ids=str)
def test_what_cannot_be_used_is_said_by_the_command_and_help_still_helps(variables: dict[str, str]) -> None:
    (name,) = variables
    assert name.removeprefix("MELODIFY_").lower() in melodify("doctor", expect=1, **variables).stderr
    melodify("compose", "--help", **variables)


def test_a_trace_spans_the_stages_inside_it_and_ends(composer: Composer, photograph: Path, stderr: Said) -> None:
    logs.configure(SETTINGS, as_json=True)
    with logs.tracing() as trace:
        composer.compose(photograph, seconds=4)
        assert logs.traceparent()[3:35] == trace
    assert {line["logging.googleapis.com/trace"].rpartition("/")[2] for line in lines(stderr.text)} == {trace}
    assert logs.TRACE.get() == logs.traceparent() == ""


def test_threads_that_ask_gemini_log_in_the_trace_of_who_began_them(stderr: Said) -> None:
    def respond(question: str) -> Any:
        return DESCRIPTION

    with VertexEmulator(respond, TOKEN) as vertex:
        settings = Settings.load(profile="gcp", project="p", access_token=TOKEN, vertex_base_url=vertex.url)
        logs.configure(settings, as_json=True)
        describer = from_settings(settings)
        inner = describer.describe

        def describe(caption: Caption, genre: str | None = None) -> Any:
            log.info("asked")
            return inner(caption, genre)

        describer.describe = describe  # type: ignore[method-assign]
        with logs.tracing(TRACE):
            describer.describe_many([Caption.from_text("a cat"), Caption.from_text("a dog")])
    asked = [line for line in lines(stderr.text) if line["message"] == "asked"]
    assert [line["logging.googleapis.com/trace"] for line in asked] == [f"projects/p/traces/{TRACE}"] * 2


def test_our_endpoint_is_told_the_trace() -> None:
    with VertexEmulator(lambda question: "", TOKEN) as vertex:
        vertex.fault = lambda request: Reply({"predictions": [{}]})
        settings = Settings.load(profile="gcp", project="p", access_token=TOKEN, vertex_base_url=vertex.url)
        endpoint = Endpoint(name="projects/p/locations/us-central1/endpoints/1")
        with logs.tracing(TRACE):
            endpoints.predict(settings, endpoint, [{"prompt": "x"}])
        endpoints.predict(settings, endpoint, [{"prompt": "x"}])
        inside, outside = (request.headers for request in vertex.log)
    assert logs.trace_of({"Traceparent": inside["traceparent"]}) == TRACE
    assert "traceparent" not in outside


def test_traces_of_threads_do_not_mix() -> None:
    def inside(_: int) -> bool:
        with logs.tracing() as trace:
            return logs.TRACE.get() == trace and logs.traceparent()[3:35] == trace

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(inside, range(50)))


def test_a_component_logs_json_with_its_labels_in_the_given_trace(stderr: Said) -> None:
    settings = Settings.load(trace=TRACE)
    assert logs.configure_component(settings, component="rework-caption") == TRACE
    log.info("done", extra={"labels": {"stage": "describe"}})
    (line,) = lines(stderr.text)
    assert line["logging.googleapis.com/labels"] == {"component": "rework-caption", "stage": "describe"}
    assert line["logging.googleapis.com/trace"] == TRACE


@pytest.mark.parametrize(
    ("level", "severity"),
    [(5, "DEBUG"), (10, "DEBUG"), (20, "INFO"), (25, "INFO"), (30, "WARNING"), (40, "ERROR"), (99, "CRITICAL")],
)
def test_severities_are_those_that_cloud_logging_knows(level: int, severity: str) -> None:
    assert formatted(logging.LogRecord("x", level, "", 0, "said", None, None))["severity"] == severity


class Unsayable:
    def __str__(self) -> str:
        raise ValueError(TOKEN)


LOOP: dict[str, Any] = {}
LOOP["again"] = LOOP


@pytest.mark.parametrize(
    "value", [Unsayable(), LOOP, {Unsayable(): 1}, float("nan"), b"\xff", {1, 2}, "\ud800", Path("x"), 10**40]
)
def test_what_json_cannot_say_does_not_stop_a_line(value: Any) -> None:
    record = logging.LogRecord("x", 20, "", 0, "said", None, None)
    record.fields = {"value": value}
    line = formatted(record)
    assert line["message"] == "said" and "value" in line and TOKEN not in str(line)


@pytest.mark.parametrize(("message", "arguments"), [("%d songs for %s", (KEY,)), ("%s", (Unsayable(),))])
def test_arguments_that_do_not_fit_are_a_line_without_them(message: str, arguments: tuple[Any, ...]) -> None:
    line = formatted(logging.LogRecord("x", 30, "", 0, message, arguments, None))
    assert line["message"].startswith(f"{message} (cannot be said: ")
    assert KEY not in str(line) and TOKEN not in str(line)


def hostile() -> None:
    try:
        raise RuntimeError(f"Authorization: Bearer {TOKEN}")
    except RuntimeError as error:
        error.add_note(f"key={KEY}")
        raise ValueError("first\nsecond sk-proj-abc123 AIzaSyExample", {"eyJhbGciOi.eyJzdWIi.c2ln": KEY}) from error


SECRETS = (KEY, TOKEN, "sk-proj-abc123", "AIzaSyExample", "eyJhbGciOi.eyJzdWIi.c2ln")


@pytest.mark.parametrize("as_json", [True, False])
def test_no_secret_is_in_a_line_whatever_is_raised(as_json: bool, stderr: Said) -> None:
    logs.configure(SETTINGS, as_json=as_json)
    try:
        hostile()
    except ValueError as error:
        log.exception("it failed: %s", error, extra={"fields": {"deep": [{"key": KEY}], TOKEN: 1}})
    said = stderr.text
    assert "ValueError" in said and "RuntimeError" in said and "it failed" in said
    assert not [secret for secret in SECRETS if secret in said]
    if as_json:
        (line,) = lines(said)
        assert line["severity"] == "ERROR" and "\n" in line["message"] and "Traceback" in line["message"]


def test_a_key_that_a_service_repeats_is_in_no_line(photograph: Path, tmp_path: Path) -> None:
    with OpenAIEmulator(lambda question: "", "another-key") as openai:
        openai.fault = lambda request: _echo(openai, request)
        done = melodify(
            "compose",
            photograph,
            "--out",
            tmp_path,
            expect=1,
            MELODIFY_CAPTIONER="openai",
            MELODIFY_ALLOW_PAID="true",
            MELODIFY_OPENAI_BASE_URL=openai.base_url,
            OPENAI_API_KEY=KEY,
        )
    assert openai.log and openai.log[0].headers["authorization"] == f"Bearer {KEY}"
    refused = lines(done.stderr)[-1]
    assert refused["severity"] == "ERROR" and "[key]" in refused["message"]
    assert KEY not in done.stderr + done.stdout


def _echo(openai: OpenAIEmulator, request: Request) -> Reply:
    return Reply(openai.error(400, f"what is {request.headers['authorization']}?"), 400)


@pytest.mark.parametrize(
    "text",
    [
        f"x{KEY}y",
        "Bearer abc.def-ghi",
        "ya29.a0Af_x",
        "https://s/o?upload_id=ADPycd&X-Goog-Signature=8f%2e",
        "-----BEGIN PRIVATE KEY-----\nMIIEvQ\n-----END PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEvQ",
    ],
)
def test_secrets_are_known_by_the_settings_and_by_their_looks(text: str) -> None:
    clean = redact(text, SETTINGS)
    assert "[key]" in clean
    assert not [part for part in (KEY, "abc.def", "a0Af", "ADPycd", "8f%2e", "MIIEvQ") if part in clean]


def test_what_is_no_secret_stays() -> None:
    text = "skate to the bearer of risk-free task-7; sketch.jpg"
    assert redact(text, SETTINGS) == text


def test_text_does_not_steer_the_terminal(stderr: Said) -> None:
    logs.configure(SETTINGS, as_json=False)
    log.warning("\x1b[31mred\u202e\rx")
    log.info("not said")
    assert stderr.text == "warning:  [31mred  x\n"


def test_warnings_are_lines_of_json_too(stderr: Said) -> None:
    import warnings

    logs.configure(SETTINGS, as_json=True)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)  # `catch_warnings` put the printing back
        warnings.warn("look out", stacklevel=1)
    (line,) = lines(stderr.text)
    assert line["severity"] == "WARNING" and "look out" in line["message"]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_what_nobody_catches_is_a_line_too(log_format: str) -> None:
    code = (
        "from melodify_lib import logs; from melodify_lib.settings import Settings\n"
        f"logs.configure(Settings.load(openai_api_key={KEY!r}, log_format={log_format!r}))\n"
        f"raise ValueError('first\\nsecond {KEY}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    if log_format == "text":
        assert done.stderr.startswith("Traceback")
        return
    (line,) = lines(done.stderr)
    assert line["severity"] == "CRITICAL" and "Traceback" in line["message"] and "second [key]" in line["message"]


def test_configured_again_a_line_is_written_once(stderr: Said) -> None:
    for _ in range(3):
        logs.configure(SETTINGS, as_json=True)
    log.info("once")
    assert len(lines(stderr.text)) == 1


def formatted(record: logging.LogRecord) -> dict[str, Any]:
    text = logs.JsonFormatter(SETTINGS).format(record)
    assert "\n" not in text
    line: dict[str, Any] = json.loads(text, parse_constant=pytest.fail)
    return line
