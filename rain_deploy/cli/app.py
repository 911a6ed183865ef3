"""What a command is given from outside, so that a test can give it something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rain_deploy.cli.flows import Flows

if TYPE_CHECKING:
    from rain_deploy.cluster.context import Confirm, Context
    from rain_deploy.core.events import EventSink

    MakeContext = Callable[[Path, EventSink, Confirm], AbstractContextManager[Context]]


@dataclass(frozen=True, slots=True)
class Application:
    """The command line's own seams; ``wiring.application`` fills them with the real ones."""

    flows: Flows
    make_context: MakeContext
    """(home, sink, confirm) -> the flows' Context, closed when the command ends."""
    environ: Mapping[str, str]
    credentials: Callable[[], str | None]
    """Where those of the cloud are found, in words; None: nowhere.  Raises InputError."""
    interactive: bool
    """Somebody sits at a terminal and can answer."""
    call: Callable[[tuple[str, ...]], int]
    """Runs a program in the foreground, on our own terminal; its exit status."""
    browse: Callable[[str], object]
    """Opens an address in the user's browser."""
    wait: Callable[[], None]
    """Returns when the user has had enough; normally never, by KeyboardInterrupt."""
    words: tuple[str, ...] = ()
    """The command line, as it was typed after the program's name."""


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """The flags that every verb takes."""

    cluster: str
    json: bool
    quiet: bool
    verbose: bool
    yes: bool
    config: Path | None
