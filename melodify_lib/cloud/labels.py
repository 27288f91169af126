"""Labels on everything that is created in the cloud: whose it is, which request made it, when it may go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from secrets import token_hex
from typing import TYPE_CHECKING

from melodify_lib.logs import TRACE

if TYPE_CHECKING:
    from melodify_lib.settings import Settings

RUN, REQUEST, EXPIRES = "melodify-run", "melodify-request", "melodify-expires"
"""The trace of the command that made it; the hash of all that was asked, by which the same order is found again; a day,
as ``2026-12-24``.
"""


def labels(settings: Settings, request: str) -> dict[str, str]:
    """Labels for something new; at most 63 of ``a-z 0-9 _ -`` each, as Google Cloud allows."""
    return {RUN: TRACE.get() or settings.trace or _process(), REQUEST: request, EXPIRES: expires(settings)}


def expires(settings: Settings) -> str:
    """The last day of what is made or used today, as ``2026-12-24``."""
    return f"{datetime.now(UTC) + timedelta(days=settings.keep_days):%Y-%m-%d}"


@cache
def _process() -> str:
    """Stands for the trace where there is none, as in a notebook to which nobody gave one (MELODIFY_TRACE)."""
    return token_hex(16)
