"""``probe``: ask a server for its governors, through Rain's own client."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from typing import Any

from ..wire import NodeConfig
from .process import environment

_POLL_S = 0.02


def answer(host: str, port: int, *, expect: int, deadline_s: float, warm: bool) -> int:
    """Answer the question in the arguments, or with ``warm`` the one on stdin."""
    return warm_probe() if warm else probe(host, port, expect=expect, deadline_s=deadline_s)


def probe(host: str, port: int, *, expect: int, deadline_s: float) -> int:
    """Print ``{"governors": […]}`` once ``expect`` are registered, or at the deadline; 0 or 1."""
    # A call of Rain's client has no deadline and keeps the interpreter: the kernel ends the process.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, deadline_s + 2)
    deadline = time.monotonic() + deadline_s
    governors: list[dict[str, Any]] = []
    client = None
    while True:
        try:
            client = client or _client(host, port)
            governors = [
                {"governor": one["governor_id"], "cpus": one["resources"]["cpus"]}
                for one in client.get_server_info()["governors"]
            ]
        except Exception:  # noqa: BLE001 - Rain's client raises whatever its RPC library raises
            client, governors = None, []
        if len(governors) >= expect or time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)
    print(json.dumps({"governors": governors}), flush=True)
    return 0 if len(governors) >= expect else 1


def warm_probe() -> int:
    """Import Rain first, then read ``host port expect deadline`` from stdin: no import in a run's way."""
    import rain.client  # noqa: F401, PLC0415 - for its effect, and only here

    words = sys.stdin.readline().split()
    if not words:
        return 0  # nobody asks any more
    host, port, expect, deadline_s = words
    return probe(host, int(port), expect=int(expect), deadline_s=float(deadline_s))


def _client(host: str, port: int) -> Any:
    import rain.client  # noqa: PLC0415 - takes 0.2 s, and no other verb needs it

    return rain.client.Client(host, port)


class WarmProbe:
    """A ``probe`` process that has imported Rain and waits for its question."""

    def __init__(self, config: NodeConfig) -> None:
        argv = [config.python, str(config.code), "probe", "--warm"]
        env = environment(config, "probe", config.server_dir)
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(argv, stdin=pipe, stdout=pipe, env=env, start_new_session=True)

    def ask(self, host: str, port: int, expect: int, deadline_s: float) -> None:
        """Ask once; the answer is there when ``answered`` says so."""
        assert self._child.stdin
        with contextlib.suppress(OSError):
            self._child.stdin.write(f"{host} {port} {expect} {deadline_s}\n".encode())
            self._child.stdin.close()

    def answered(self) -> bool:
        return self._child.poll() is not None

    def governors(self) -> tuple[str, ...]:
        """Return ``address:port`` of the governors that were registered; none without an answer."""
        assert self._child.stdout
        self._child.kill()
        answer = self._child.stdout.read()
        try:
            return tuple(one["governor"] for one in json.loads(answer)["governors"])
        except (ValueError, KeyError):
            return ()

    def close(self) -> None:
        """End the process, asked or not."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe
            with contextlib.suppress(OSError):
                pipe.close()
