"""Logs: one way to write them, as text for people or as the JSON that Cloud Logging reads, and one trace to join them.

A module says `logging.getLogger(__name__)` and no more. An edge (the command line, a notebook, a component, a server)
says once how its process logs, `configure`, and begins a trace, `tracing`: all that is logged inside bears its id,
in threads too where their work runs in a copy of the context, and our own servers are told it (`traceparent`).

A record may have `labels` (str → str, which Cloud Logging can search) and `fields` (anything) in its `extra`. No
secret of the settings, and nothing that looks like one, leaves a formatter of this module.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from pydantic import SecretStr

if TYPE_CHECKING:
    from melodify_lib.nouns import StageVersion
    from melodify_lib.settings import Settings

log = logging.getLogger(__name__)

TRACE: ContextVar[str] = ContextVar("trace", default="")
"""The trace of what this thread works for, 32 hex digits, or nothing."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")  # W3C Trace Context, level 1
_CLOUD_TRACE = re.compile(r"([0-9a-f]{32})(?:/\d{1,20})?(?:;o=\d)?", re.IGNORECASE)
_KEY = re.compile(
    r"\b(?:sk-|ya29\.|AIza|upload_id=|X-Goog-Signature=)[\w*.%-]+"
    r"|(?<=\bBearer )\S+"
    r"|\beyJ[\w-]+\.[\w-]+\.[\w-]*"  # a signed token
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_SEVERITIES = ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO"), (0, "DEBUG"))
_DEEPEST = 8
_CHATTY = ("httpx", "httpx2", "google.auth", "urllib3")  # a line a request, with its address


def configure(settings: Settings, *, as_json: bool | None = None, labels: Mapping[str, str] | None = None) -> None:
    """Log to standard error: text from WARNING on, or JSON from INFO on; as `Settings.log_format` says if None.

    `labels` are on each line of JSON. Called again, it replaces what it set before, and nothing else.
    """
    as_json = settings.log_format == "json" if as_json is None else as_json
    handler = _StandardError()
    handler.setFormatter(JsonFormatter(settings, labels) if as_json else TextFormatter(settings))
    root = logging.getLogger()
    for earlier in [one for one in root.handlers if isinstance(one, _StandardError)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(logging.INFO if as_json else logging.WARNING)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(as_json)  # or they would be lines that are no JSON
    sys.excepthook = _uncaught if as_json else sys.__excepthook__


def configure_component(settings: Settings, **labels: str) -> str:
    """For a process that is one step of a run: JSON with `labels` on each line, in the trace of whoever started it.

    The trace, which is returned, is that of the environment (see `given`), or a new one. KFP's own handler goes: it
    would write each line a second time, secrets and all.
    """
    root = logging.getLogger()
    for basic in [one for one in root.handlers if type(one) is logging.StreamHandler]:
        root.removeHandler(basic)
    configure(settings, as_json=True, labels=labels)
    trace = given(settings) or new_trace()
    TRACE.set(trace)
    return trace


def stage_done(stage: str, by: StageVersion, since: float, **hashes: str) -> None:
    """Log who did a stage of the flow, and how long it took since `since` (`time.monotonic`, in seconds).

    Of the picture only its hash, and no word of what it shows.
    """
    seconds = time.monotonic() - since
    log.info(
        "%s by %s in %.2f s",
        stage,
        by.name,
        seconds,
        extra={
            "labels": {"stage": stage, "by": by.name, "version": by.version},
            "fields": {"duration_s": round(seconds, 3), **hashes},
        },
    )


def new_trace() -> str:
    return secrets.token_hex(16)


def given(settings: Settings) -> str:
    """The trace that this process was started in: MELODIFY_TRACE, or TRACEPARENT in W3C's form; or nothing."""
    return settings.trace or trace_of({"Traceparent": os.environ.get("TRACEPARENT", "")})


@contextmanager
def tracing(trace: str = "") -> Iterator[str]:
    """All that is logged inside belongs to `trace`; if that is empty to the one that is there already, or a new one."""
    token = TRACE.set(trace or TRACE.get() or new_trace())
    try:
        yield TRACE.get()
    finally:
        TRACE.reset(token)


def traceparent() -> str:
    """The header of this name for a request to a server of ours; empty outside a trace."""
    trace = TRACE.get()
    return f"00-{trace}-{secrets.token_hex(8)}-01" if trace else ""


def trace_of(headers: Mapping[str, str]) -> str:
    """The trace that a request's headers name; nothing where they name none, or what is no trace."""
    for header, form in (("Traceparent", _TRACEPARENT), ("X-Cloud-Trace-Context", _CLOUD_TRACE)):
        match = form.fullmatch(headers.get(header, ""))
        if match and int(match[1], 16):
            return match[1].lower()
    return ""


def redact(text: str, settings: Settings) -> str:
    """`text` without the keys of the settings, or what looks like one."""
    values = (getattr(settings, name) for name in type(settings).model_fields)
    known = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
    for secret in (*known, os.environ.get("OPENAI_API_KEY", "")):  # OpenAI's client reads that by itself
        if secret:
            text = text.replace(secret, "[key]")
    return _KEY.sub("[key]", text)


def _uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """What ends the process, as a line like all others."""
    if issubclass(kind, KeyboardInterrupt):
        log.info("interrupted")
    else:
        log.critical("uncaught %s", kind.__name__, exc_info=(kind, error, traceback))


class JsonFormatter(logging.Formatter):
    """A record as Cloud Logging's structured form, in one line."""

    def __init__(self, settings: Settings, labels: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._settings, self._labels = settings, dict(labels or {})
        self._prefix = f"projects/{settings.project}/traces/" if settings.project else ""

    def format(self, record: logging.LogRecord) -> str:
        labels = {name: str(value) for name, value in (self._labels | getattr(record, "labels", {})).items()}
        trace = TRACE.get()
        entry: dict[str, Any] = {
            "severity": next(name for least, name in _SEVERITIES if record.levelno >= least),
            "message": self._message(record),
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "logger": record.name,
            **getattr(record, "fields", {}),
            **({"logging.googleapis.com/labels": labels} if labels else {}),
            **({"logging.googleapis.com/trace": self._prefix + trace} if trace else {}),
        }
        return json.dumps(self._plain(entry))

    def _message(self, record: logging.LogRecord) -> str:
        """With the traceback, by which Error Reporting knows an error."""
        parts = [_said(record)]
        if record.exc_info:
            parts.append(self.formatException(record.exc_info))
        if record.stack_info:
            parts.append(record.stack_info)
        return "\n".join(parts)

    def _plain(self, value: Any, depth: int = 0) -> Any:
        """As JSON can say it, and without secrets: what is logged must not fail because of it."""
        if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            return value
        if depth < _DEEPEST and isinstance(value, Mapping):
            return {redact(_text(key), self._settings): self._plain(one, depth + 1) for key, one in value.items()}
        if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
            return [self._plain(one, depth + 1) for one in value]
        return redact(_text(value), self._settings)


class TextFormatter(logging.Formatter):
    """A record for people: ``warning: what happened``, without what would steer a terminal."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def format(self, record: logging.LogRecord) -> str:
        text = f"{record.levelname.lower()}: {_said(record)}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        text = redact(text, self._settings)
        return "".join(character if character.isprintable() or character == "\n" else " " for character in text)


class _StandardError(logging.StreamHandler[TextIO]):
    """To what `sys.stderr` is at the time: a notebook and a spinner put another in its place."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def _said(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # logging itself would print the arguments, secrets and all
        return f"{_text(record.msg)} (cannot be said: {type(error).__name__})"


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__}: {type(error).__name__}>"
