"""Wait for something in another process or thread."""

from __future__ import annotations

import time
from collections.abc import Callable

LOOK_EVERY_S = 0.01
LONG_S = 120.0
"""For what takes a second on a quiet machine.  Only a test that fails waits so long: it may be generous."""


def wait_for(
    condition: Callable[[], object], timeout_s: float = LONG_S, describe: Callable[[], str] = lambda: ""
) -> None:
    """Wait until the condition holds; fail with its description after the deadline."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s {describe()}"
        time.sleep(LOOK_EVERY_S)
