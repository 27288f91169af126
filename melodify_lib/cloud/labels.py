"""Labels on everything that is created in the cloud: whose it is, which request made it, when it may go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from melodify_lib.settings import Settings

RUN, REQUEST, EXPIRES = "melodify-run", "melodify-request", "melodify-expires"
"""Who made it; the hash of all that was asked, by which the same order is found again; a day, as ``2026-12-24``."""

TRACE = "melodify-trace"
"""On a pipeline job: the trace in whose logs it was submitted."""


def labels(settings: Settings, *, run: str, request: str) -> dict[str, str]:
    """Labels for something new; at most 63 of ``a-z 0-9 _ -`` each, as Google Cloud allows."""
    expires = datetime.now(UTC) + timedelta(days=settings.keep_days)
    return {RUN: run, REQUEST: request, EXPIRES: f"{expires:%Y-%m-%d}"}
