"""A command for a host, and its result.  Quoting happens here and nowhere else."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from rain_deploy.errors import InputError


@dataclass(frozen=True, slots=True)
class Command:
    """The arguments of one command.

    ``deadline_s`` bounds the whole command; None only for following a run and for the user's own command.
    ``stdin`` is sent whole and then closed; None closes it at once.
    """

    argv: tuple[str, ...]
    stdin: bytes | None = None
    deadline_s: float | None = 600.0

    def line(self) -> str:
        """Return the text for the host's shell.  Raises InputError for a NUL byte."""
        line = shlex.join(self.argv)
        if "\0" in line:
            raise InputError("an argument of a remote command holds a NUL byte, which no shell can carry")
        return line


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The outcome of a finished command.  A command without an exit status is an error, not a result."""

    exit_status: int
    stdout: bytes
    stderr: bytes
