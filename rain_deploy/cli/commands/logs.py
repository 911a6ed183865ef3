"""rain-deploy logs: what a run printed, or a node's log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rain_deploy.cli.command import NODE, option, run_argument, verb
from rain_deploy.cli.show.output import echo

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.verbs.logs import LogsResult


def logs_text(result: LogsResult) -> list[str | bytes]:
    """Return what was printed, unchanged; what went to stderr goes to stderr."""
    if result.stderr:
        echo(result.stderr, nl=False, err=True)
    return [result.stdout]


@verb("logs", logs_text, follows=True, examples=("logs -f", "logs --node 2 --install"))
@run_argument
@option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@option("--node", kind=NODE, metavar="N", help="Show the log of this node's governor.")
@option("--boot", is_flag=True, help="Show what a rented machine printed when it first booted.")
@option("--install", is_flag=True, help="Show what the installation printed.")
def logs_command(
    session: Session, *, run: str | None, follow: bool, node: int | None, boot: bool, install: bool
) -> LogsResult:
    """Show what the script of RUN (default: the last) printed, or a node's log."""
    from rain_deploy.verbs.logs import NodeLog, node_log, script_log  # noqa: PLC0415 - not for --help

    if follow and (node is not None or boot or install):
        raise click.UsageError("--follow follows the script; leave out --node, --boot and --install")
    if boot and install:
        raise click.UsageError("--boot and --install are two logs; name one")
    if node is None and not boot and not install:
        return session.call(script_log, session.cluster, run, follow=follow)
    log = NodeLog.BOOT if boot else NodeLog.INSTALL if install else NodeLog.SERVICES
    return session.call(node_log, session.cluster, node, log)
