"""The context of a verb: the store, the transport, the providers, and the way back to the user."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rain_deploy import workers
from rain_deploy.core.events import EventSink
from rain_deploy.fleet.fanout import Executor
from rain_deploy.providers.base import Provider
from rain_deploy.results.report.maker import Reports
from rain_deploy.transport.base import Transport

if TYPE_CHECKING:
    from rain_deploy.state.store import Record, Store

Confirm = Callable[[str], bool]
"""Asks the user a yes-or-no question.  Raises UsageError without a terminal, unless ``--yes`` answers."""


@dataclass(frozen=True, slots=True)
class Context:
    """One command's world, made by ``wiring`` and closed by it when the command ends."""

    home: Path  # RAIN_DEPLOY_HOME: exists, mode 0700
    store: "Store"
    transport: Transport
    local: Transport  # this machine itself
    provider_for: Callable[[str], Provider]
    """``exoscale``, ``hosts`` or ``local``; InputError for one that this version has not."""
    emit: EventSink  # called from the verb's thread and from worker threads
    confirm: Confirm
    cwd: Path  # absolute directory of the command; ``results/<run>`` lies under it unless ``--out`` is given
    executor: Executor  # runs stages on hosts, over ``transport``
    reports: Reports = field(default_factory=Reports)
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = workers.pause

    @contextlib.contextmanager
    def change(self, name: str, verb: str, *, ending: bool = False) -> Iterator["Record"]:
        """Hold a cluster while ``verb`` changes it.  Raises Locked, naming the holder, if it is held.

        ``ending``: it ends what costs, also where nothing can be recorded.
        """
        from rain_deploy.state.store import Record  # noqa: PLC0415 - SQLite is not for --help

        with self.store.lock(name, verb, ending=ending):
            yield Record(self.store, name)
