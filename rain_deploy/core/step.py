"""Commands, steps and stages for a host, as values to print or execute.  Quoting happens here."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from rain_deploy.errors import InputError, RainDeployError


@dataclass(frozen=True, slots=True)
class Step:
    """One idempotent change of a host, as POSIX shell text.

    The stage's script runs ``check``: exit 0 means that nothing is to be done.  Else it runs ``act``,
    and then ``verify`` must exit 0.  ``act`` prints progress to either stream.  Steps next to each
    other that are ``parallel`` run at the same time.
    """

    name: str
    act: str
    check: str = "false"
    verify: str = "true"
    parallel: bool = False
    makes: str = ""  # path of a file that is there once the step is done; empty: none that others look for
    sha256: str = ""  # digest of that file, or of what it stands for; empty: it need only exist


@dataclass(frozen=True, slots=True)
class PayloadFile:
    """A file of a stage's payload: ``path`` is relative to the stage's staging directory ``$S``."""

    path: str
    data: bytes
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Stage:
    """Steps for one host, executed over one exec channel with the payload on its stdin as a tar."""

    name: str
    steps: tuple[Step, ...]
    payload: tuple[PayloadFile, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()  # shell variables set, quoted, at the top of the script
    deadline_s: float = 1800.0
    installs: bool = False  # it gets the environment that a host has for its installer


def joined(stages: Iterable[Stage]) -> Stage:
    """Return one stage with the steps of all, which have one name; steps that are ``parallel`` come last."""
    every = tuple(stages)
    steps = [step for stage in every for step in stage.steps]
    return Stage(
        name=every[0].name,
        steps=tuple(sorted(steps, key=lambda step: step.parallel)),
        payload=tuple(file for stage in every for file in stage.payload),
        variables=tuple(variable for stage in every for variable in stage.variables),
        deadline_s=max(stage.deadline_s for stage in every),
        installs=any(stage.installs for stage in every),
    )


@dataclass(frozen=True, slots=True)
class Command:
    """The arguments of one command.

    ``deadline_s`` bounds the whole command; None only for following a run and for the user's own command.
    ``stdin`` is sent whole and then closed; None closes it at once.  ``background``: others on the same
    connection must not wait for its output.
    """

    argv: tuple[str, ...]
    stdin: bytes | None = None
    deadline_s: float | None = 600.0
    background: bool = False

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

    @property
    def complaint(self) -> str:
        """Return the end of what it wrote to stderr."""
        return self.stderr.decode(errors="replace").strip()[-2000:]

    def require(self, error: type[RainDeployError], what: str, node: str | None = None) -> bytes:
        """Return the output.  Raises ``error``, which says ``what`` went wrong, if the command failed."""
        if self.exit_status != 0:
            raise error(f"{what} (exit {self.exit_status})", node=node, details=self.complaint)
        return self.stdout
