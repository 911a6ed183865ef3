"""The last thing that a command shows: its error as text, or one JSON document; and its exit code."""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path

import click

from rain_deploy.cli.show import text
from rain_deploy.cli.show.text import OutputLost, echo
from rain_deploy.errors import RainDeployError, StateError, UsageError

BROKEN_PIPE = 128 + signal.SIGPIPE
"""The reader of our output has gone; a shell reports a program that died of it so."""


def from_click(error: click.ClickException, verb: str = "") -> UsageError:
    """Return click's error about a command line, with where to read on."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    where = context.command_path if context else f"rain-deploy {verb}".strip()
    from rain_deploy.cli.mistakes import explained

    return UsageError(explained(error), next_step=f"{where} --help")


def without_output(lost: OutputLost, verb: str) -> int:
    """Report that the command could not print all of its result; return the exit code."""
    with contextlib.suppress(OSError):
        sys.stdout.close()  # Python flushes it once more at its end
    if lost.reader_gone:
        return BROKEN_PIPE
    error = StateError(f"{lost.message}; what the command did is done")
    error.next_step = "make room there, or send the output elsewhere"
    return report(error, verb, json=False)


def report(
    error: RainDeployError | None, verb: str, *, json: bool, result: object = None, log: Path | None = None
) -> int:
    """Show ``error`` as text on stderr, or it and ``result`` as one JSON document; return the exit code.

    An error is shown as text, too, if the document cannot be written.  OutputLost.
    """
    code = error.exit_code if error else 0
    shown = str(log) if error and log and log.exists() else None
    if json:
        try:
            echo(text.document(verb, result, error, log=shown, exit_code=code))
        except OutputLost as lost:
            if lost.reader_gone or error is None:
                raise
            json = False
    if error and not json and error.calm:
        echo(text.clean(error.sentence), err=True)
    elif error and not json:
        node = f" {error.node}" if error.node else ""
        rest = (("still running", error.still_running), ("log", shown), ("next", error.next_step))
        head, red = f"error[RD{code}]{node}:", click.style(f"error[RD{code}]{node}:", fg="red")
        lines = [
            text.folded(f"{head} {text.clean(error.message)}", sys.stderr).replace(head, red, 1),
            *(f"  | {line}" for line in text.last_lines(error.details or "")),
            *(text.folded(f"{what}: {text.clean(said)}", sys.stderr) for what, said in rest if said),
        ]
        echo("\n".join(lines), err=True)
    return code
