"""The helper of a script: keeps each result as soon as its task is finished, and finds kept ones again.

It is a child of the script and speaks JSON lines with it over stdin and stdout.  What it is asked:

``find``: ``keys`` -> ``found`` (record and places, by key), ``failures`` (messages, by key) and ``suspects``
(keys of tasks that have to run alone).
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
from pathlib import Path

from ..run import the_run
from .helper import POLL_S, Helper
from .store import Journal

_PIPE_BYTES = 1 << 16


class Requests:
    """Requests of the script, as lines of stdin."""

    def __init__(self, helper: Helper) -> None:
        self._helper = helper
        self._rest = b""

    def handle(self, timeout_s: float) -> bool:
        """Handle what comes within the time; return False at the end of stdin."""
        if not select.select([0], [], [], timeout_s)[0]:
            return True
        data = os.read(0, _PIPE_BYTES)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            answer = getattr(self._helper, request["op"])(request)
            if "n" in request:
                print(json.dumps({**(answer or {}), "n": request["n"]}), flush=True)
        return bool(data)


def help_script(run_dir: Path) -> int:
    """Help the script of a run until it ends."""
    journal = Journal(run_dir.parents[1] / "journal")
    helper = Helper(the_run(run_dir), journal)

    def stop(_number: int, _frame: object) -> None:
        helper.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the script decides
    requests = Requests(helper)
    while requests.handle(POLL_S) and not helper.stopping:
        helper.round()
        helper.explain()
    helper.stopping = False
    helper.round()
    helper.explain()
    helper.end()
    return 0
