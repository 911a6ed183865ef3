"""Replaces nodes that are lost while a run is followed: ``run --replace-lost``."""

import queue
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Self

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.destroy import delete
from rain_deploy.cluster.hosts import run_stages
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Event, Notice
from rain_deploy.core.spec import ClusterSpec, EnvironmentSpec
from rain_deploy.core.step import Stage
from rain_deploy.errors import InputError, RainDeployError, Unreachable
from rain_deploy.fleet.fanout import Outcomes, fan_out
from rain_deploy.node.wire import StateLine


class Replacing:
    """Brings lost nodes back in the background, as ``up`` does; the run goes on without them meanwhile.

    The record knows each machine before it is created, so ``up``, ``down`` and ``gc`` know what a command
    that was killed has left.
    """

    def __init__(
        self,
        ctx: Context,
        cluster: Cluster,
        ship: Stage,
        up: Callable[[Context, ClusterSpec], object],
        spec: ClusterSpec | None,
    ) -> None:
        """``ship`` sends the run to a node.  ``spec`` is the user's for the machines; None: replace none."""
        self._ctx, self._cluster, self._ship = ctx, cluster, ship
        self._up, self._spec = up, spec
        self._lost: queue.SimpleQueue[tuple[str, ...]] = queue.SimpleQueue()
        self._attempt = 0
        self._replaced = ""  # names of the nodes that are being replaced now
        self._thread = threading.Thread(target=self._serve, name="replacing", daemon=True)

    def __enter__(self) -> Self:
        if self._spec:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for a replacement that is under way: half of one would cost, and take no task."""
        self._lost.put(())
        if self._replaced:
            wait = f"waiting until {self._replaced} is replaced; if you press Ctrl-C"
            done = f"`rain-deploy up -c {self._cluster.name}` completes it, and `down` deletes it"
            self._ctx.emit(Notice(f"{wait}, {done}"))
        if self._spec:
            self._thread.join()

    def take(self, line: StateLine) -> None:
        """Take note of how the run stands.  Each attempt has the nodes that it could get."""
        if self._spec and line.missing and line.attempt > self._attempt:
            self._attempt = line.attempt
            self._lost.put(line.missing)

    def _serve(self) -> None:
        assert self._spec
        # The packages stay, the hour of the time limit too; --max-cost of a run is not that of its cluster.
        nodes, emit = len(self._cluster.nodes), self._ctx.emit
        spec = replace(self._spec, nodes=nodes, environment=EnvironmentSpec(), max_cost=None, ttl_s=None)
        quiet = replace(self._ctx, confirm=lambda _: True, emit=self._warn)
        while names := self._lost.get():
            self._replaced = named = ", ".join(names)
            emit(Notice(f"replacing {named} at the same price; the run goes on meanwhile"))
            try:
                self._delete_silent(names)
                self._up(quiet, spec)
                self._send_run(names)
            except Exception as error:  # noqa: BLE001 - the run goes on, whatever it is
                why = f"{named} could not be replaced: {_why(error)}"
                emit(Notice(f"{why}; the run goes on without it", warning=True))
            else:
                emit(Notice(f"{named} is replaced, and takes tasks of this run"))
            self._replaced = ""

    def _warn(self, event: Event) -> None:
        """Let the warnings of ``up`` through: the run's own lines say the rest."""
        if isinstance(event, Notice) and event.warning:
            self._ctx.emit(event)

    def _delete_silent(self, names: Collection[str]) -> None:
        """Delete the machines that do not answer any more: the server node has all results.

        Raises InputError at the end of the cluster's time, which nobody has agreed to move.
        """
        ctx, name = self._ctx, self._cluster.name
        with ctx.change(name, "run") as record:
            if (bill := record.cluster.bill) and bill.passed(time.time()):
                raise InputError(f"the time limit of {name} has passed")
            hosts = (node.host for node in record.cluster.nodes if node.name in names)
            errors = fan_out(tuple(hosts), ctx.transport.connect).errors
            silent = {host for host, error in errors.items() if isinstance(error, Unreachable)}
            silent -= {record.cluster.server.name}
            machines = tuple(each for each in record.resources if each.is_machine and each.name in silent)
            if machines:
                _, failed = delete(ctx, record, machines)
                Outcomes({}, failed).require()

    def _send_run(self, names: Collection[str]) -> None:
        """Send the run to these nodes, and with it the permission to take its tasks."""
        now = self._ctx.store.cluster(self._cluster.name) or self._cluster
        known = {node.name for node in now.nodes}
        run_stages(self._ctx, now, {name: self._ship for name in names if name in known}).require()


def _why(error: Exception) -> str:
    if not isinstance(error, RainDeployError):
        return f"{type(error).__name__}: {error}"
    return f"{error.message}; next: {error.next_step}" if error.next_step else error.message
