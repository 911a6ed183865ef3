"""Runs commands on this machine, where nothing has to be reached."""

import subprocess

from rain_deploy.core.machine import Host
from rain_deploy.core.step import Command, CommandResult
from rain_deploy.errors import Unreachable
from rain_deploy.transport.base import Chunk, Forward


class LocalTransport:
    """Run commands as children of this process, whatever host they are for."""

    def connect(self, host: Host) -> None:
        """Do nothing: this machine is always reachable."""

    def run(
        self, host: Host, command: Command, *, on_stdout: Chunk | None = None, on_stderr: Chunk | None = None
    ) -> CommandResult:
        """Run ``command``; ``on_stdout`` and ``on_stderr`` are called once, when it has ended."""
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
        stdout, stderr = b"" if on_stdout else done.stdout, b"" if on_stderr else done.stderr
        return CommandResult(done.returncode, stdout, stderr)

    def forward(self, host: Host, address: str, port: int, *, local_port: int = 0) -> Forward:  # noqa: ARG002
        """Refuse: a port of this machine needs no forward."""
        raise Unreachable(f"{address}:{port} is on this machine and needs no forward", node=host.name)

    def close(self) -> None:
        """Do nothing: nothing is open."""
