"""rain-deploy logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rain_deploy.cli.options import node as node_number
from rain_deploy.cli.options import option, verb

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.core.result import Result


@verb("logs", follows=True)
@click.argument("run", required=False)
@option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@option("--node", type=node_number, metavar="N", help="That node's governor, instead of the script.")
@option("--boot", is_flag=True, help="What the node's first boot said, instead of the script.")
@option("--install", is_flag=True, help="What installing said, instead of the script.")
def logs_command(
    session: Session, *, run: str | None, follow: bool, node: int | None, boot: bool, install: bool
) -> Result:
    """Show what the script of RUN (default: the last) printed, or a node's log."""
    if follow and (node is not None or boot or install):
        raise click.UsageError("--follow follows the script; leave out --node, --boot and --install")
    if boot and install:
        raise click.UsageError("--boot and --install are two logs; name one")
    return session.flows.logs(
        session.ctx, session.cluster, run, node=node, boot=boot, install=install, follow=follow
    )
