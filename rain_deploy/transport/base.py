"""The protocol of a transport: run a command on a host, forward a port.  It knows no meaning of commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from rain_deploy.core.command import Command, CommandResult
from rain_deploy.core.machine import Host

Chunk = Callable[[bytes], None]
"""Receives bytes as they arrive, on the calling thread of ``run``."""


class Forward(Protocol):
    """A listening port on loopback here that leads to a host."""

    @property
    def local_port(self) -> int: ...

    def close(self) -> None: ...


class Transport(Protocol):
    """Connections are opened when first needed, kept per host, and used by many threads at once."""

    def connect(self, host: Host) -> None:
        """Connect if there is no connection.  Raises HostKeyError, Unreachable."""

    def run(
        self,
        host: Host,
        command: Command,
        *,
        on_stdout: Chunk | None = None,
        on_stderr: Chunk | None = None,
    ) -> CommandResult:
        """One exec channel.

        With ``on_stdout``/``on_stderr`` given, bytes go there and not into the result.  Any exit status is
        a result.  Raises HostKeyError (unknown or changed key), Unreachable (no connection, login
        refused, connection lost, no exit status, deadline passed).
        """

    def forward(self, host: Host, address: str, port: int, *, local_port: int = 0) -> Forward:
        """Listen on 127.0.0.1:``local_port`` (0: any free) and lead each connection to ``address:port``."""

    def close(self) -> None:
        """Close every connection.  Safe to call twice."""
