"""Commands that a test starts, kills and waits for: all is real but the machines and the pace of time.

They are forked (tests/support/fork_server).  Time in a command runs ``HASTE`` times faster than here, so its
deadlines are the product's own and end soon.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rain_deploy.cli.main import main
from rain_deploy.cli.session import Application
from rain_deploy.cluster.context import Confirm, Context
from rain_deploy.core.events import EventSink, Notice
from rain_deploy.errors import CredentialsError
from rain_deploy.parts.machine import user_data
from rain_deploy.providers.base import Provider
from rain_deploy.providers.exoscale.account import find_account
from rain_deploy.providers.exoscale.api import Api
from rain_deploy.providers.exoscale.patience import Patience
from rain_deploy.providers.exoscale.provider import ExoscaleProvider
from rain_deploy.transport.local import LocalTransport
from rain_deploy.wiring import opened_store
from tests.faults.crash_adapter import Calls, Kill, When
from tests.faults.taught_transport import TaughtTransport
from tests.support.fork_server import Forked, fork_server
from tests.support.processes import wait_until_asleep

HASTE = 60.0
DEADLINES = {"api_s": 90.0, "settle_s": 40.0, "operation_s": 120.0}
"""Of ``Patience``, where an order has no other."""
WRITES = {"sqlite3.connect", "os.link", "os.rename", "os.remove"}
"""Python's audit events: before each transaction of the state, and where a file appears or goes."""
DEADLINE_S = 60
"""Of a command, in seconds of this machine; SIGALRM ends it, which no test expects."""
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Order:
    """A command line, and the world that it finds."""

    words: tuple[str, ...]
    home: str
    machines: str
    """Directory of the machines that it can reach."""
    environ: Mapping[str, str]
    deadlines: Mapping[str, float] = field(default_factory=dict)
    """Of ``Patience``, in the command's own seconds."""
    kill: Kill | None = None
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

    words: tuple[str, ...]
    process: Forked
    said: tuple[Path, Path]

    def signal(self, number: int) -> None:
        """Send it a signal, and wait until it has done what it does about it at once.

        Python handles two signals that wait in the order of their numbers, not of their arrival.
        """
        os.kill(self.process.pid, number)
        wait_until_asleep(self.process.pid)

    def wait(self) -> Done:
        """Wait for its end, which its deadline brings at the latest."""
        status = self.process.wait()
        out, err = (path.read_text(errors="replace") for path in self.said)
        return Done(self.words, status, out, err)


def start(order: Order, said: Path) -> Running:
    """Start a command, others may run beside it; what it says is kept in the directory ``said``."""
    number = next(_numbers)
    files = said / f"{number}.out", said / f"{number}.err"
    with files[0].open("wb") as out, files[1].open("wb") as err:
        process = fork_server().start(
            f"{__name__}:obey",
            ["rain-deploy", *order.words],
            cwd=Path(order.home),
            env=order.environ,
            stdout=out.fileno(),
            stderr=err.fileno(),
            order=dataclasses.asdict(order),
        )
    return Running(order.words, process, files)


# ---- in the child


def obey(order: Mapping[str, Any]) -> None:
    """Become the command."""
    kill = order["kill"]
    told = Order(**{**order, "kill": Kill(**{**kill, "when": When(kill["when"])}) if kill else None})
    signal.alarm(DEADLINE_S)
    if told.killed_at_write:
        _die_at_write(told.killed_at_write)
    if told.largest_file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (told.largest_file_bytes, resource.RLIM_INFINITY))
    main(_application(told))


def _die_at_write(number: int) -> None:
    seen = 0

    def watch(event: str, _arguments: object) -> None:
        nonlocal seen
        if event in WRITES:
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def _application(order: Order) -> Application:
    transport, calls = TaughtTransport(Path(order.machines)), Calls(order.kill)
    own = Patience(lambda: time.monotonic() * HASTE, lambda seconds: time.sleep(seconds / HASTE))
    deadlines: dict[str, Any] = {**DEADLINES, **order.deadlines}
    patience = dataclasses.replace(own, **deadlines)

    @contextlib.contextmanager
    def context(home: Path, emit: EventSink, confirm: Confirm) -> Iterator[Context]:
        @functools.cache
        def provider_for(_name: str) -> Provider:
            account = find_account(order.environ, home=home)
            if account is None:
                raise CredentialsError("no Exoscale credentials are found")
            api = Api(
                account, patience=patience, adapter=calls.adapter, notice=lambda said: emit(Notice(said))
            )
            return ExoscaleProvider(home, api, user_data, owner="nobody")

        yield Context(
            home=home,
            store=opened_store(home, emit),
            transport=transport,
            local=LocalTransport(),
            provider_for=provider_for,
            emit=emit,
            confirm=confirm,
            cwd=home,
            executor=transport.executor,
        )

    return Application(
        make_context=context,
        environ=order.environ,
        credentials=lambda: "the test's environment",
        interactive=False,
        call=lambda _argv: 1,
        browse=lambda _url: None,
        wait=lambda: None,
    )
