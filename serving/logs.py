"""Logs as Cloud Logging reads them: one JSON object a line, with the trace that the request belongs to."""

from __future__ import annotations

import json
import logging
import re
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

TRACE: ContextVar[str] = ContextVar("trace", default="")
"""The trace of the request that this thread works for, 32 hex digits, or nothing."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")  # W3C Trace Context, level 1
_CLOUD_TRACE = re.compile(r"([0-9a-f]{32})(?:/\d{1,20})?(?:;o=\d)?", re.IGNORECASE)


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
            "message": message,
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "logger": record.name,
            **getattr(record, "fields", {}),
        }
        if trace := TRACE.get():
            entry["logging.googleapis.com/trace"] = self._prefix + trace
        return json.dumps(entry)
