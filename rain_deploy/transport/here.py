"""This machine itself as a transport: for what is asked of it before it has nodes of its own."""

from __future__ import annotations

import subprocess
import time

from rain_deploy.core.command import Command, CommandResult
from rain_deploy.core.machine import Host
from rain_deploy.errors import Unreachable
from rain_deploy.transport.base import Chunk, Forward


class Here:
    """Runs commands as children of this process, whatever host is named."""

    def connect(self, host: Host) -> None:
        """It is always there."""

    def run(
        self,
        host: Host,
        command: Command,
        *,
        on_stdout: Chunk | None = None,
        on_stderr: Chunk | None = None,
    ) -> CommandResult:
        """As ``Transport.run``; output goes to the chunks when the command has ended."""
        started_s = time.monotonic()
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", command.line()],
                input=command.stdin or b"",
                capture_output=True,
                timeout=command.deadline_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Unreachable(f"no answer within {command.deadline_s:g} s", node=host.name) from error
        if done.returncode < 0:
            raise Unreachable(f"the command was killed by signal {-done.returncode}", node=host.name)
        for chunk, data in ((on_stdout, done.stdout), (on_stderr, done.stderr)):
            if chunk and data:
                chunk(data)
        return CommandResult(
            exit_status=done.returncode,
            stdout=b"" if on_stdout else done.stdout,
            stderr=b"" if on_stderr else done.stderr,
            duration_s=time.monotonic() - started_s,
        )

    def forward(
        self,
        host: Host,
        address: str,
        port: int,
        *,
        local_port: int = 0,  # noqa: ARG002 - the protocol's
    ) -> Forward:
        """Nothing here needs to be forwarded."""
        raise Unreachable(f"{address}:{port} is on this machine, no port leads there", node=host.name)

    def close(self) -> None:
        """Nothing is open."""
