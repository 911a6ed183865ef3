"""Commands that a test starts, signals and waits for: real processes, forked by one that has imported all.

A driver writes one request a line to ``python -m tests.faults.matrix_commands`` and reads one number a line:
a process id for an order, an exit status for a process id.  Time in a command runs ``HASTE`` times faster
than here, so its deadlines are about the product's own and end soon.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from rain_deploy.cli.app import Application
from rain_deploy.cli.main import VERBS, main
from rain_deploy.providers.exoscale.api import Api
from rain_deploy.providers.exoscale.patience import Patience
from tests.faults.composition import application
from tests.faults.matrix_transport import MatrixTransport

ROOT = Path(__file__).resolve().parents[2]
HASTE = 60.0
DEADLINES = {"api_s": 90.0, "settle_s": 40.0, "operation_s": 120.0}
"""Of ``Patience``, where an order has no other."""
WRITES = {"sqlite3.connect", "os.link", "os.rename", "os.remove"}
"""Python's audit events: before each transaction of the state, and where a file appears or goes."""
DEADLINE_S = 40
"""Of a command, in seconds of this machine; SIGALRM ends it, which no test expects."""


@dataclass(frozen=True, slots=True)
class Order:
    """A command line, and the world that it finds."""

    words: tuple[str, ...]
    home: str
    machines: str
    """Directory of the machines that it can reach."""
    environ: Mapping[str, str]
    patience: Mapping[str, float] = field(default_factory=dict)
    """Deadlines of ``Patience``, in the command's own seconds."""
    killed_at_write: int = 0
    """SIGKILL instead of the n-th change of the home's files (``WRITES``); 0: never."""
    largest_file_bytes: int = 0
    """No file may become larger, as on a full disk; 0: no limit."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended: its exit code, or the negative number of the signal that ended it."""

    words: tuple[str, ...]
    status: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"{' '.join(self.words)} ended with {self.status}:\n{self.out}\n{self.err}"


@dataclass(frozen=True, slots=True)
class Running:
    """A command that was started."""

    commands: Commands
    order: Order
    pid: int
    said: tuple[Path, Path]

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self) -> Done:
        """Its end, which its deadline brings at the latest."""
        status = self.commands.ask({"wait": self.pid})
        out, err = (path.read_text(errors="replace") for path in self.said)
        return Done(self.order.words, status, out, err)


class Commands:
    """The process that forks them."""

    def __init__(self) -> None:
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.matrix_commands"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, order: Order, said: Path) -> Running:
        """Start one, others may run beside it; what it says is kept in the directory ``said``."""
        self._count += 1
        out, err = (said / f"{self._count}.{name}" for name in ("out", "err"))
        asked = {"order": dataclasses.asdict(order), "out": str(out), "err": str(err)}
        return Running(self, order, self.ask(asked), (out, err))

    def ask(self, request: Mapping[str, object]) -> int:
        """One request, one number."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def _hasty(deadlines: Mapping[str, float]) -> Patience:
    return Patience(
        clock=lambda: time.monotonic() * HASTE,
        pause=lambda seconds: time.sleep(seconds / HASTE),
        **{**DEADLINES, **deadlines},
    )


def _application(order: Order) -> Application:
    return application(
        order.environ,
        MatrixTransport(Path(order.machines)),
        lambda account, notice: Api(account, patience=_hasty(order.patience), notice=notice),
    )


def _die_at_write(number: int) -> None:
    seen = 0

    def watch(event: str, _arguments: object) -> None:
        nonlocal seen
        if event in WRITES:
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def _obey(order: Order, out: str, err: str) -> NoReturn:
    """In the child: become the command."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests run under nohup
    signal.alarm(DEADLINE_S)
    for stream, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(order.environ)
    os.chdir(order.home)
    sys.argv = ["rain-deploy", *order.words]
    if order.killed_at_write:
        _die_at_write(order.killed_at_write)
    if order.largest_file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order.largest_file_bytes, resource.RLIM_INFINITY))
    main(_application(order))


def _import_all() -> None:
    """What the commands import when they need it."""
    verbs = ("up", "scale", "down", "gc", "status")
    rest = ("cli.log", "cli.show.progress", "cli.show.envelope", "options.provider", "options.toml")
    commands = (f"cli.commands.{VERBS[verb][0]}" for verb in verbs)
    for module in (*commands, *(f"verbs.{verb}" for verb in verbs), *rest):
        importlib.import_module(f"rain_deploy.{module}")
    importlib.import_module("exoscale.api.v2")


def _serve() -> None:
    _import_all()
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            _, status = os.waitpid(asked["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        child = os.fork()
        if child == 0:
            _obey(Order(**asked["order"]), asked["out"], asked["err"])
        print(child, flush=True)


if __name__ == "__main__":
    _serve()
