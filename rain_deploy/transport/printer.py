"""The transport of a dry run: it notes what would be sent where, and opens no socket."""

from __future__ import annotations

from dataclasses import dataclass

from rain_deploy.core.command import Command, CommandResult
from rain_deploy.core.model import Host
from rain_deploy.transport.base import Chunk


@dataclass(frozen=True, slots=True)
class NoForward:
    """A forward that leads nowhere."""

    local_port: int

    def close(self) -> None:
        """Nothing is open."""


class Printer:
    """Implements ``transport.base.Transport``; every command succeeds and says nothing."""

    def __init__(self) -> None:
        self.sent: list[tuple[Host, Command]] = []
        """What would have been sent, in order."""

    def connect(self, host: Host) -> None:
        """Nothing is connected to."""

    def run(
        self,
        host: Host,
        command: Command,
        *,
        on_stdout: Chunk | None = None,  # noqa: ARG002 - part of the protocol
        on_stderr: Chunk | None = None,  # noqa: ARG002 - part of the protocol
    ) -> CommandResult:
        self.sent.append((host, command))
        return CommandResult(exit_status=0, stdout=b"", stderr=b"", duration_s=0.0)

    def forward(self, host: Host, address: str, port: int, *, local_port: int = 0) -> NoForward:  # noqa: ARG002
        return NoForward(local_port)

    def close(self) -> None:
        """Nothing is open."""
