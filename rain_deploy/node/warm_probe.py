"""The supervisor's side of ``probe``: the import of Rain's client is over before a run needs it."""

from __future__ import annotations

import contextlib
import json
import subprocess

from .config import NodeConfig


class WarmProbe:
    """A ``probe`` process that has imported Rain and waits for its question."""

    def __init__(self, config: NodeConfig) -> None:
        argv = [config.python, str(config.code), "probe", "--warm"]
        env = config.environment("probe", config.server_dir)
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
        """``address:port`` of those that were registered; none without an answer."""
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
