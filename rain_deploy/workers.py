"""Work in parallel threads.  A command that is interrupted does not wait for them."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
_given_up: ContextVar[threading.Event | None] = ContextVar("given_up", default=None)
"""In a worker: set when nobody waits for its work any more."""


class Abandoned(BaseException):
    """Ends the work of a thread whose command was interrupted."""


def pause(seconds: float) -> None:
    """Sleep.  In a worker whose command was interrupted, raise Abandoned at once."""
    given_up = _given_up.get()
    if given_up is None:
        time.sleep(seconds)
    elif given_up.wait(seconds):
        raise Abandoned


def outcomes(
    work: Callable[[T], R], items: Iterable[T], at_once: int, *, finish: bool = False
) -> list[Future[R]]:
    """Do ``work`` on each item in threads, and return the futures, all of them ended, in order.

    If the wait is interrupted, what has not begun is dropped; what has begun is left alone and ends at its
    next ``pause``.  ``finish``: that end is waited for, because the outcome of a call in flight must be
    recorded; without an outcome it is not tried again.
    """
    # Not a ThreadPoolExecutor: Python waits for its threads at exit, whatever they still wait for.
    given_up = _given_up.get() or threading.Event()
    queue = deque((Future[R](), item) for item in items)
    futures = [future for future, _ in queue]

    def serve() -> None:
        _given_up.set(given_up)
        with contextlib.suppress(IndexError):
            while True:
                _fulfil(*queue.popleft(), work)

    try:
        for number in range(min(len(futures), at_once)):
            threading.Thread(target=serve, name=f"worker-{number}", daemon=True).start()
        wait(futures)
    except BaseException:
        begun = [future for future in futures if not future.cancel()]
        given_up.set()
        if finish:
            wait(begun)
        raise
    return futures


def results(work: Callable[[T], R], items: Iterable[T], at_once: int) -> list[R]:
    """Do ``work`` on each item in threads; return the results in order, or raise the first error."""
    return [future.result() for future in outcomes(work, items, at_once)]


def within(seconds: float, work: Callable[[], R]) -> R:
    """Return what ``work`` returns.  Raises TimeoutError after ``seconds``, and leaves it alone.

    It is for libraries that have no deadline of their own for all that they do, such as the resolver.
    """
    future = Future[R]()
    arguments = (future, None, lambda _: work())
    threading.Thread(target=_fulfil, args=arguments, name="within", daemon=True).start()
    return future.result(min(seconds, threading.TIMEOUT_MAX))


def _fulfil(future: Future[R], item: T, work: Callable[[T], R]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work(item)
    except BaseException as error:  # noqa: BLE001 - the caller gets it
        future.set_exception(error)
    else:
        future.set_result(result)
