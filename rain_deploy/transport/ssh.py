"""The transport over SSH: one connection per host, kept and shared by threads; one channel per command.

fabric opens and holds the connections.  Channels are opened below it, on paramiko's transport, because
fabric's methods take no deadline for that.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rain_deploy.core.machine import Host
from rain_deploy.core.step import Command, CommandResult
from rain_deploy.errors import Unreachable
from rain_deploy.transport.base import Chunk
from rain_deploy.transport.channel import LOST, OPEN_S, PortForward, execute, hang_up, seconds_left
from rain_deploy.transport.connection import open_connection
from rain_deploy.transport.frame import Frame

if TYPE_CHECKING:
    import fabric
    import paramiko

    _Work = Callable[[fabric.Connection, float], Any]

PROHIBITED = 1  # RFC 4254: the server's answer to a channel that its settings forbid
BACKGROUND_WINDOW_BYTES = 128 * 1024
"""So much output may be on its way before that of other commands: one second at 1 Mbit/s."""
MAX_SESSIONS = 10  # how many commands at once an OpenSSH server allows on one connection by default
REFUSED_PAUSES_S = (0.02, 0.05, 0.1, 0.2, 0.5)


class SshTransport:
    """Implements ``transport.base.Transport``; ``connect_s`` bounds each login."""

    def __init__(self, *, connect_s: float = 15.0) -> None:
        self._connect_s = connect_s
        self._links: dict[Host, Link] = {}
        self._forwards: list[PortForward] = []
        self._lock = threading.Lock()

    def connect(self, host: Host) -> None:
        self._link(host).live()

    def run(
        self, host: Host, command: Command, *, on_stdout: Chunk | None = None, on_stderr: Chunk | None = None
    ) -> CommandResult:
        command.line()  # an argument that cannot be sent is an error before anything is opened
        return self._link(host).run(command, on_stdout, on_stderr)

    def forward(self, host: Host, address: str, port: int, *, local_port: int = 0) -> PortForward:
        link = self._link(host)
        link.check_forwarding(address, port)  # an error now, and not later for each connection
        forward = PortForward(lambda: link.dial(address, port), local_port)
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

    def _link(self, host: Host) -> Link:
        """Return the link to this machine and login; hosts behind a jump host share the jump host's."""
        jump = None
        if host.jumps:
            *before, last = host.jumps
            name, agent = f"jump host {last.address}", host.use_agent
            jump = self._link(Host(name, **dataclasses.asdict(last), use_agent=agent, jumps=tuple(before)))
        key = dataclasses.replace(host, cluster_address=None, base=None, installer_env=())
        with self._lock:
            return self._links.setdefault(key, Link(host, jump, self._connect_s))


