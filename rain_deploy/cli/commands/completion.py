"""rain-deploy completion SHELL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rain_deploy.cli.command import verb

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session


@verb("completion", interactive=True)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion_command(click_context: click.Context, session: Session, *, shell: str) -> int:
    """Print the completion script for a shell. For bash: eval "$(rain-deploy completion bash)"."""
    from click.shell_completion import get_completion_class

    del session
    made = get_completion_class(shell)
    root = click_context.find_root()
    if made is not None:
        click.echo(made(root.command, {}, "rain-deploy", "_RAIN_DEPLOY_COMPLETE").source())
    return 0
