"""A remote command and its result.  Quoting happens here and nowhere else."""

from __future__ import annotations

import shlex
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """An argument vector for one exec channel.

    ``deadline_s`` bounds the whole command, ``None`` only for what follows a run and the user's own command.
    ``stdin`` is sent whole and then closed; ``None`` closes it at once.
    """

    argv: tuple[str, ...]
    stdin: bytes | None = None
    deadline_s: float | None = 600.0

    def line(self) -> str:
        """The text that is sent to the remote shell."""
        return shlex.join(self.argv)


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a finished command left.  A command without an exit status is not a result but an error."""

    exit_status: int
    stdout: bytes
    stderr: bytes
    duration_s: float
