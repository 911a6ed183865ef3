"""rain-deploy ssh, exec, push, fetch, inventory, tunnel and dashboard: ways to the nodes."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rain_deploy.cli.command import NODE, SCRIPT_ENDS_OPTIONS, Command, checks, option, verb
from rain_deploy.cli.session import Session, Shown
from rain_deploy.cli.show import text
from rain_deploy.core.text import count
from rain_deploy.errors import InputError
from rain_deploy.options.kinds import whole

if TYPE_CHECKING:
    from rain_deploy.verbs.copy import CopyResult
    from rain_deploy.verbs.nodes import Tunnel

    Forward = Callable[..., AbstractContextManager[Tunnel]]

_COMMAND = "rain_deploy.ssh_command"
_HERE = click.Path(path_type=Path)
_PORT = option(
    "--port", kind=whole(0, 65535), metavar="N", help="Listen on this local port. [default: a free port]"
)
SSH_FAILED = 255  # what ssh returns for its own errors; a remote command may return it too


class AfterDashes(Command):
    """A command whose words after ``--`` are a command of their own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        cut = args.index("--") if "--" in args else len(args)
        ctx.meta[_COMMAND] = tuple(args[cut + 1 :])
        return super().parse_args(ctx, args[:cut])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- CMD...]"]


@verb("ssh 2", "ssh 2 -- nproc", cls=AfterDashes)
@click.argument("node", required=False, callback=checks(NODE), metavar="[N]")
def ssh_command(session: Session, *, node: int | None) -> Shown:
    """Open a shell on node N (default: the first), or run CMD there and return its exit code."""
    from rain_deploy.verbs.nodes import check_reach, exec_all, ssh_argv

    command: tuple[str, ...] = click.get_current_context().meta[_COMMAND]
    if not session.json:
        status = session.app.call(session.call(ssh_argv, session.cluster, node, command))
        if status == SSH_FAILED:
            session.call(check_reach, session.cluster, node)
        return status
    if not command:
        raise click.UsageError("ssh without a command is interactive and takes no --json")
    result = session.call(exec_all, session.cluster, node or 1, command)
    remote = result.nodes[0].exit_status
    if remote is None:
        return result, []
    text.echo(text.document("ssh", result, result.problem, log=None, exit_code=remote))
    return remote


@verb("exec -- df -h /", "exec --node 2 -- python3 --version", context_settings=SCRIPT_ENDS_OPTIONS)
@option("--node", kind=NODE, metavar="N", help="Run CMD on this node only.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
def exec_command(session: Session, *, node: int | None, command: tuple[str, ...]) -> Shown:
    """Run CMD on all nodes at once. The exit code is 41 if CMD fails on any node."""
    from rain_deploy.verbs.nodes import exec_all

    result = session.call(exec_all, session.cluster, node, command)
    session.sink.pause()
    for line in () if session.json else result.nodes:
        prefix = b"" if len(result.nodes) == 1 else f"{line.node} | ".encode()
        for output, err in ((line.stderr, True), (line.stdout, False)):
            shown = b"".join(prefix + part for part in output.splitlines(keepends=True))
            text.echo(shown, nl=False, err=err)
    return result, []


@verb("push data /tmp/data", "push --node 2 model.h5 /tmp/", done=True)
@click.argument("source", metavar="SRC", type=_HERE)
@click.argument("destination", metavar="DST")
@option("--node", kind=NODE, metavar="N", help="Copy to this node only.")
def push_command(session: Session, *, source: Path, destination: str, node: int | None) -> Shown:
    """Copy the local file or directory SRC to DST on every node."""
    from rain_deploy.verbs.copy import push

    return _copied(session.call(push, session.cluster, Path.cwd() / source, destination, node=node))


@verb("fetch /tmp/model.h5 .", "fetch --node 2 /var/log/syslog .", done=True)
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=_HERE)
@option("--node", kind=NODE, metavar="N", help="Copy from this node. [default: the first]")
def fetch_command(session: Session, *, source: str, destination: Path, node: int | None) -> Shown:
    """Copy the file or directory SRC from a node to the local path DST."""
    from rain_deploy.verbs.copy import fetch

    return _copied(session.call(fetch, session.cluster, source, Path.cwd() / destination, node=node))


@verb("inventory --list", "inventory --host default-node-1")
@option("--list", "listed", is_flag=True, help="Print all groups and hosts. [default]")
@option("--host", metavar="HOST", help="Print the variables of this host.")
def inventory_command(session: Session, *, listed: bool, host: str | None) -> Shown:
    """Print the clusters that are on record as up, as a dynamic inventory for Ansible, in JSON.

    Give Ansible the script ansible/inventory.sh, which calls this:
    ansible -i ansible/inventory.sh all -m ping
    """
    from rain_deploy.verbs.inventory import inventory

    if session.json:
        raise click.UsageError("inventory prints JSON for Ansible and takes no --json")
    if listed and host:
        raise click.UsageError("--list and --host exclude each other")
    found = session.call(inventory)
    hostvars = found["_meta"]["hostvars"]
    if host and host not in hostvars:
        known = ", ".join(hostvars) or "none, because no cluster is up"
        raise InputError(f"the inventory has no host {host}; it has: {known}")
    text.echo(json.dumps(hostvars[host] if host else found, indent=2))
    return 0


def _copied(result: CopyResult) -> Shown:
    return result, [
        f"{text.clean(result.source)} -> {text.clean(result.destination)} ({', '.join(result.nodes)})",
        f"{count(result.files, 'file')}, {text.size(result.bytes)}, {text.seconds(result.seconds)}",
    ]


@verb("tunnel", "tunnel --port 7210", interactive=True)
@_PORT
def tunnel_command(session: Session, *, port: int | None) -> Shown:
    """Forward a local port to Rain's client port, until Ctrl-C."""
    from rain_deploy.verbs.nodes import tunnel

    return _keep_open(session, tunnel, port)


@verb("dashboard", "dashboard --no-browser --port 8080", interactive=True)
@_PORT
@option("--no-browser", is_flag=True, help="Only print the address.")
def dashboard_command(session: Session, *, port: int | None, no_browser: bool) -> Shown:
    """Forward a local port to Rain's dashboard until Ctrl-C, and open it in the browser."""
    from rain_deploy.verbs.nodes import dashboard

    return _keep_open(session, dashboard, port, browse=not no_browser)


def _keep_open(session: Session, forward: Forward, port: int | None, *, browse: bool = False) -> int:
    with session.call(forward, session.cluster, port=port or 0) as opened:
        session.sink.pause()
        text.echo(opened.url or f"127.0.0.1:{opened.port}")
        session.say(f"forwarded to {opened.target}; Ctrl-C closes it")
        if browse:
            session.app.browse(opened.url)
        session.app.wait()
    return 0
