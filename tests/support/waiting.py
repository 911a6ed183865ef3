"""Wait for something in another process or thread."""

from __future__ import annotations

import time
from collections.abc import Callable

LOOK_EVERY_S = 0.01


def wait_for(
    condition: Callable[[], object], timeout_s: float = 20.0, describe: Callable[[], str] = lambda: ""
) -> None:
    """Wait until the condition holds; fail with its description after the deadline."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s {describe()}"
        time.sleep(LOOK_EVERY_S)
