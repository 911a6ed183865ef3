"""rain-deploy tunnel and dashboard: Rain's ports, on loopback here, until Ctrl-C."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain_deploy.cli.command import option, verb
from rain_deploy.cli.show.text import echo
from rain_deploy.options.kinds import whole

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session

_PORT = option(
    "--port", kind=whole(0, 65535), metavar="N", help="Listen on this local port. [default: a free port]"
)


@verb("tunnel", interactive=True, examples=("tunnel", "tunnel --port 7210"))
@_PORT
def tunnel_command(session: Session, *, port: int | None) -> int:
    """Forward a local port to Rain's client port, until Ctrl-C."""
    from rain_deploy.verbs.nodes import tunnel

    with session.call(tunnel, session.cluster, port=port or 0) as opened:
        session.sink.pause()
        echo(f"127.0.0.1:{opened.port}")
        session.say(f"forwarded to {opened.target}; Ctrl-C closes it")
        session.app.wait()
    return 0


@verb("dashboard", interactive=True, examples=("dashboard", "dashboard --no-browser --port 8080"))
@_PORT
@option("--no-browser", is_flag=True, help="Only print the address.")
def dashboard_command(session: Session, *, port: int | None, no_browser: bool) -> int:
    """Forward a local port to Rain's dashboard until Ctrl-C, and open it in the browser."""
    from rain_deploy.verbs.nodes import dashboard

    with session.call(dashboard, session.cluster, port=port or 0) as opened:
        session.sink.pause()
        echo(opened.url)
        session.say(f"forwarded to {opened.target}; Ctrl-C closes it")
        if not no_browser:
            session.app.browse(opened.url)
        session.app.wait()
    return 0
