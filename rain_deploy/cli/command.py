"""Make a click command of a verb: options from the table, help in groups, a function with a Session."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from rain_deploy import wiring
from rain_deploy.cli.help import HelpContext
from rain_deploy.cli.session import Session, Shown
from rain_deploy.core.layout import MAX_NODES
from rain_deploy.options.kinds import Kind
from rain_deploy.options.table import (
    CLOUD,
    CLUSTER_VERBS,
    OPTIONS,
    REHEARSE,
    RUN_VERBS,
    Group,
    Option,
    variable,
)

if TYPE_CHECKING:
    from rain_deploy.cluster.context import Context

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
SCRIPT_ENDS_OPTIONS = {"allow_interspersed_args": False}
"""Everything after SCRIPT is the script's, as with python."""
TYPED = "rain_deploy.typed"  # key of the words after the verb in click's context
SHOWN = 40  # letters of a wrong value in a message
_RUN = (
    "RUN is a run's number, its script (the last run of it), its id, or the beginning of its id. "
    "`rain-deploy runs` shows them."
)
_DURATIONS = "A DURATION is a number of seconds, or a time such as 30s, 60m, 12h or 2d."
_AMOUNTS = (
    "An AMOUNT is in the currency of the prices: CHF, unless [prices] in rain-deploy.toml sets another."
)
_SOURCES = (
    "You can also set options in the environment (RAIN_DEPLOY_{0} for --{1}) and in rain-deploy.toml (key "
    "{1}; docs/reference/options.md lists all keys). The command line wins over the environment, and the "
    "environment wins over the file. What all three give to --with, --files and --env is combined."
)


