"""The fake way to machines, whose server node can be taught what it answers about runs."""

from __future__ import annotations

import json
from pathlib import Path

from rain_deploy.core.machine import Host
from rain_deploy.core.step import Command, CommandResult
from rain_deploy.transport.base import Chunk
from tests.faults.fake_transport import FakeTransport

READY = {"services": {"governor": 1, "supervisor": 1}, "governor": {"ready": True}, "runs": []}
"""What a node that is well says of itself."""


def teach(machines: Path, verb: str, answer: object) -> None:
    """From now on a verb of the node code is answered with this on all machines; None: it fails."""
    (machines / f".{verb}.answer").write_text(json.dumps(answer))


class TaughtTransport(FakeTransport):
    """Implements the transport."""

    def __init__(self, machines: Path) -> None:
        super().__init__(machines)
        self._machines = machines

    def run(
        self,
        host: Host,
        command: Command,
        *,
        on_stdout: Chunk | None = None,
        on_stderr: Chunk | None = None,
    ) -> CommandResult:
        """What was taught, else as the fake has it."""
        answer = self._taught(command)
        if answer is None:
            return super().run(host, command, on_stdout=on_stdout, on_stderr=on_stderr)
        self.connect(host)
        if answer == b"null":
            return CommandResult(1, b"", b"it cannot be done")
        return CommandResult(0, answer, b"")

    def _taught(self, command: Command) -> bytes | None:
        verb = command.argv[4] if len(command.argv) > 4 else ""
        try:
            return (self._machines / f".{verb}.answer").read_bytes()
        except (FileNotFoundError, OSError):
            return json.dumps(READY).encode() if verb == "status" else None
