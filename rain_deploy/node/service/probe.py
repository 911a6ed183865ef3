"""``probe``: asks a server for its governors, through Rain's own client."""

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
    """Ask as the arguments say; with ``warm``, import Rain first and read the arguments from stdin.

    A warm probe is started before a run, so that the run does not wait for the import.
    """
    if warm:
        import rain.client  # noqa: F401, PLC0415 - for its effect, and only here

        words = sys.stdin.readline().split()
        if not words:
            return 0  # its parent is gone, or needs no answer any more
        host, port, expect, deadline_s = words[0], int(words[1]), int(words[2]), float(words[3])
    return probe(host, port, expect=expect, deadline_s=deadline_s)


def probe(host: str, port: int, *, expect: int, deadline_s: float) -> int:
    """Print ``{"governors": […]}`` once ``expect`` are registered, or at the deadline.

    Returns 0 if all are registered, else 1.
    """
    # A call of Rain's client has no deadline and blocks the interpreter, so the kernel ends the process.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, deadline_s + 2)
    deadline = time.monotonic() + deadline_s
    governors: list[dict[str, Any]] = []
    client: Any = None
    while True:
        try:
            if client is None:
                import rain.client  # noqa: PLC0415 - takes 0.2 s, and no other verb needs it

                client = rain.client.Client(host, port)
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


class WarmProbe:
    """A ``probe`` process that has imported Rain and waits to be asked."""

    def __init__(self, config: NodeConfig) -> None:
        argv = [config.python, str(config.code), "probe", "--warm"]
        env = environment(config, "probe", config.server_dir)
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(argv, stdin=pipe, stdout=pipe, env=env, start_new_session=True)

    def ask(self, host: str, port: int, expect: int, deadline_s: float) -> None:
        """Ask once.  The answer can be read when ``answered`` returns True."""
        assert self._child.stdin
        with contextlib.suppress(OSError):
            self._child.stdin.write(f"{host} {port} {expect} {deadline_s}\n".encode())
            self._child.stdin.close()

    def answered(self) -> bool:
        return self._child.poll() is not None

    def governors(self) -> tuple[str, ...]:
        """Return ``address:port`` of the registered governors; none if there is no answer."""
        assert self._child.stdout
        self._child.kill()
        answer = self._child.stdout.read()
        try:
            return tuple(one["governor"] for one in json.loads(answer)["governors"])
        except (ValueError, KeyError):
            return ()

    def close(self) -> None:
        """End the process, whether or not it was asked."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe
            with contextlib.suppress(OSError):
                pipe.close()
