"""Running asynchronous work from code that is not: many requests at a time behind a plain function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from melodify_lib.cloud.clients import EXTRA
from melodify_lib.errors import MissingDependencyError

T = TypeVar("T")


def run(main: Callable[[], Awaitable[T]]) -> T:
    """The result of `main`, run in an event loop of its own in a thread.

    A notebook has a loop running already, so `asyncio.run` cannot be used there. An interrupt of the
    caller cancels `main`.
    """
    try:
        from anyio.from_thread import start_blocking_portal
    except ModuleNotFoundError as error:
        raise MissingDependencyError(EXTRA) from error

    with start_blocking_portal(backend="asyncio") as portal:
        return portal.call(main)
