"""The transport over SSH: fabric and paramiko, one connection per host, kept and shared by threads."""

from __future__ import annotations

import dataclasses
import threading
import time

from rain_deploy.core.command import Command, CommandResult
from rain_deploy.core.machine import Host
from rain_deploy.errors import InputError, Unreachable
from rain_deploy.transport.base import Chunk
from rain_deploy.transport.ssh_connect import closing_after, who
from rain_deploy.transport.ssh_exchange import LOST, NoExitStatusError, exchange
from rain_deploy.transport.ssh_forward import PortForward
from rain_deploy.transport.ssh_link import OPEN_S, Link

CONNECT_S = 15.0
STUCK_S = 5.0
"""A command past its deadline by this much has a connection that blocks; it is closed under it."""


class SshTransport:
    """Implements ``transport.base.Transport``; ``connect_s`` bounds each login, banner included."""

    def __init__(self, *, connect_s: float = CONNECT_S) -> None:
        self._connect_s = connect_s
        self._links: dict[Host, Link] = {}
        self._forwards: list[PortForward] = []
        self._lock = threading.Lock()

    def connect(self, host: Host) -> None:
        self._link(host).reach()

    def run(
        self,
        host: Host,
        command: Command,
        *,
        on_stdout: Chunk | None = None,
        on_stderr: Chunk | None = None,
    ) -> CommandResult:
        out, err = bytearray(), bytearray()
        started = time.monotonic()
        try:
            status = self._run(host, command, on_stdout or out.extend, on_stderr or err.extend)
        except TimeoutError as error:
            message = f"{who(host)}: the command did not end within {command.deadline_s:g} s"
            raise Unreachable(message, node=host.name) from error
        except NoExitStatusError as error:
            message = f"{who(host)}: the command has no exit status: it was killed or the connection was lost"
            raise Unreachable(message, node=host.name) from error
        return CommandResult(status, bytes(out), bytes(err), time.monotonic() - started)

    def forward(self, host: Host, address: str, port: int, *, local_port: int = 0) -> PortForward:
        link = self._link(host)
        link.reach()  # a host that cannot be reached is an error now, not of each connection later
        forward = PortForward(lambda: link.tunnel(address, port), local_port)
        with self._lock:
            self._forwards.append(forward)
        return forward

    def close(self) -> None:
        with self._lock:
            links, self._links = tuple(self._links.values()), {}
            forwards, self._forwards = tuple(self._forwards), []
        for forward in forwards:
            forward.close()
        for link in links:
            link.close()

    def _run(self, host: Host, command: Command, on_stdout: Chunk, on_stderr: Chunk) -> int:
        line = _encoded(command)
        deadline = None if command.deadline_s is None else time.monotonic() + command.deadline_s
        with self._link(host).session(deadline) as channel:
            give_up = channel.get_transport().close
            with closing_after((command.deadline_s or OPEN_S) + STUCK_S, give_up) as watchdog:
                try:
                    channel.exec_command(line)
                except LOST as error:
                    raise NoExitStatusError from error
                if deadline is None:
                    watchdog.cancel()
                return exchange(channel, command.stdin, deadline, on_stdout, on_stderr)

    def _link(self, host: Host) -> Link:
        """The one connection to this machine and login; a jump host's is shared by all behind it."""
        through = self._link(_last_jump(host)) if host.jumps else None
        key = dataclasses.replace(host, cluster_address=None, base=None, installer_env=())
        with self._lock:
            return self._links.setdefault(key, Link(host, through, self._connect_s))


def _last_jump(host: Host) -> Host:
    """The jump host next to ``host``, as a host behind the jumps before it."""
    *before, jump = host.jumps
    return Host(
        name=f"jump host {jump.address}",
        address=jump.address,
        port=jump.port,
        user=jump.user,
        host_keys=jump.host_keys,
        identity_files=jump.identity_files,
        use_agent=host.use_agent,
        jumps=tuple(before),
    )


def _encoded(command: Command) -> bytes:
    line = command.line()
    if "\0" in line:
        raise InputError("an argument of a remote command holds a NUL byte, which no shell can carry")
    return line.encode("utf-8", "surrogateescape")