class Flag(click.Option):
    """An option with a heading in the help."""

    def __init__(self, *names: Any, group: str = "Options", **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.group = group


class Command(click.Command):
    """A verb; its help has options in groups, examples, and once what all options share."""

    context_class = HelpContext
    examples: tuple[str, ...] = ()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and keep what was typed."""
        ctx.meta[TYPED] = tuple(args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {group: [] for group in ("Options", *Group)}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                groups[getattr(parameter, "group", Group.COMMON)].append(record)
        for group, records in groups.items():
            if records:
                with formatter.section(group):
                    formatter.write_dl(records, col_max=28)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"  rain-deploy {example}\n")
        shown = {parameter.metavar for parameter in self.get_params(ctx)}
        example = "nodes" if self.name in CLUSTER_VERBS else "timeout"
        names_run = any(parameter.name == "run" for parameter in self.get_params(ctx))
        has_settings = self.name in (*CLUSTER_VERBS, *RUN_VERBS, *REHEARSE)
        for note in (
            *([_RUN] if names_run else []),
            *([_DURATIONS] if "DURATION" in shown else []),
            *([_AMOUNTS] if "AMOUNT" in shown else []),
            *([_SOURCES.format(example.upper(), example)] if has_settings else []),
        ):
            formatter.write_paragraph()
            formatter.write_text(note)


def _node(value: object, _base: Path) -> int:
    number = str(value).removeprefix("node-")
    if not number.isdecimal() or not 1 <= int(number) <= MAX_NODES:
        raise ValueError("a node such as 2 or node-2")
    return int(number)


NODE = Kind(_node)  # ``2`` or ``node-2``


def checks(kind: Kind, *, negate: bool = False) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return a click callback that checks what was given; None where nothing was.  BadParameter."""

    def callback(ctx: click.Context, parameter: click.Parameter, words: Any) -> Any:
        given = ctx.get_parameter_source(str(parameter.name))
        if given not in {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT} or words in {None, ()}:
            return None
        try:
            value = kind.check(kind.words(words, ctx.obj.environ), Path.cwd())
        except ValueError as error:
            shown = f", got {words[:SHOWN] + '…' * (len(words) > SHOWN)!r}" if isinstance(words, str) else ""
            raise click.BadParameter(f"expected {error}{shown}") from error
        return not value if negate else value

    return callback


def option(*names: str, kind: Kind | None = None, **settings: Any) -> Decorator:
    """Return an option of one verb; every flag is read from RAIN_DEPLOY_<FLAG> too."""
    long = next(name for name in names if name.startswith("--"))
    if kind is not None:
        settings["callback"] = checks(kind)
    return click.option(*names, cls=Flag, envvar=variable(long), **settings)


def run_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with the argument RUN: its id, number or script; by default the last."""
    return click.argument("run", required=False, shell_complete=complete)(command)


def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the values of an option or of the argument RUN that begin with ``incomplete``.

    It answers nothing rather than fail.
    """
    row, app = OPTIONS.get(str(parameter.name)), ctx.obj
    found: list[str] = []
    if row and row.kind.choices:
        found = list(row.kind.choices)
    else:
        with contextlib.suppress(Exception):
            home = wiring.home(app.environ)
            with app.make_context(home, lambda _event: None, lambda _question: False) as context:
                found = _names(row.kind.completes if row else "runs", context, ctx)
    return [value for value in found if value.startswith(incomplete)]


def _names(what: str, context: Context, ctx: click.Context) -> list[str]:
    from rain_deploy.options.spec import cluster_spec
    from rain_deploy.verbs.list import types, zones

    call, zone = ctx.obj.call_verb, ctx.params.get("zone")
    if what == "clusters":
        return [cluster.name for cluster in context.store.clusters()]
    if what == "runs":  # from the record: a node that does not answer must not keep the shell waiting
        records = context.store.runs(ctx.params.get("cluster") or "default")
        scripts = dict.fromkeys(Path(record.script).stem for record in records)
        return [*scripts, *(record.id for record in records)]
    spec = cluster_spec("default", (CLOUD, ""), {"zone": zone} if zone else {})
    if what == "zones":
        return [zone.name for zone in call(zones, context, spec).zones]
    return [kind.name for kind in call(types, context, spec).types]


def from_table(row: Option) -> Decorator:
    """Return the click option of a row of the table."""
    form: dict[str, Any] = {"type": click.Path() if row.kind.path else str, "multiple": row.kind.many}
    return option(
        *row.flags,
        row.name,
        group=row.group,
        metavar=row.metavar or ("|".join(row.kind.choices) or None),
        help=help_of(row),
        is_eager=row.name == "json",  # errors of other options are shown as it says
        callback=checks(row.kind, negate=row.flags[-1].startswith("--no-")),
        shell_complete=complete if row.kind.choices or row.kind.completes else None,
        **({"is_flag": True} if row.kind.switch else form),
    )


def help_of(row: Option) -> str:
    """Return the help of an option: what it does, whether it repeats, what holds without it."""
    repeats = " May be repeated." if row.kind.many and row.flags else ""
    return f"{row.help}{repeats}{f' [default: {row.default}]' if row.default else ''}"


def verb(
    *examples: str, done: bool = False, interactive: bool = False, cls: type[Command] = Command, **more: Any
) -> Callable[[Callable[..., Shown]], Command]:
    """Return a decorator that makes the command VERB of a function ``VERB_command``.

    The function gets a Session and its own options; options of the table are in ``session.flags``.  It
    returns a Result and the text of it, or an exit code.  ``done``: the text only says what was done, so
    --quiet leaves it out.  ``interactive``: it refuses --json.
    """

    def decorate(function: Callable[..., Shown]) -> Command:
        name = function.__name__.removesuffix("_command")
        flagged = [row for row in OPTIONS.values() if row.flags]
        rows = [row for row in flagged if name in row.verbs or row.group is Group.COMMON]

        @click.pass_context
        @functools.wraps(function)
        def command(click_context: click.Context, /, **parameters: Any) -> int:
            taken = {row.name: parameters.pop(row.name) for row in rows}
            given = {key: value for key, value in taken.items() if value is not None}
            common = {key: given.pop(key) for key in [*given] if OPTIONS[key].group is Group.COMMON}
            follows = bool(parameters.get("follow"))
            typed = click_context.meta[TYPED]
            session = Session(click_context.obj, name, given, typed, done=done, follows=follows, **common)
            if interactive and session.json:
                raise click.UsageError(f"{name} is interactive and takes no --json", click_context)
            return session.perform(functools.partial(function, session, **parameters))

        for row in reversed(rows):
            command = from_table(row)(command)
        made = click.command(name, cls=cls, **more)(command)
        made.examples = examples
        return made

    return decorate
