"""Asking again: what is worth it, after how long a pause, and until when. One policy for every service."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

from melodify_lib.errors import CloudError

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")

TIMEOUT_S = 60.0
"""How long one answer may take to arrive whole."""
TRANSFER_S = 600.0
"""The same for a file, up or down."""
DEADLINE_S = 120.0
"""How long a request may be repeated."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
BUSY = (408, 409, 429)


def is_passing(error: BaseException) -> bool:
    """Would the same request, sent again later, perhaps be answered? Silence, 408, 409, 429 and 5xx."""
    return isinstance(error, CloudError) and (error.status is None or error.status in BUSY or error.status >= 500)


def was_not_taken(error: BaseException) -> bool:
    """Is it certain that nothing came of the request, so that it may be sent again even where that costs money?"""
    return isinstance(error, CloudError) and (error.is_unsent or error.status == 429)


def pause(state: RetryCallState) -> float:
    """Seconds until the next try: what the service asks for, or longer each time and by chance."""
    from tenacity import wait_random_exponential

    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, CloudError) and error.retry_after is not None:
        return error.retry_after
    return wait_random_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S)(state)


def ask(
    request: Callable[[], T],
    *,
    is_repeatable: bool = True,
    timeout: float | None = None,
    deadline: float | None = None,
) -> T:
    """What `request` returns, sent again after a pause while it raises a `CloudError` that may pass.

    Where a repetition could be a second order (`is_repeatable` false), only what was certainly not taken is sent
    again. Each answer has `timeout` seconds to arrive whole (`TIMEOUT_S` if None). Raises the last error when the
    next pause would end after `deadline` seconds (`DEADLINE_S` if None).
    """
    from tenacity import Retrying, retry_if_exception, stop_before_delay

    asking = Retrying(
        retry=retry_if_exception(is_passing if is_repeatable else was_not_taken),
        stop=stop_before_delay(DEADLINE_S if deadline is None else deadline),
        wait=pause,
        reraise=True,
    )
    answer: T = asking(whole, request, TIMEOUT_S if timeout is None else timeout)
    return answer


def whole(request: Callable[[], T], timeout: float) -> T:
    """What `request` returns, within `timeout` seconds: the clients' own limits start anew with each byte.

    Raises `CloudError` when they are over.
    """
    answer: Future[T] = Future()
    context = copy_context()

    def work() -> None:
        try:
            answer.set_result(context.run(request))
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=work, name="request", daemon=True).start()  # is left to itself when nobody waits any more
    try:
        return answer.result(timeout)
    except TimeoutError:
        raise CloudError(f"no whole answer came in {timeout:g} s; check the network, or try again later") from None
