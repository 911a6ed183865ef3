"""What a command of test_interrupts does while the signal comes: one function for each kind of wait."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rain_deploy import workers
from rain_deploy.core.machine import Host
from rain_deploy.errors import Unreachable
from rain_deploy.fleet.fanout import fan_out, once_it_answers
from rain_deploy.providers.exoscale.patience import Patience
from rain_deploy.state.store import Store
from rain_deploy.transport.ssh import SshTransport

NEVER_S = 300.0
HOSTS = tuple(Host(f"node-{n}", "127.0.0.1", 22, "me", ("ssh-ed25519 AAAA",)) for n in (1, 2))


def _say(line: str) -> None:
    print(line, flush=True)


def waiting(_home: Path) -> None:
    """The main thread waits."""
    _say("waiting")
    time.sleep(NEVER_S)


def boots(_home: Path) -> None:
    """Machines that never answer are waited for."""

    def refused() -> None:
        raise Unreachable("no")

    _say("waiting")
    fan_out(HOSTS, lambda _: once_it_answers(refused, NEVER_S))


def library(_home: Path) -> None:
    """A library blocks, and takes no notice of anything."""
    _say("waiting")
    fan_out(HOSTS, lambda _: threading.Event().wait(NEVER_S))


def login(_home: Path) -> None:
    """A server accepts the connection and never says who it is; at its end, the command hangs up."""
    transport = SshTransport(connect_s=NEVER_S)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = tuple(dataclasses.replace(host, port=silent.getsockname()[1]) for host in HOSTS)
        _say("waiting")
        try:
            fan_out(hosts, transport.connect)
        finally:
            transport.close()


def cloud(_home: Path) -> None:
    """Threads ask a cloud again and again."""
    patience = Patience()
    _say("waiting")
    workers.results(lambda _: list(patience.rounds(NEVER_S, "it")), HOSTS, 2)


def resolves(_home: Path) -> None:
    """Work in threads has threads of its own, which wait."""
    _say("waiting")
    workers.results(lambda _: workers.results(workers.pause, (NEVER_S, NEVER_S), 2), HOSTS, 2)


def creates(_home: Path) -> None:
    """A call is in flight, and its outcome must be recorded."""

    def create(_host: Host) -> None:
        _say("waiting")
        time.sleep(0.5)
        _say("recorded")

    fan_out(HOSTS[:1], create, finish=True)


def retries(_home: Path) -> None:
    """A call whose outcome must be recorded has none yet, and is tried again and again."""

    def create(_host: Host) -> None:
        for _ in Patience().rounds(NEVER_S, "it"):
            _say("waiting")

    fan_out(HOSTS[:1], create, finish=True)


def searches(_home: Path) -> None:
    """The answer of a call was lost, and what it made is searched for."""

    def find() -> None:
        _say("waiting")

    fan_out(HOSTS[:1], lambda _: Patience().search(find, NEVER_S, "it"), finish=True)


def keeps(home: Path) -> None:
    """The undo has deleted nothing yet."""
    _undone(home, lambda _store: None)


def forgets(home: Path) -> None:
    """The undo has deleted everything, and something else takes its time."""

    def everything(store: Store) -> None:
        store.forget_cluster(store.clusters()[0])

    _undone(home, everything)


def forgets_a_part(home: Path) -> None:
    """The undo has deleted one machine of two."""

    def half(store: Store) -> None:
        store.update_cluster("default", lambda it: dataclasses.replace(it, nodes=it.nodes[:1]))

    _undone(home, half)


def ends_slowly(home: Path) -> None:
    """It ends in order, which takes half a second."""
    try:
        waiting(home)
    finally:
        _say("ending in order")
        time.sleep(0.5)
        _say("ended in order")


def _undone(home: Path, undo: Callable[[Store], object]) -> None:
    try:
        waiting(home)
    finally:
        undo(Store(home))
        _say("ending in order")
        time.sleep(NEVER_S)
