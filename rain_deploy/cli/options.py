"""Options and parameter types that verbs share.  Every flag is read from RAIN_DEPLOY_<FLAG> too."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rain_deploy.cli.app import CommonOptions
from rain_deploy.cli.session import Session

if TYPE_CHECKING:
    from rain_deploy.core.result import Result

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
MAX_NODES = 1000
PROVIDERS = ("exoscale", "hosts", "local")
PATH = click.Path(path_type=Path)
SHOWN = 40
"""Letters of a wrong value in a message."""
Checked = TypeVar("Checked")


def duration(value: str) -> float:
    """Seconds."""
    from rain_deploy import options as config  # noqa: PLC0415 - not for --help

    return _checked(config.duration_s, value)


def lifetime(value: str) -> float:
    """Seconds; ``none`` is math.inf."""
    from rain_deploy import options as config  # noqa: PLC0415 - not for --help

    return _checked(config.lifetime_s, value)


def amount(value: str) -> float:
    """Money."""
    from rain_deploy import options as config  # noqa: PLC0415 - not for --help

    return _checked(config.amount, value)


def network(value: str) -> str:
    """A CIDR."""
    from rain_deploy import options as config  # noqa: PLC0415 - not for --help

    return _checked(config.network, value)


def node(value: str) -> int:
    """``2`` or ``node-2``."""
    number = value.removeprefix("node-")
    if not number.isdecimal() or not 1 <= int(number) <= MAX_NODES:
        raise click.BadParameter(f"expected a node such as 2 or node-2, got {_shown(value)}")
    return int(number)


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number in a range."""

    def check(value: str | int) -> int:
        with contextlib.suppress(ValueError):
            if low <= int(value) <= high:
                return int(value)
        raise click.BadParameter(f"expected a whole number from {low} to {high}, got {_shown(str(value))}")

    return check


def cluster_name(value: str) -> str:
    """Lower-case letters, digits and dashes: it becomes part of names that others choose the rules for."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", value):
        raise click.BadParameter(
            "expected up to 32 lower-case letters, digits and dashes, no dash first or last, "
            f"got {_shown(value)}"
        )
    return value


def _shown(value: str) -> str:
    return repr(value if len(value) <= SHOWN else f"{value[:SHOWN]}…")


def _checked(check: Callable[[object], Checked], value: str) -> Checked:
    try:
        return check(value)
    except ValueError as error:
        raise click.BadParameter(f"expected {error}, got {_shown(value)}") from error


def option(*names: str, **settings: Any) -> Decorator:
    """click.option that also reads RAIN_DEPLOY_<FLAG>, one name for all verbs."""
    long = next(name for name in names if name.startswith("--")).partition("/")[0].removeprefix("--")
    return click.option(*names, envvar=f"RAIN_DEPLOY_{long.upper().replace('-', '_')}", **settings)


_COMMON = (
    option(
        "-c", "--cluster", type=cluster_name, default="default", metavar="NAME", help="[default: default]"
    ),
    option("--json", is_flag=True, help="One JSON document on stdout."),
    option("-q", "--quiet", is_flag=True, help="No progress."),
    option("-v", "--verbose", is_flag=True, help="More progress."),
    option("-y", "--yes", is_flag=True, help="Answer yes to every question."),
    option("--config", type=PATH, metavar="FILE", help="Instead of ./rain-deploy.toml."),
)


def verb(
    name: str,
    *,
    interactive: bool = False,
    follows: bool = False,
    cls: type[click.Command] = click.Command,
    **settings: Any,
) -> Decorator:
    """A command whose function takes a Session and returns a Result to be shown, or an exit code.

    ``interactive``: it refuses --json.  ``follows``: with --follow and --json it prints JSON Lines.
    """

    def decorate(function: Callable[..., Result | int]) -> click.Command:
        @click.pass_context
        @functools.wraps(function)
        def command(click_context: click.Context, /, **parameters: Any) -> int:
            common = CommonOptions(**{key: parameters.pop(key) for key in CommonOptions.__slots__})
            lines = follows and bool(parameters.get("follow"))
            options_end = not click_context.allow_interspersed_args
            session = Session(click_context.obj, name, common, follows=lines, options_end=options_end)

            def act() -> Result | int:
                if interactive and common.json:
                    raise click.UsageError(f"{name} is interactive and takes no --json", click_context)
                return function(session, **parameters)

            return session.perform(act)

        for decorator in reversed(_COMMON):
            command = decorator(command)
        made = click.command(name, cls=cls, **settings)(command)
        made.params = made.params[len(_COMMON) :] + made.params[: len(_COMMON)]  # a verb's own come first
        return made

    return decorate
