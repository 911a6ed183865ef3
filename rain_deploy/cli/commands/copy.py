"""rain-deploy push and fetch: files to the nodes and from one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rain_deploy.cli.command import NODE, option, verb
from rain_deploy.cli.show import text

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.verbs.copy import CopyResult

_HERE = click.Path(path_type=Path)


def copy_text(result: CopyResult) -> list[str | bytes]:
    """Return what went where, and how much."""
    return [
        f"{text.clean(result.source)} -> {text.clean(result.destination)} ({', '.join(result.nodes)})",
        f"{text.count(result.files, 'file')}, {text.size(result.bytes)}, {text.seconds(result.seconds)}",
    ]


@verb("push", copy_text, done=True, examples=("push data /tmp/data", "push --node 2 model.h5 /tmp/"))
@click.argument("source", metavar="SRC", type=_HERE)
@click.argument("destination", metavar="DST")
@option("--node", kind=NODE, metavar="N", help="Copy to this node only.")
def push_command(session: Session, *, source: Path, destination: str, node: int | None) -> CopyResult:
    """Copy SRC, a file or directory here, to DST on every node."""
    from rain_deploy.verbs.copy import push  # noqa: PLC0415 - not for --help

    return session.call(push, session.cluster, Path.cwd() / source, destination, node=node)


@verb("fetch", copy_text, done=True, examples=("fetch /tmp/model.h5 .", "fetch --node 2 /var/log/syslog ."))
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=_HERE)
@option("--node", kind=NODE, metavar="N", help="Copy from this node. [default: the first]")
def fetch_command(session: Session, *, source: str, destination: Path, node: int | None) -> CopyResult:
    """Copy SRC, a file or directory on a node, to DST here."""
    from rain_deploy.verbs.copy import fetch  # noqa: PLC0415 - not for --help

    return session.call(fetch, session.cluster, source, Path.cwd() / destination, node=node)
