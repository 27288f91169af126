"""Logs as Cloud Logging reads them, and one trace from a picture to its song."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

from melodify_lib.logs import TRACE, JsonFormatter, trace_of, traceparent, tracing
from melodify_lib.nouns import TrackCard

TRACE_ID = "0123456789abcdef0123456789abcdef"


def _record(message: str, **more: object) -> logging.LogRecord:
    record = logging.LogRecord("melodify_lib.x", logging.ERROR, __file__, 1, message, None, None)
    record.__dict__.update(more)
    return record


def _compose(photograph: Path, out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from melodify_lib.cli import main; main()"]
    command += ["compose", str(photograph), "--seconds", "4", "--json", "--out", str(out)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)


def test_one_id_goes_from_the_picture_to_the_song(photograph: Path, tmp_path: Path) -> None:
    given = {"MELODIFY_LOG_FORMAT": "json", "MELODIFY_TRACE": TRACE_ID, "MELODIFY_PROJECT": "p"}
    done = _compose(photograph, tmp_path, **given)
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert [line["logging.googleapis.com/labels"]["stage"] for line in lines] == ["caption", "describe", "play"]
    assert {line["logging.googleapis.com/trace"] for line in lines} == {f"projects/p/traces/{TRACE_ID}"}
    assert {line["severity"] for line in lines} == {"INFO"}
    card = TrackCard.from_json(done.stdout)
    assert card.caption is not None and card.caption.text not in done.stderr
    assert card.image_sha256 is not None
    assert {line["logging.googleapis.com/labels"]["picture"] for line in lines} == {card.image_sha256[:16]}


def test_without_a_trace_each_run_has_its_own_and_text_says_nothing(photograph: Path, tmp_path: Path) -> None:
    lines = _compose(photograph, tmp_path, MELODIFY_LOG_FORMAT="json").stderr.splitlines()
    traces = {json.loads(line)["logging.googleapis.com/trace"] for line in lines if line.startswith("{")}
    assert len(traces) == 1
    assert "caption by" not in _compose(photograph, tmp_path).stderr


def test_no_secret_gets_into_a_line() -> None:
    try:
        raise RuntimeError("key sk-0123456789abcdef refused; Bearer ya29.abc.def-ghi; https://x/?upload_id=ABC-def_1")
    except RuntimeError:
        record = _record("failed with sk-other-secret", exc_info=sys.exc_info())
    line = JsonFormatter().format(record)
    for secret in ("0123456789abcdef", "ya29.abc", "ABC-def_1", "other-secret"):
        assert secret not in line
    assert "\n" not in line and "RuntimeError" in json.loads(line)["message"]


def test_what_is_no_json_does_not_break_a_line() -> None:
    assert json.loads(JsonFormatter().format(_record("x", fields={"path": Path("/x")})))["path"] == "/x"


def test_a_trace_is_handed_on_and_ends() -> None:
    with tracing(TRACE_ID):
        assert trace_of({"Traceparent": traceparent()}) == TRACE_ID
        with tracing() as inner:
            assert inner == TRACE_ID
    assert TRACE.get() == "" and traceparent() == ""
