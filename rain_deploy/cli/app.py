"""What a command is given from outside, so that a test can give it something else."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain_deploy import wiring
from rain_deploy.cli.show.text import is_terminal

if TYPE_CHECKING:
    from rain_deploy.cluster.context import Confirm, Context
    from rain_deploy.core.events import EventSink

    MakeContext = Callable[[Path, EventSink, Confirm], AbstractContextManager[Context]]


def call_verb(verb: Callable[..., Any], ctx: Context, *arguments: Any, **named: Any) -> Any:
    """Call a verb: what ``Application.call_verb`` does unless a test wants to see the call."""
    return verb(ctx, *arguments, **named)


@dataclass(frozen=True, slots=True)
class Application:
    """The command line's own seams; ``application`` fills them with the real ones."""

    make_context: MakeContext
    """(home, sink, confirm) -> the verbs' Context, closed when the command ends."""
    environ: Mapping[str, str]
    credentials: Callable[[], str | None]
    """Says in words where the cloud's credentials are; None: nowhere.  Raises InputError."""
    interactive: bool
    """Somebody sits at a terminal and can answer."""
    call: Callable[[tuple[str, ...]], int]
    """Runs a program in the foreground, on our own terminal; returns its exit status."""
    browse: Callable[[str], object]
    """Opens an address in the user's browser."""
    wait: Callable[[], object]
    """Returns when the user has had enough; normally never, by KeyboardInterrupt."""
    call_verb: Callable[..., Any] = call_verb


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """The flags that every verb takes."""

    cluster: str = "default"
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    yes: bool = False
    config: Path | None = None


def application() -> Application:
    """Return the real one."""
    return Application(
        make_context=wiring.context,
        environ=os.environ,
        credentials=wiring.credentials,
        interactive=is_terminal(sys.stdin) and is_terminal(sys.stderr),
        call=subprocess.call,
        browse=webbrowser.open,
        wait=threading.Event().wait,
    )
