"""The command ``rain-deploy``: finds the verb, and lets no exception out but SystemExit."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from rain_deploy import __version__
from rain_deploy.cli import failure
from rain_deploy.errors import InputError

if TYPE_CHECKING:
    from rain_deploy.cli.app import Application

VERBS = {
    "up": ("up", "N machines, N governors, one server; again: converges."),
    "run": ("run", "Run a script; results come to results/<run>/."),
    "down": ("down", "Pull what is not pulled, delete everything, prove it."),
    "sweep": ("sweep", "up, run and down in one."),
    "status": ("status", "One cluster, node by node, from the machines themselves."),
    "list": ("status", "All clusters."),
    "runs": ("runs", "The runs of a cluster."),
    "attach": ("runs", "Follow a run from its first line, and bring its results."),
    "logs": ("logs", "Output of a run, or the log of a node."),
    "cancel": ("runs", "End a run."),
    "points": ("points", "One row per point of a run."),
    "pull": ("runs", "Bring a run's results again."),
    "ssh": ("nodes", "A shell, or one command, on one node."),
    "exec": ("nodes", "One command on all nodes."),
    "push": ("nodes", "A file or directory to the nodes."),
    "fetch": ("nodes", "A file or directory from a node."),
    "tunnel": ("tunnel", "Rain's client port, here."),
    "dashboard": ("tunnel", "Rain's dashboard, here."),
    "scale": ("scale", "Grow or shrink a living cluster."),
    "extend": ("scale", "Move the hour at which a cluster powers itself off."),
    "gc": ("gc", "Everything of rain-deploy in the account; --delete what is left over."),
    "types": ("catalog", "Instance types, with prices."),
    "zones": ("catalog", "Where the cloud makes machines."),
    "check": ("check", "What up would install or refuse; changes nothing."),
    "completion": ("completion", "The completion script of a shell."),
}
"""Verb -> module of this package and line of the help, in its order; the help imports no module."""


class Root(click.Group):
    """Verbs are imported when they are named; every error becomes one message and one exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            Path.cwd()
        except FileNotFoundError as error:
            raise InputError(
                "the directory that you are in has been deleted", next_step="cd to one that is there"
            ) from error
        return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"rain_deploy.cli.commands.{VERBS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        words = list(sys.argv[1:] if args is None else args)
        extra |= {"standalone_mode": False, "prog_name": "rain-deploy"}
        extra["obj"] = replace(extra["obj"], words=tuple(words))
        try:
            code = super().main(words, *rest, **extra)
        except click.ClickException as error:
            json = self._wants_json(words, extra["obj"].environ)
            code = failure.report(failure.from_click(error), verb=next(iter(words), ""), json=json)
        except InputError as error:
            json = self._wants_json(words, extra["obj"].environ)
            code = failure.report(error, verb=next(iter(words), ""), json=json)
        except KeyboardInterrupt as stop:
            code = failure.report(failure.interrupted(stop, "interrupted"), verb="", json=False)
        sys.exit(code)

    def _wants_json(self, words: Iterable[str], environ: Mapping[str, str]) -> bool:
        """Whether --json is among our own arguments, of a command line that click could not parse."""
        if environ.get("RAIN_DEPLOY_JSON", "").lower() in {"1", "true", "yes", "on", "t", "y"}:
            return True
        left = iter(words)
        command = self.get_command(click.Context(self), next(left, ""))
        if command is None:
            return "--json" in left
        options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
        valued = {name for found in options if not found.is_flag for name in found.opts}
        for word in left:
            if word in valued:
                next(left, None)
            elif word == "--json":
                return True
            elif word == "--" or not (word.startswith("-") or command.allow_interspersed_args):
                return False
        return False


@click.group(
    "rain-deploy",
    cls=Root,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="A sweep in one command: rain-deploy sweep --provider local --nodes 2 SCRIPT",
)
@click.version_option(__version__, prog_name="rain-deploy")
def root() -> None:
    """Run an unedited Rain script on N machines: up, run, down."""


def main(app: Application | None = None) -> NoReturn:
    """Entry point of the installed command, with the real application unless one is given."""
    if app is None:
        from rain_deploy.cli.wiring import application  # noqa: PLC0415 - a test brings its own

        app = application()
    interrupts = _Interrupts()
    for signum in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_DFL:  # ignored under nohup, and it stays so
            signal.signal(signum, interrupts)
    # Also where a shell started us in the background with Ctrl-C ignored: who sends SIGINT to us means us.
    signal.signal(signal.SIGINT, interrupts)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # a letter that the locale lacks is no reason to fail
    root.main(obj=app)


_LEAVING = (
    b"interrupted again: leaving at once; everything is recorded:"
    b" rain-deploy list shows it, rain-deploy down removes it\n"
)


class _Interrupts:
    """The first signal lets the flow end in order; a Ctrl-C after it leaves at once.

    Everything is recorded the moment it happens, so there is nothing to lose by leaving.  SIGTERM and SIGHUP
    do not disturb the ending: ``timeout`` and the end of a session send several of them.
    """

    def __init__(self) -> None:
        self._seen = False

    def __call__(self, signum: int, _frame: object) -> None:
        if not self._seen:
            self._seen = True
            raise failure.Stopped(signum)
        if signum == signal.SIGINT:
            cursor = b"\x1b[?25h" if os.isatty(2) else b""  # a spinner may have hidden it
            os.write(2, cursor + _LEAVING)
            os._exit(128 + signum)


if __name__ == "__main__":
    main()
