"""Turn errors and interrupts into what the user sees, and into an exit code."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from rain_deploy.cli.show import text
from rain_deploy.cli.show.text import echo
from rain_deploy.errors import ExitCode, RainDeployError, UsageError

BROKEN_PIPE = 128 + signal.SIGPIPE
"""The reader of our output has gone; a shell reports a program that died of it so."""


class Stopped(KeyboardInterrupt):
    """A signal came; verbs treat SIGTERM and SIGHUP like Ctrl-C."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


def interrupted(stop: BaseException, message: str, **more: str | None) -> RainDeployError:
    """Return an interrupt as an error, whose exit code is 128 + the signal's number."""
    error = RainDeployError(message, **more)
    error.exit_code = ExitCode(128 + (stop.signum if isinstance(stop, Stopped) else signal.SIGINT))
    return error


def from_click(error: click.ClickException, verb: str = "") -> UsageError:
    """Return click's error about a command line, with where to read on."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    where = context.command_path if context else f"rain-deploy {verb}".strip()
    return UsageError(error.format_message(), next_step=f"{where} --help")


def report(
    error: RainDeployError | None, verb: str, *, json: bool, result: object = None, log: Path | None = None
) -> int:
    """Show ``error`` as text on stderr, or it and ``result`` as one JSON document; return the exit code."""
    code = int(error.exit_code) if error else 0
    shown = str(log) if error and log and log.exists() else None
    if json:
        from rain_deploy.cli.show import envelope

        echo(envelope.document(verb, result, error, log=shown, exit_code=code))
    elif error:
        node = f" {error.node}" if error.node else ""
        rest = (("still running", error.still_running), ("next", error.next_step), ("log", shown))
        lines = [
            click.style(f"error[RD{code}]{node}: ", fg="red") + text.clean(error.message),
            *(f"  | {line}" for line in text.last_lines(error.details or "")),
            *(f"{what}: {text.clean(said)}" for what, said in rest if said),
        ]
        echo("\n".join(lines), err=True)
    return code
