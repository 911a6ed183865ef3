"""The one loader of templates/: top level of a checkout, ``rain_deploy/templates`` in a wheel."""

from __future__ import annotations

import functools
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2

PACKAGE = Path(__file__).resolve().parent.parent


def templates_directory() -> Path:
    """Where the templates lie in this installation."""
    inside = PACKAGE / "templates"
    return inside if inside.is_dir() else PACKAGE.parent / "templates"


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2  # noqa: PLC0415  heavy: only what renders pays for it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates_directory()),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  shell and configuration text; ``q`` quotes for the shell
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["q"] = lambda value: shlex.quote(str(value))
    return environment


def render(name: str, **values: object) -> str:
    """Text of template ``name``; a value that the template needs and does not get is an error."""
    return _environment().get_template(name).render(**values)
