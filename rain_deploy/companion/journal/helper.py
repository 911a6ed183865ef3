"""The script's side of its helper: starts it, asks it, and starts another one where it ends.

The helper is a process of the same Python, node/journal/requests.py.  No question waits without a limit, and
a helper that cannot be had costs the script nothing but the protection of its results.
"""

import itertools
import json
import os
import queue
import select
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import Any

SILENT_S = 20.0
"""A helper that is asked and says nothing for so long is ended, and another one is asked."""
MOST_STARTS = 6


class HelperLost(Exception):  # noqa: N818 - a fact, which the caller makes a warning
    """No helper answers."""


class Helper:
    """The helper of this script.  Threads may share it."""

    def __init__(self, run_dir: Path, code: Path, silent_s: float = SILENT_S) -> None:
        self._silent_s = silent_s
        self._argv = [sys.executable, "-I", str(code), "journal-helper", str(run_dir)]
        self._log = run_dir / "companion" / "helper.log"
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._asking = threading.Lock()
        self._numbers = itertools.count(1)
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._watches: dict[int, list[str]] = {}  # by session, for another helper
        self._question = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._ending = False
        self.unkept: deque[tuple[int, int]] = deque()
        """Objects that the script does not need any more.  Garbage collection adds to it at any moment."""

    @property
    def usable(self) -> bool:
        """Return False in a forked child, and after too many helpers have ended."""
        return os.getpid() == self._owner and not self._ending and self._starts <= MOST_STARTS

    def start(self) -> None:
        """Start the helper now, so that the first question does not wait for it.  Raises OSError."""
        with self._lock:
            if self._process is None:
                self._begin()

    def watch(self, session: int, tasks: list[dict[str, Any]]) -> None:
        """Let the helper watch tasks, and any helper after it.  Raises HelperLost."""
        line = json.dumps({"op": "watch", "tasks": tasks})
        with self._lock:
            self._watches.setdefault(session, []).append(line)
            self._tell(line, recorded=True)

    def serve(self, tasks: list[dict[str, Any]]) -> None:
        """Name the tasks whose results are taken from the journal.  Raises HelperLost."""
        if tasks:
            with self._lock:
                self._tell(json.dumps({"op": "serve", "tasks": tasks}))

    def find(self, keys: list[str]) -> dict[str, Any]:
        """Return what is kept for these keys.  Raises HelperLost."""
        return self._ask("find", keys=keys)

    def kept(self, keys: list[str]) -> dict[str, Any]:
        """As ``find``, once what is finished is kept.  Raises HelperLost."""
        return self._ask("kept", keys=keys)

    def close(self, session: int) -> None:
        """Return once the finished results of a session are kept.  Raises HelperLost."""
        self.release()
        self._ask("close", session=session)
        with self._lock:
            self._watches.pop(session, None)

    def release(self) -> None:
        """Hand over the objects that the script does not need any more.  Raises HelperLost."""
        objects = []
        while self.unkept:
            objects.append(self.unkept.popleft())
        if objects:
            with self._lock:
                self._tell(json.dumps({"op": "unkeep", "objects": objects}))

    def end(self) -> None:
        """Let the helper end, and wait for it."""
        with self._lock:
            self._ending = True
            process = self._process
        if process and process.stdin and os.getpid() == self._owner:
            process.stdin.close()
            try:
                process.wait(self._silent_s)
            except subprocess.TimeoutExpired:
                process.kill()

    def _ask(self, op: str, **fields: Any) -> dict[str, Any]:
        with self._asking:
            number = next(self._numbers)
            self._question = json.dumps({"op": op, "n": number, **fields})
            try:
                with self._lock:
                    self._tell(self._question, recorded=True)
                for _ in range(2):
                    try:
                        while (answer := self._answers.get(timeout=self._silent_s))["n"] != number:
                            if not self.usable:
                                raise HelperLost("it ended again and again")
                    except queue.Empty:
                        self._kill()
                    else:
                        return answer
                raise HelperLost(f"it did not answer within {2 * self._silent_s:.0f} s")
            finally:
                self._question = ""

    def _tell(self, line: str, *, recorded: bool = False) -> None:
        """Send a line to the helper; start one if there is none.

        A new helper gets all earlier watches and the open question first.  ``recorded``: the line is one of
        these, so it is not sent twice.
        """
        if not self.usable:
            raise HelperLost("it ended again and again")
        if self._process is None:
            self._begin()
            if recorded:
                return
        self._write(line)

    def _write(self, line: str) -> None:
        """Write a line to the helper; end a helper that does not read it in time, and one follows."""
        assert self._process
        assert self._process.stdin
        rest, pipe = memoryview(line.encode() + b"\n"), self._process.stdin.fileno()
        ready = select.poll()
        ready.register(pipe, select.POLLOUT)
        while rest:
            if not ready.poll(self._silent_s * 1000):
                self._process.kill()
                return
            try:
                rest = rest[os.write(pipe, rest) :]
            except BlockingIOError:
                continue
            except OSError:
                return  # it has ended: the next one is told the same

    def _begin(self) -> None:
        """Start a helper, and tell it what the one before knew."""
        self._starts += 1
        switches = {"RAIN_DEPLOY_SCRIPT", "RAIN_DEPLOY_COMPANION"}
        env = {name: value for name, value in os.environ.items() if name not in switches}
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env
            )
        assert self._process.stdin
        os.set_blocking(self._process.stdin.fileno(), False)
        for line in itertools.chain(*self._watches.values(), [self._question] if self._question else []):
            self._write(line)
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Take the answers of a helper until it ends, then start another one."""
        try:
            self._take_answers(process)
            with self._lock:
                if process.stdin:
                    process.stdin.close()
                if self.usable:
                    self._begin()
        except Exception:  # noqa: BLE001 - of this thread nobody would hear: who asks is told at once
            self._starts = MOST_STARTS + 1
            process.kill()
        if not self.usable:
            self._answers.put({"n": 0})

    def _take_answers(self, process: subprocess.Popen[bytes]) -> None:
        """Take the answers of a helper until it ends."""
        assert process.stdout
        with open(process.stdout.fileno(), "rb", closefd=False) as lines:
            for line in lines:
                self._answers.put(json.loads(line))
        process.stdout.close()
        process.wait()

    def _kill(self) -> None:
        with self._lock:
            if self._process:
                self._process.kill()
