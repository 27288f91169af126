"""Logs: as text for people, or as Cloud Logging reads them, one JSON object a line with the trace that it belongs to.

Modules log by their names; what becomes of it is said once, at the edge: `configure`. A trace is one id from a
picture's upload to its song.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from melodify_lib.settings import Settings

TRACE: ContextVar[str] = ContextVar("trace", default="")
"""The trace of the request that this thread works for, 32 hex digits, or nothing."""
_SECRET = re.compile(r"\b(?:sk-|ya29\.|AIza|upload_id=|X-Goog-Signature=)[\w*.%-]+|(?<=Bearer )[\w.~+/=-]+")

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")  # W3C Trace Context, level 1
_CLOUD_TRACE = re.compile(r"([0-9a-f]{32})(?:/\d{1,20})?(?:;o=\d)?", re.IGNORECASE)


def configure(settings: Settings) -> None:
    """Log to standard error: warnings as text, or all from INFO up as JSON, as `Settings.log_format` says."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        handler.setFormatter(JsonFormatter(settings.project))
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    ours = logging.getLogger("melodify_lib")
    ours.handlers[:] = [handler]
    ours.setLevel(logging.INFO if settings.log_format == "json" else logging.WARNING)
    ours.propagate = False


@contextmanager
def tracing(trace: str = "") -> Iterator[str]:
    """Inside, everything belongs to `trace`, a new one if it is not given."""
    token = TRACE.set(trace or TRACE.get() or secrets.token_hex(16))
    try:
        yield TRACE.get()
    finally:
        TRACE.reset(token)


def traceparent() -> str:
    """The header under which a server that is asked logs the same trace; nothing outside of one."""
    return f"00-{TRACE.get()}-{secrets.token_hex(8)}-01" if TRACE.get() else ""


def redact(text: str) -> str:
    """`text` without what looks like a key."""
    return _SECRET.sub("[key]", text)


def trace_of(headers: Mapping[str, str]) -> str:
    """The trace that a request's headers name; nothing where they name none, or what is no trace."""
    for header, form in (("Traceparent", _TRACEPARENT), ("X-Cloud-Trace-Context", _CLOUD_TRACE)):
        match = form.fullmatch(headers.get(header, ""))
        if match and int(match[1], 16):
            return match[1].lower()
    return ""


class JsonFormatter(logging.Formatter):
    """A record as Cloud Logging's structured form; what a record has as `fields` is merged in."""

    def __init__(self, project: str = "") -> None:
        super().__init__()
        self._prefix = f"projects/{project}/traces/" if project else ""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        entry: dict[str, Any] = {
            "severity": record.levelname,
            "message": redact(message),
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "logger": record.name,
            **getattr(record, "fields", {}),
        }
        if trace := TRACE.get():
            entry["logging.googleapis.com/trace"] = self._prefix + trace
        return json.dumps(entry, default=str)
