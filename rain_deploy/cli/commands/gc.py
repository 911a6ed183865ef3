"""rain-deploy gc: everything of this tool in the account, and what is left over of it deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from rain_deploy.cli.options import option, verb
from rain_deploy.cli.provider_choice import CLOUD

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.core.result import Result


@verb("gc")
@option("--delete", is_flag=True, help="Delete what is left over [default: only show it].")
@click.pass_context
def gc_command(click_context: click.Context, session: Session, *, delete: bool) -> Result:
    """Show everything of rain-deploy in the account, in every zone, by owner.

    Left over is what carries your owner label and has no living cluster in this home's state, or has passed
    its time limit.  A cluster of another home that has not passed it must be named with -c.
    """
    from rain_deploy import options as config  # noqa: PLC0415 - not for --help
    from rain_deploy.core.spec import ClusterSpec  # noqa: PLC0415 - not for --help

    spec = ClusterSpec(session.cluster, CLOUD, "the one that is priced", owner=config.owner(session.toml))
    named = click_context.get_parameter_source("cluster") is not ParameterSource.DEFAULT
    return session.flows.gc(session.ctx, spec, session.cluster if named else None, delete=delete)
