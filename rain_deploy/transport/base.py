"""The protocol of a transport: run a command on a host, forward a port."""

from collections.abc import Callable
from typing import Protocol

from rain_deploy.core.machine import Host
from rain_deploy.core.step import Command, CommandResult

Chunk = Callable[[bytes], None]  # receives bytes as they arrive, on the thread that called ``run``


class Forward(Protocol):
    """A port on 127.0.0.1 of this machine that leads to a host."""

    @property
    def local_port(self) -> int: ...

    def close(self) -> None: ...


class Transport(Protocol):
    """Keeps one connection per host, opened when it is first needed, and shared by all threads."""

    def connect(self, host: Host) -> None:
        """Connect unless connected.  Raises HostKeyError, Unreachable."""

    def run(
        self, host: Host, command: Command, *, on_stdout: Chunk | None = None, on_stderr: Chunk | None = None
    ) -> CommandResult:
        """Run ``command`` and return its result, whatever its exit status.

        Output goes to ``on_stdout`` and ``on_stderr`` where they are given, and else into the result.
        Raises HostKeyError (unknown or changed key), Unreachable (no connection, login refused, connection
        lost, no exit status, deadline passed), InputError (a NUL byte in an argument).
        """

    def forward(self, host: Host, address: str, port: int, *, local_port: int = 0) -> Forward:
        """Listen on 127.0.0.1:``local_port`` (0: any free port) and forward to ``address:port``.

        Raises HostKeyError, Unreachable, InputError (the local port is taken).
        """

    def close(self) -> None:
        """Close every connection.  Safe to call twice."""
