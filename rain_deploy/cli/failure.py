"""Errors as the user sees them; interrupts; the one place that turns anything into an exit code."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

import click

from rain_deploy.cli.show import text
from rain_deploy.cli.show.output import echo
from rain_deploy.errors import ExitCode, RainDeployError, UsageError

BROKEN_PIPE = 128 + signal.SIGPIPE
"""Who read our output has gone; as a shell reports a program that died of it."""


class Stopped(KeyboardInterrupt):
    """A signal came; flows treat SIGTERM and SIGHUP as Ctrl-C."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


def interrupted(stop: KeyboardInterrupt, message: str, **told: str | None) -> RainDeployError:
    """An interrupt as an error: its exit code is 128 + the signal's number."""
    error = RainDeployError(message, **told)
    error.exit_code = ExitCode(128 + (stop.signum if isinstance(stop, Stopped) else signal.SIGINT))
    return error


def from_click(error: click.ClickException, verb: str = "") -> UsageError:
    """What click says of a command line, with where to read on."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    where = context.command_path if context else f"rain-deploy {verb}".strip()
    return UsageError(error.format_message(), next_step=f"{where} --help")


def with_yes(words: Sequence[str], *, first: bool) -> str:
    """The command that was typed, with its questions answered; values of --env are not repeated.

    ``first``: --yes stands before all other words, because the last ones are somebody else's.
    """
    verb, *rest = words
    rest = [_without_value(before, word) for before, word in zip(words, rest, strict=False)]
    rest = ["--yes", *rest] if first or "--" in rest else [*rest, "--yes"]
    return shlex.join(("rain-deploy", verb, *rest))


def _without_value(before: str, word: str) -> str:
    of_two_words = re.sub("=.*", "=…", word, flags=re.DOTALL)
    return of_two_words if before == "--env" else re.sub("^(--env=[^=]*)=.*", r"\1=…", word, flags=re.DOTALL)


def report(
    error: RainDeployError, *, verb: str, json: bool, result: object = None, log: Path | None = None
) -> int:
    """Show ``error`` as text on stderr, or with ``result`` as the one JSON document; its exit code."""
    shown = str(log) if log and log.exists() else None
    if json:
        from rain_deploy.cli.show import envelope  # noqa: PLC0415 - not for --help

        echo(envelope.document(verb, result, error, log=shown))
    else:
        echo(_text(error, shown), err=True)
    return int(error.exit_code)


def _text(error: RainDeployError, log: str | None) -> str:
    node = f" {error.node}" if error.node else ""
    lines = [click.style(f"error[RD{int(error.exit_code)}]{node}: ", fg="red") + text.clean(error.message)]
    lines += [f"  | {line}" for line in text.last_lines(error.details or "")]
    if error.still_running:
        lines.append(f"still running: {text.clean(error.still_running)}")
    if error.next_step:
        lines.append(f"next: {text.clean(error.next_step)}")
    if log:
        lines.append(f"log: {log}")
    return "\n".join(lines)
