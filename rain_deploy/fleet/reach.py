"""First contact with hosts: waits, up to a deadline, for machines that may still be booting."""

from __future__ import annotations

import time
from collections.abc import Callable

from rain_deploy.core.machine import Facts, Host
from rain_deploy.core.step import Command
from rain_deploy.errors import HostKeyError, InstallFailed, Unreachable
from rain_deploy.fleet.fanout import Outcomes, fan_out
from rain_deploy.parts.facts import parse_facts
from rain_deploy.transport.base import Transport

WAITING_S = 10.0
PAUSE_S = 1.0
"""Pause between two tries of a host that does not answer yet."""


def meet(transport: Transport, hosts: tuple[Host, ...]) -> None:
    """Connect to all hosts before anything is done on any.  Raises HostKeyError if one has a wrong key.

    A host that does not answer is left to the work that follows.
    """
    for error in fan_out(hosts, transport.connect).errors.values():
        if isinstance(error, HostKeyError):
            raise error


def gather_facts(
    transport: Transport,
    hosts: tuple[Host, ...],
    question: Callable[[Host], Command],
    *,
    wait_s: Callable[[Host], float] = lambda _: 0.0,
    waiting: Callable[[Host, str], None] = lambda _host, _why: None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Outcomes[Facts]:
    """Return the facts of every host, over one exec channel each.

    An unreachable host is tried again for ``wait_s``: a machine that we made may still be booting.  After
    WAITING_S ``waiting`` is called, once per host.  A wrong host key is never tried again.
    """
    began_s = clock()

    def one(host: Host) -> Facts:
        reported = False
        while True:
            try:
                result = transport.run(host, question(host))
            except Unreachable as error:
                if clock() + PAUSE_S > began_s + wait_s(host):
                    raise
                if not reported and clock() > began_s + WAITING_S:
                    reported = True
                    waiting(host, error.message)
                pause(PAUSE_S)
                continue
            if result.exit_status != 0:
                raise InstallFailed(
                    f"its facts could not be read (exit {result.exit_status})",
                    node=host.name,
                    details=result.stderr.decode(errors="replace")[-2000:],
                )
            return parse_facts(host, result.stdout.decode(errors="replace"))

    return fan_out(hosts, one)
