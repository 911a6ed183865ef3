"""The command ``rain-deploy``: find the verb, run it, and leave with its exit code."""

import contextlib
import importlib
import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from rain_deploy import __version__
from rain_deploy.cli.ending import from_click, report, without_output
from rain_deploy.cli.help import HelpContext
from rain_deploy.cli.interrupts import interrupted
from rain_deploy.cli.session import Application
from rain_deploy.cli.show.text import OutputLost
from rain_deploy.errors import InputError, RainDeployError

VERBS = {
    "up": ("clusters", "Create a cluster, or repair an existing one."),
    "run": ("runs", "Run a script on the cluster and pull its results."),
    "down": ("clusters", "Pull the results, delete the cluster, and check that nothing is left."),
    "rehearse": ("rehearsal", "Try a script's plan on this machine before machines cost money."),
    "sweep": ("runs", "Do up, run and down with one command."),
    "status": ("clusters", "Show the state of a cluster and its nodes."),
    "list": ("clusters", "Show all clusters."),
    "runs": ("runs", "Show the runs of a cluster."),
    "attach": ("runs", "Follow a run from its first line and pull its results."),
    "logs": ("runs", "Show the output of a run, or the log of a node."),
    "cancel": ("runs", "Cancel a run."),
    "points": ("points", "Show the points of a run as a table."),
    "explain": ("points", "Explain why a point failed, or was computed again."),
    "pull": ("runs", "Pull the results of a run again."),
    "report": ("runs", "Make the report of a run again: one HTML page."),
    "journal": ("points", "Show what is kept of finished tasks, or delete it."),
    "ssh": ("nodes", "Open a shell on one node, or run a command there."),
    "exec": ("nodes", "Run a command on all nodes."),
    "push": ("nodes", "Copy a file or directory to the nodes."),
    "fetch": ("nodes", "Copy a file or directory from a node."),
    "tunnel": ("nodes", "Forward a local port to Rain's client port."),
    "dashboard": ("nodes", "Open Rain's dashboard."),
    "inventory": ("nodes", "Print the clusters as a dynamic inventory for Ansible."),
    "scale": ("clusters", "Add nodes to a cluster, or remove nodes."),
    "extend": ("clusters", "Change the time limit of a cluster."),
    "gc": ("account", "Find clusters that are left in the cloud account, and delete them."),
    "clean": ("account", "Show the caches of this machine, and remove what is not needed."),
    "types": ("account", "Show the instance types that you can rent, with prices."),
    "zones": ("account", "Show the zones where you can rent machines."),
    "check": ("clusters", "Show what up would install or refuse, but change nothing."),
    "completion": ("account", "Print the completion script for a shell."),
}
"""Verb -> (module of ``commands``, line of the help); the help imports no module."""


class Root(click.Group):
    """Verbs are imported when they are named; every error becomes one message and one exit code."""

    context_class = HelpContext

    def invoke(self, ctx: click.Context) -> Any:
        try:
            Path.cwd()
        except FileNotFoundError as error:
            message = "the directory that you are in has been deleted"
            raise InputError(message, next_step="cd to one that is there") from error
        return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(VERBS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from rain_deploy.cli.mistakes import near_verb

            near = near_verb(args[0], VERBS)
            meant = f" Did you mean {near!r}?" if near else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{meant}", ctx)
        return super().resolve_command(ctx, args)

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
        words = _verb_first(list(sys.argv[1:] if args is None else args)) or ["--help"]
        extra |= {"standalone_mode": False, "prog_name": "rain-deploy"}
        try:
            code = self._code(words, *rest, **extra)
        except OutputLost as lost:
            code = without_output(lost, words[0])
        except OSError as error:
            if error.filename:
                raise
            code = without_output(OutputLost(error), words[0])  # click printed the help
        sys.exit(code)

    def _code(self, words: list[str], *rest: Any, **extra: Any) -> int:
        """Run the command line and return its exit code.  OutputLost, OSError."""
        try:
            return int(super().main(words, *rest, **extra) or 0)
        except (click.ClickException, RainDeployError) as error:
            context = getattr(error, "ctx", None)
            if context is not None and "json" in context.params:
                json = bool(context.params["json"])
            else:  # the command line may not have been parsed to its end
                ours = words[: words.index("--")] if "--" in words else words
                asked = extra["obj"].environ.get("RAIN_DEPLOY_JSON", "").lower()
                json = "--json" in ours or asked in {"1", "true", "yes", "on", "t", "y"}
            shown = from_click(error) if isinstance(error, click.ClickException) else error
            return report(shown, words[0], json=json)
        except KeyboardInterrupt as stop:
            return report(interrupted(stop, "interrupted"), "", json=False)


def _verb_first(words: list[str]) -> list[str]:
    """Return the command line with the common options that stand before the verb behind it."""
    at = 0
    if words and words[0].startswith("-"):
        from rain_deploy.options.table import OPTIONS, Group

        common = [row for row in OPTIONS.values() if row.group is Group.COMMON]
        switch = {flag: row.kind.switch for row in common for flag in row.flags}
        while at < len(words) and (flag := words[at].partition("=")[0]) in switch:
            at += 1 if switch[flag] or "=" in words[at] else 2
    before, verb, rest = words[:at], words[at : at + 1], words[at + 1 :]
    asked = [word for word in rest[:1] if word not in {"help", "--help"}]
    return [*asked, "--help"] if verb == ["help"] else [*verb, *before, *rest]


def _version(ctx: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    """Print the version, the commit where this is a checkout, and the engine's version."""
    if not asked or ctx.resilient_parsing:
        return
    checkout, known = Path(__file__).parents[2], "Rain 0.4.0"
    if (checkout / ".git").exists():
        command = ("git", "-C", str(checkout), "rev-parse", "--short", "HEAD")
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            commit = subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True, timeout=5.0)
            known = f"commit {commit.strip()}, {known}"
    click.echo(f"rain-deploy, version {__version__} ({known})")
    ctx.exit()


@click.group(
    "rain-deploy",
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Try it on this machine: rain-deploy sweep --provider local --nodes 2 SCRIPT",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def root() -> None:
    """Run a Rain script on N machines, without editing it: up, run, down."""


def main(app: Application | None = None) -> NoReturn:
    """Entry point of the installed command, with the real application unless one is given."""
    app = app or Application()
    app.interrupts.install()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A letter that the locale lacks is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    root.main(obj=app)


if __name__ == "__main__":
    main()
