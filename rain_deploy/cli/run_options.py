"""What run and sweep are told about a run; the script is looked at before anything else happens."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rain_deploy.cli.options import PATH, duration, option
from rain_deploy.core.environment import NODE_PYTHON
from rain_deploy.errors import InputError

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.core.spec import RunSpec

_OPTIONS = (
    option("--files", type=PATH, multiple=True, metavar="PATH", help="More files or directories to send."),
    option("--env", multiple=True, metavar="K[=V]", help="A variable for script and tasks; K alone: yours."),
    option("--timeout", type=duration, metavar="TIME", help="End the run after this time, such as 30m."),
    option("--no-companion", is_flag=True, help="Bare Rain: no figures, no points."),
    option("--no-wait", is_flag=True, help="Refuse, if another run is active, instead of waiting in line."),
    option("--out", type=PATH, metavar="DIR", help="Results go here [default: results/<run>]."),
    click.argument("script", type=PATH),
    click.argument("args", nargs=-1, type=click.UNPROCESSED),
)

SCRIPT_ENDS_OPTIONS = {"allow_interspersed_args": False}
"""Everything after SCRIPT is the script's, as with python."""


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the flags and arguments of ``RunFlags``."""
    for decorator in reversed(_OPTIONS):
        command = decorator(command)
    return command


@dataclass(frozen=True, slots=True)
class RunFlags:
    """The flags as click parsed them."""

    script: Path
    args: tuple[str, ...]
    files: tuple[Path, ...]
    env: tuple[str, ...]
    timeout: float | None
    no_companion: bool
    no_wait: bool
    out: Path | None

    @classmethod
    def taken(cls, parameters: dict[str, Any]) -> RunFlags:
        """The flags, taken out of ``parameters``."""
        return cls(**{name: parameters.pop(name) for name in cls.__slots__})


def run_spec(session: Session, flags: RunFlags, *, detach: bool = False, then_off: bool = False) -> RunSpec:
    """What is to be run.  UsageError, InputError."""
    from rain_deploy import options as config  # noqa: PLC0415 - not for --help
    from rain_deploy.core.spec import RunSpec  # noqa: PLC0415

    base = Path.cwd()
    given = config.Settings(
        files=tuple(base / path for path in flags.files),
        env=variables(flags.env, session.app.environ),
        timeout=flags.timeout,
        out=base / flags.out if flags.out else None,
    )
    script = base / flags.script
    check_script(script)
    settings = config.merged(given, session.toml)
    return RunSpec(
        script=script,
        args=flags.args,
        files=settings.files,
        env=settings.env,
        timeout_s=settings.timeout,
        min_nodes=settings.min_nodes,
        companion=not flags.no_companion,
        out=settings.out,
        wait=not flags.no_wait,
        detach=detach,
        then_off=then_off,
    )


def variables(given: Iterable[str], environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """``K=V`` and ``K`` (the caller's own value) as pairs; UsageError."""
    pairs: dict[str, str] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
            raise click.UsageError(f"--env {item}: {name!r} is no name of a variable")
        if not equals and name not in environ:
            raise click.UsageError(
                f"--env {name}: no such variable here; give it a value with --env {name}=…"
            )
        pairs[name] = value if equals else environ[name]
    return tuple(pairs.items())


def check_script(path: Path) -> None:
    """InputError unless ``path`` is a file that parses as Python of the nodes."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"script {path} cannot be read: {error.strerror}", next_step="name a Python script that is there"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the script's own style is shown where it runs
            ast.parse(source, str(path), feature_version=NODE_PYTHON)
    except SyntaxError as error:
        python = ".".join(map(str, NODE_PYTHON))
        where = f"line {error.lineno}: " if error.lineno else ""
        raise InputError(
            f"script {path} is not Python {python}: {where}{error.msg}",
            details=error.text,
            next_step=f"correct it; the nodes run Python {python}",
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(
            f"script {path} is not Python: {error}", next_step="name a Python script that parses"
        ) from error
