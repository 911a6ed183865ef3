"""Commands without the second that each needs to import: one process imports all, and forks for each.

A driver starts ``python -m tests.faults.zygote`` through ``Zygote``, writes one order a line, and reads one
exit status a line.  A fork is safe here: that process has one thread, and never runs a command
itself.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rain_deploy.cli.app import Application
from rain_deploy.cli.main import VERBS, main
from rain_deploy.core.cluster import Node
from rain_deploy.core.machine import Host
from rain_deploy.parts.facts import facts_command
from rain_deploy.parts.shell import stage_command
from rain_deploy.parts.user_data import FirstBoot
from rain_deploy.parts.user_data import render as user_data
from rain_deploy.providers.exoscale.api import Api
from rain_deploy.providers.exoscale.patience import Patience
from tests.faults.composition import application
from tests.faults.crash_adapter import Calls, Kill, When
from tests.faults.fake_transport import FakeTransport

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60
"""Of a command; SIGALRM ends it."""
HASTE = 25
"""How much faster than a patient program this one asks again."""


@dataclass(frozen=True, slots=True)
class Order:
    """A command line, and the world that it finds."""

    words: tuple[str, ...]
    home: str
    machines: str
    """Directory of the machines that it can reach."""
    environ: Mapping[str, str]
    kill: Kill | None = None
    settle_s: float = 0.0
    """For how long lists may lag."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its exit code, or the negative number of the signal that ended it."""

    status: int
    output: str
    """Of both streams."""


class Zygote:
    """A process that forks commands, one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, order: Order) -> Ended:
        """Run a command to its end."""
        assert self._process.stdin
        assert self._process.stdout
        with tempfile.NamedTemporaryFile(mode="r", errors="replace") as said:
            self._process.stdin.write(json.dumps([dataclasses.asdict(order), said.name]) + "\n")
            self._process.stdin.flush()
            status = int(self._process.stdout.readline())
            return Ended(status, said.read())

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def _application(order: Order) -> Application:
    calls = Calls(order.kill)
    patience = Patience(
        pause=lambda seconds: time.sleep(seconds / HASTE),
        api_s=10.0,
        settle_s=order.settle_s,
        operation_s=20.0,
        source_ip_s=5.0,
    )

    return application(
        order.environ,
        FakeTransport(Path(order.machines)),
        lambda account, notice: Api(account, patience=patience, adapter=calls.adapter, notice=notice),
    )


def _obey(order: Order, said: str) -> NoReturn:
    """In the child: become the command."""
    signal.alarm(DEADLINE_S)
    output = os.open(said, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(order.environ)
    sys.argv = ["rain-deploy", *order.words]
    main(_application(order))


def _prepare() -> None:
    """Import what the commands import when they need it, and compile their templates."""
    for module in (
        *(f"cli.commands.{VERBS[name][0]}" for name in ("up", "scale", "down", "gc")),
        *(f"cli.show.{name}" for name in ("progress", "envelope")),
        *(f"verbs.{name}" for name in ("up", "scale", "down", "gc")),
        "cli.log",
        "options.provider",
        "options.toml",
    ):
        importlib.import_module(f"rain_deploy.{module}")
    importlib.import_module("exoscale.api.v2")
    host = Host("node-1", "127.0.0.1", 22, "me", ())
    boot = FirstBoot(frozenset())
    facts_command(host, "c", route_to=host.address, tools=True)
    stage_command(boot.stage(Node("node-1", host)), "/base")
    user_data(host_key_private="", host_key_public="", limit_s=None, idle_s=None)
    gc.freeze()


def _serve() -> None:
    _prepare()
    for line in sys.stdin:
        told, said = json.loads(line)
        kill = Kill(**{**told["kill"], "when": When(told["kill"]["when"])}) if told["kill"] else None
        child = os.fork()
        if child == 0:
            _obey(Order(**{**told, "kill": kill}), said)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
