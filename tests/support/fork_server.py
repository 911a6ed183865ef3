"""Commands without the second that each needs to import: one process imports all of them, and forks for each.

A fork is safe here: that process has one thread, and never runs a command itself.  Who starts a command gets
something like a ``subprocess.Popen``: a process with streams, a directory and an environment of its own, in a
session of its own, which can be signalled and waited for.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
NOT_COMMANDS = ("rain_deploy.node", "rain_deploy.companion", "rain_deploy.providers.local.node")
"""What runs on nodes and in users' processes; commands do not import it."""


class Forked:
    """A command that was forked, as a ``Popen``."""

    def __init__(self, news: int, args: Sequence[str]) -> None:
        self.args = args
        self.returncode: int | None = None
        self._news = open(news, encoding="ascii")  # noqa: SIM115 - until its end is known
        self.pid = int(self._news.readline())

    def poll(self) -> int | None:
        """Return the exit code, or minus the signal that ended it, or None as long as it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def _look(self, timeout_s: float | None) -> int | None:
        if self.returncode is None and select.select([self._news], [], [], timeout_s)[0]:
            with self._news as news:
                self.returncode = int(news.readline())
        return self.returncode


class ForkServer:
    """The process that forks commands; any thread may ask it."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__], cwd=ROOT, stdin=theirs.fileno()
            )
        self._lock = threading.Lock()

    def start(
        self,
        function: str,
        args: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdout: int,
        stderr: int,
        **keywords: Any,
    ) -> Forked:
        """Fork a command: ``module:function`` is called with the keywords; ``args`` are its ``sys.argv``."""
        order = {"function": function, "args": list(args), "cwd": str(cwd), "env": dict(env)}
        told = json.dumps({**order, "keywords": keywords}).encode() + b"\n"
        mine, its = os.pipe()
        with self._lock:
            sent = socket.send_fds(self._orders, [told], [its, stdout, stderr])
            self._orders.sendall(told[sent:])
        os.close(its)
        return Forked(mine, args)

    def close(self) -> None:
        """End it; commands that run go on."""
        self._orders.close()
        self._process.wait(timeout=10)


@functools.cache
def fork_server() -> ForkServer:
    """Return the fork server of this process."""
    server = ForkServer()
    atexit.register(server.close)
    return server


# ---- in the server


def _modules() -> Iterator[str]:
    import rain_deploy  # noqa: PLC0415

    def walk(path: Sequence[str], prefix: str) -> Iterator[str]:
        for found in pkgutil.iter_modules(path, prefix):
            if found.name not in NOT_COMMANDS:
                yield found.name
                if found.ispkg:
                    yield from walk(importlib.import_module(found.name).__path__, f"{found.name}.")

    return walk(rain_deploy.__path__, "rain_deploy.")


def _become(order: dict[str, Any], news: int, stdout: int, stderr: int) -> NoReturn:
    """Call what was ordered, in a child."""
    os.setsid()
    for number in (signal.SIGHUP, signal.SIGCHLD):  # as if nobody had ignored them
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.write(news, f"{os.getpid()}\n".encode())
    for stream, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), stdout, stderr)):
        os.dup2(descriptor, stream)
        os.close(descriptor)
    os.close(news)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    sys.argv = order["args"]
    # As Python itself opens them:
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1, errors="backslashreplace")  # noqa: SIM115
    module, _, name = order["function"].partition(":")
    getattr(importlib.import_module(module), name)(**order["keywords"])
    sys.exit(0)


class _Server:
    """Forks what is ordered, and tells the end of every child."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        self._wake, self._waker = socket.socketpair()
        for end in (self._wake, self._waker):
            end.settimeout(0)
        self._news: dict[int, int] = {}

    def serve(self) -> None:
        """Serve until nobody is there to order."""
        signal.set_wakeup_fd(self._waker.fileno())
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        while True:
            ready, _, _ = select.select([self._orders, self._wake], [], [])
            if self._wake in ready:
                self._wake.recv(4096)
                self._report()
            if self._orders in ready:
                told, descriptors, _, _ = socket.recv_fds(self._orders, 1 << 16, 3)
                if not told:
                    return
                while not told.endswith(b"\n"):
                    told += self._orders.recv(1 << 16)
                self._fork(json.loads(told), *descriptors)

    def _fork(self, order: dict[str, Any], news: int, stdout: int, stderr: int) -> None:
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for end in (self._orders, self._wake, self._waker):
                end.close()
            for other in self._news.values():
                os.close(other)
            _become(order, news, stdout, stderr)
        self._news[pid] = news
        os.close(stdout)
        os.close(stderr)

    def _report(self) -> None:
        while self._news:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with contextlib.suppress(BrokenPipeError):  # nobody waits for it
                os.write(self._news[pid], f"{os.waitstatus_to_exitcode(status)}\n".encode())
            os.close(self._news.pop(pid))


def _prepare() -> None:
    """Import what commands import, and do once what each of them would do at its first use."""
    for module in (*_modules(), "exoscale.api.v2"):
        importlib.import_module(module)
    from rain_deploy.core.cluster import Bill, Cluster, Node  # noqa: PLC0415
    from rain_deploy.core.machine import Host, Intent  # noqa: PLC0415
    from rain_deploy.parts.facts import DEBIAN_12  # noqa: PLC0415
    from rain_deploy.parts.shell import render  # noqa: PLC0415
    from rain_deploy.state.store import Store  # noqa: PLC0415
    from tests.support.values import QUOTE  # noqa: PLC0415

    render("limit.timer.j2")  # jinja2 makes its lexer
    node = Node("node-1", Host("node-1", "127.0.0.1", 22, "me", ()), DEBIAN_12, "127.0.0.1", 7301, 2)
    cluster = Cluster("ab12", "demo", "exoscale", 0.0, (node,), bill=Bill(QUOTE))
    with tempfile.TemporaryDirectory() as home:  # cattrs writes functions for each class
        store = Store(Path(home))
        store.save_intent(Intent(cluster.id, cluster.name, "instance", node.name))
        store.save_cluster(cluster)
        store.cluster(cluster.name)
        store.save_facts(node)
    gc.freeze()


if __name__ == "__main__":
    _prepare()
    _Server(socket.socket(fileno=0)).serve()
