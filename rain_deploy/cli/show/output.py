"""The two streams: data on stdout, everything else on stderr."""

from __future__ import annotations

import os
from typing import IO

import click


class ReaderGone(Exception):  # noqa: N818 - it is no error of ours
    """Who read our output has closed it."""


def echo(message: str | bytes, *, nl: bool = True, err: bool = False) -> None:
    """Write and flush; colours go to a terminal only.  ReaderGone."""
    try:
        click.echo(message, nl=nl, err=err, color=False if "NO_COLOR" in os.environ else None)
    except BrokenPipeError as error:
        raise ReaderGone from error


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether a person sits behind ``stream``, which may have been closed by who started us."""
    return stream is not None and not stream.closed and stream.isatty()
