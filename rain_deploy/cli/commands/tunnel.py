"""rain-deploy tunnel and dashboard: Rain's ports, on loopback here, until Ctrl-C."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain_deploy.cli.options import option, verb, whole
from rain_deploy.cli.show.output import echo

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session

_PORT = option(
    "--port", type=whole(0, 65535), metavar="N", default=0, help="Port here [default: a free one]."
)


@verb("tunnel", interactive=True)
@_PORT
def tunnel_command(session: Session, *, port: int) -> int:
    """Lead a port on loopback here to Rain's client port, until Ctrl-C."""
    with session.flows.tunnel(session.ctx, session.cluster, port=port) as tunnel:
        session.sink.pause()
        echo(f"127.0.0.1:{tunnel.port}")
        session.say(f"leads to {tunnel.target}; Ctrl-C closes it")
        session.app.wait()
    return 0


@verb("dashboard", interactive=True)
@_PORT
@option("--no-browser", is_flag=True, help="Print the address only.")
def dashboard_command(session: Session, *, port: int, no_browser: bool) -> int:
    """Lead a port on loopback here to Rain's dashboard and open it, until Ctrl-C."""
    with session.flows.dashboard(session.ctx, session.cluster, port=port) as tunnel:
        session.sink.pause()
        echo(tunnel.url)
        session.say(f"leads to {tunnel.target}; Ctrl-C closes it")
        if not no_browser:
            session.app.browse(tunnel.url)
        session.app.wait()
    return 0