class Link:
    """The one connection to a host, through ``jump``: opened when first needed, and again when it is dead."""

    def __init__(self, host: Host, jump: Link | None, connect_s: float) -> None:
        self._host = host
        self._jump = jump
        self._connect_s = connect_s
        self._kept: fabric.Connection | None = None
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._sessions = threading.BoundedSemaphore(MAX_SESSIONS)

    def run(self, command: Command, on_stdout: Chunk | None, on_stderr: Chunk | None) -> CommandResult:
        """Do what ``Transport.run`` promises; wait while the server's limit of sessions is reached."""
        host, out, err = self._host, bytearray(), bytearray()
        deadline = None if command.deadline_s is None else time.monotonic() + command.deadline_s
        frame = Frame(command.line(), on_stdout or out.extend, on_stderr or err.extend)
        try:
            while not self._sessions.acquire(timeout=seconds_left(deadline)):
                pass  # the next look at the deadline raises
            try:
                # The server may still count a session that has just ended, so it is asked again.
                window = BACKGROUND_WINDOW_BYTES if command.background else None
                channel: paramiko.Channel = self._open(
                    lambda used, s: used.transport.open_session(window_size=window, timeout=s),
                    *("refuses another session", deadline, REFUSED_PAUSES_S),
                )
                status = execute(channel, command, frame, deadline)
            finally:
                self._sessions.release()
        except TimeoutError as error:
            if frame.refused:
                raise frame.not_run(host) from error
            message = f"{host.title}: the command did not end within {command.deadline_s:g} s"
            raise Unreachable(message, node=host.name) from error
        return CommandResult(frame.exit_status(host, status), bytes(out), bytes(err))

    def dial(self, address: str, port: int) -> paramiko.Channel:
        """Open a TCP connection from this host to ``address:port``.  Raises HostKeyError, Unreachable."""
        channel: paramiko.Channel = self._open(
            lambda used, s: used.transport.open_channel("direct-tcpip", (address, port), ("", 0), timeout=s),
            f"cannot connect to {address} port {port}",
        )
        return channel

    def check_forwarding(self, address: str, port: int) -> None:
        """Raise Unreachable if the host forbids forwarding to this port; nothing need listen there yet."""
        self.live()
        try:
            hang_up(self.dial(address, port))
        except Unreachable as error:
            if getattr(error.__cause__, "code", None) == PROHIBITED:
                host = self._host
                raise Unreachable(
                    f"{host.title}: its SSH server does not let {host.user} forward to {address} port {port}",
                    node=host.name,
                    next_step="allow it there: AllowTcpForwarding, PermitOpen and DisableForwarding in "
                    "sshd_config, and options of the key in authorized_keys",
                ) from error

    def live(self) -> fabric.Connection:
        """Return the connection, open; threads that come together share one login."""
        with self._lock:
            if self._kept is None or not self._kept.is_connected:
                if self._closed.is_set():  # a command that was interrupted waits for no login
                    message = f"{self._host.title}: the connection was closed"
                    raise Unreachable(message, node=self._host.name)
                host, jump, connect_s = self._host, self._jump, self._connect_s
                if jump is None:
                    self._kept = open_connection(host, None, connect_s)
                else:
                    self._kept = jump._open(  # noqa: SLF001
                        lambda gateway, _: open_connection(host, gateway, connect_s),
                        f"cannot connect to {host.address} port {host.port}",
                    )
                if self._closed.is_set():  # meanwhile, by a command that was interrupted
                    self._kept.client.close()
            return self._kept

    def close(self) -> None:
        """Close the connection for good; a login in progress is not waited for.  Safe to call twice."""
        self._closed.set()
        if (kept := self._kept) is not None:
            kept.client.close()

    def _drop(self, dead: fabric.Connection) -> None:
        """Close a dead connection, so that the next use opens another."""
        with self._lock:
            if dead is self._kept:
                self._kept = None
        dead.client.close()

    def _open(
        self, work: _Work, refusal: str, deadline: float | None = None, pauses_s: tuple[float, ...] = ()
    ) -> Any:
        """Return what ``work`` opens on the live connection, within the seconds that it is given.

        A dead connection is replaced once.  A host that lives and refuses is asked again after each of
        ``pauses_s``.  Only the opening is repeated: no command runs twice.
        """
        pauses, renewals = iter(pauses_s), iter((0.0,))
        while True:
            used, timeout_s = self.live(), min(OPEN_S, seconds_left(deadline) or OPEN_S)
            try:
                return work(used, timeout_s)
            except LOST as error:
                # paramiko keeps one exception for all threads, so the type of a refusal can get lost.
                if used.is_connected and "Timeout" not in str(error):
                    problem, pause_s = refusal, next(pauses, None)
                else:
                    problem, pause_s = "lost the SSH connection", next(renewals, None)
                    self._drop(used)
                    seconds_left(deadline)
                if pause_s is None:
                    problem = f"{self._host.title} {problem}: {error}"
                    raise Unreachable(problem, node=self._host.name) from error
            time.sleep(pause_s)
