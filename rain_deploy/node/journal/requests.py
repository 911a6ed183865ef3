"""The helper of a script: keeps each result as soon as its task is finished, and finds kept ones again.

It is a child of the script and speaks JSON lines with it over stdin and stdout.  What it is asked:

``find``: ``keys`` -> ``found`` (record and places, by key), ``failures`` (messages, by key) and ``suspects``
(keys of tasks that have to run alone).
``kept``: the same, once what is finished is kept.
``serve``: ``tasks`` (session, task, key) whose results the script takes from the journal.
``watch``: ``tasks``, as ``Watched``.
``unkeep``: ``objects`` (pairs of session and id) that the script does not need any more.
``close``: the ``session`` that is about to be closed -> an answer once all finished results are kept.

A request with a number ``n`` is answered with the same number.
"""

import json
import os
import select
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..files import Json
from ..run import the_run
from .engine import Engine, listens
from .helper import POLL_S, Helper
from .store import Journal

_PIPE_BYTES = 1 << 20
_REST_S = 0.5  # for the next piece of a line
MOST_POLL_S = 0.5
"""Pauses are as long as the looks at the states take: those at many tasks must not take a whole core."""


class Requests:
    """Requests of the script, as lines of stdin."""

    def __init__(self, helper: Helper) -> None:
        self._helper = helper
        self._rest: list[bytes] = []  # of a line that has not ended
        self.ended = False  # stdin has

    def none(self) -> bool:
        """Return whether the script has nothing to say."""
        return not select.select([0], [], [], 0)[0]

    def handle(self, timeout_s: float) -> None:
        """Handle what comes within the time, and a line that has begun by then."""
        while not self.ended and select.select([0], [], [], _REST_S if self._rest else timeout_s)[0]:
            data = os.read(0, _PIPE_BYTES)
            self.ended = not data
            first, *more = data.split(b"\n")
            self._rest.append(first)
            for line in more:
                self._answer(b"".join(self._rest))
                self._rest = [line]
            self._rest = [piece for piece in self._rest if piece]
            if not self._rest:
                return

    def _answer(self, line: bytes) -> None:
        """Do what a line asks for.  A fault costs only that, and the script gets an answer."""
        request: Json = json.loads(line)
        answer = None
        try:
            answer = getattr(self._helper, request["op"])(request)
        except Exception as fault:  # noqa: BLE001 - the helper must go on
            self._helper.fault(f"the journal's {request['op']}", fault)
        if "n" in request:
            print(json.dumps({**(answer or {}), "n": request["n"]}), flush=True)


def help_script(run_dir: Path) -> int:
    """Help the script of a run until it ends."""
    address, _, port = os.environ["RAIN_DEPLOY_SERVER"].rpartition(":")
    journal = Journal(run_dir.parents[1] / "journal")
    helper = Helper(the_run(run_dir), journal, partial(Engine.at, address, int(port)))

    def stop(_number: int, _frame: object) -> None:
        helper.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the script decides
    requests, pause_s = Requests(helper), POLL_S
    while not requests.ended and not helper.stopping:
        requests.handle(pause_s)
        began_s = time.monotonic()
        _look(helper, requests.none)
        pause_s = min(max(POLL_S, time.monotonic() - began_s), MOST_POLL_S)
    helper.stopping = False
    _look(helper, lambda: True)
    helper.end(partial(listens, address, int(port)))
    return 0


def _look(helper: Helper, go_on: Callable[[], bool]) -> None:
    """Keep what is finished.  A fault costs only this look."""
    try:
        helper.round(go_on=go_on)
        helper.explain()
    except Exception as fault:  # noqa: BLE001 - the helper must go on
        helper.fault("keeping results in the journal", fault)
