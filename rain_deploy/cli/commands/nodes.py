"""rain-deploy ssh, exec, push, fetch: one node, all nodes, files to and from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rain_deploy.cli import options
from rain_deploy.cli.options import PATH, option, verb
from rain_deploy.cli.show.output import echo

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.core.result import Result

_COMMAND = "rain_deploy.ssh_command"
SSH_FAILED = 255
"""What ssh returns for its own errors; a remote command may too."""


class AfterDashes(click.Command):
    """Options and N before ``--``, a command of its own after it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        before, after = args, []
        if "--" in args:
            cut = args.index("--")
            before, after = args[:cut], args[cut + 1 :]
        ctx.meta[_COMMAND] = tuple(after)
        return super().parse_args(ctx, before)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- CMD...]"]


@verb("ssh", cls=AfterDashes)
@click.argument("node", required=False, type=options.node, metavar="[N]")
@click.pass_context
def ssh_command(click_context: click.Context, session: Session, *, node: int | None) -> Result | int:
    """Open a shell on node N (default: the first), or run CMD there and return its status."""
    command: tuple[str, ...] = click_context.meta[_COMMAND]
    if not session.options.json:
        status = session.app.call(session.flows.ssh_argv(session.ctx, session.cluster, node, command))
        if status == SSH_FAILED:
            session.flows.check_reach(session.ctx, session.cluster, node)
        return status
    if not command:
        raise click.UsageError("ssh without a command is interactive and takes no --json")
    result = session.flows.exec_all(session.ctx, session.cluster, node or 1, command)
    remote = result.nodes[0].exit_status
    if remote is None:
        return result
    from rain_deploy.cli.show import envelope  # noqa: PLC0415 - not for --help

    echo(envelope.document("ssh", result, result.problem, exit_code=remote))
    return remote


@verb("exec", context_settings={"allow_interspersed_args": False})
@option("--node", type=options.node, metavar="N", help="On this node only.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
def exec_command(session: Session, *, node: int | None, command: tuple[str, ...]) -> Result:
    """Run CMD on all nodes at once; exit 41 if it failed on any."""
    return session.flows.exec_all(session.ctx, session.cluster, node, command)


@verb("push")
@click.argument("source", metavar="SRC", type=PATH)
@click.argument("destination", metavar="DST")
@option("--node", type=options.node, metavar="N", help="To this node only.")
def push_command(session: Session, *, source: Path, destination: str, node: int | None) -> Result:
    """Copy SRC, a file or a directory here, to DST on every node."""
    return session.flows.push(session.ctx, session.cluster, Path.cwd() / source, destination, node=node)


@verb("fetch")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=PATH)
@option("--node", type=options.node, metavar="N", help="From this node [default: the first].")
def fetch_command(session: Session, *, source: str, destination: Path, node: int | None) -> Result:
    """Copy SRC, a file or a directory on a node, to DST here."""
    return session.flows.fetch(session.ctx, session.cluster, source, Path.cwd() / destination, node=node)
