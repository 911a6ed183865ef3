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
from rain_deploy.cluster.plan import Plan, plan_up
from rain_deploy.cluster.seen import look
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Event, Notice
from rain_deploy.core.spec import ClusterSpec, EnvironmentSpec
from rain_deploy.core.step import Stage
from rain_deploy.core.text import span
from rain_deploy.errors import InputError, Locked, RainDeployError, Unreachable
from rain_deploy.fleet.fanout import Outcomes, fan_out
from rain_deploy.node.wire import StateLine
from rain_deploy.state.store import Record

LOCKED_PAUSE_S = 3.0  # between two tries while another command holds the cluster
LAST_WAIT_S = 1800.0  # after the end of the run, for a replacement that is under way


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
        carry_out: Callable[[Context, Record, Plan, float], object],
        spec: ClusterSpec | None,
    ) -> None:
        """``ship`` sends the run to a node.  ``spec`` is the user's for the machines; None: replace none."""
        self._ctx, self._cluster, self._ship = ctx, cluster, ship
        self._carry_out, self._spec = carry_out, spec
        self._lost: queue.SimpleQueue[tuple[str, ...]] = queue.SimpleQueue()
        self._attempt = 0
        self._replaced = ""  # names of the nodes that are being replaced now
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="replacing", daemon=True)

    def __enter__(self) -> Self:
        if self._spec:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for a replacement that is under way: half of one would cost, and take no task."""
        self._over.set()
        self._lost.put(())
        if not self._spec:
            return
        done = f"`rain-deploy up -c {self._cluster.name}` completes it, and `down` deletes it"
        if self._replaced:
            self._ctx.emit(Notice(f"waiting until {self._replaced} is replaced; if you press Ctrl-C, {done}"))
        self._thread.join(LAST_WAIT_S)
        if self._thread.is_alive():
            late = f"{self._replaced} is still not replaced {span(LAST_WAIT_S)} after the end of the run"
            self._ctx.emit(Notice(f"{late}: {done}", warning=True))

    def take(self, line: StateLine) -> None:
        """Take note of how the run stands.  Each attempt has the nodes that it could get."""
        if self._spec and line.missing and line.attempt > self._attempt:
            self._attempt = line.attempt
            self._lost.put(line.missing)

    def _serve(self) -> None:
        assert self._spec
        # The packages stay, the hour of the time limit too; --max-cost of a run is not that of its cluster.
        spec = replace(self._spec, environment=EnvironmentSpec(), max_cost=None, ttl_s=None)
        emit = self._ctx.emit
        while names := self._lost.get():
            # Set before the look at ``over``: ``__exit__`` sets ``over`` before it looks at the names.
            self._replaced = named = ", ".join(names)
            if self._over.is_set():
                return
            emit(Notice(f"replacing {named} at the same price; the run goes on meanwhile"))
            try:
                self._replace_when_free(names, spec)
                self._send_run(names)
            except Exception as error:  # noqa: BLE001 - the run goes on, whatever it is
                why = f"{named} could not be replaced: {_why(error)}"
                emit(Notice(f"{why}; the run goes on without it", warning=True))
            else:
                # Rain 0.4.0 looks for a governor only when something changes: a task ends or is submitted
                emit(Notice(f"{named} is replaced; it gets its first task when a running one ends"))
            self._replaced = ""

    def _warn(self, event: Event) -> None:
        """Let the warnings of ``up`` through: the run's own lines say the rest."""
        if isinstance(event, Notice) and event.warning:
            self._ctx.emit(event)

    def _replace_when_free(self, names: Collection[str], spec: ClusterSpec) -> None:
        """Replace the nodes once no other command holds the cluster.  Raises Locked if the run ends first."""
        while True:
            try:
                return self._replace(names, spec)
            except Locked:
                if self._over.wait(LOCKED_PAUSE_S):
                    raise

    def _replace(self, names: Collection[str], spec: ClusterSpec) -> None:
        """Delete the machines and make them again, and let no other command come between.

        Raises InputError, with nothing deleted, if ``up`` would refuse, if the cluster is another by now, and
        at the end of its time, which nobody has agreed to move.
        """
        name, begun_s = self._cluster.name, time.monotonic()
        quiet = replace(self._ctx, confirm=lambda _: True, emit=self._warn)
        with quiet.change(name, "up") as record:
            if not record.known or record.cluster.id != self._cluster.id:
                raise InputError(f"cluster {name} was deleted meanwhile")
            if (bill := record.cluster.bill) and bill.passed(time.time()):
                raise InputError(f"the time limit of {name} has passed")
            spec = replace(spec, nodes=len(record.cluster.nodes))
            self._plan(quiet, spec)
            self._delete_silent(record, names)
            self._carry_out(quiet, record, self._plan(quiet, spec), begun_s)

    def _plan(self, ctx: Context, spec: ClusterSpec) -> Plan:
        return plan_up(ctx.provider_for(spec.provider), look(ctx, spec))

    def _delete_silent(self, record: Record, names: Collection[str]) -> None:
        """Delete the machines that do not answer any more: the server node has all results."""
        hosts = (node.host for node in record.cluster.nodes if node.name in names)
        errors = fan_out(tuple(hosts), self._ctx.transport.connect).errors
        silent = {host for host, error in errors.items() if isinstance(error, Unreachable)}
        silent -= {record.cluster.server.name}
        machines = tuple(each for each in record.resources if each.is_machine and each.name in silent)
        if machines:
            _, failed = delete(self._ctx, record, machines)
            Outcomes({}, failed).require()

    def _send_run(self, names: Collection[str]) -> None:
        """Send the run to these nodes, and with it the permission to take its tasks."""
        now = self._ctx.store.cluster(self._cluster.name) or self._cluster
        known = {node.name for node in now.nodes}
        run_stages(self._ctx, now, {name: self._ship for name in names if name in known}).require()


def _why(error: Exception) -> str:
    return error.sentence if isinstance(error, RainDeployError) else f"{type(error).__name__}: {error}"
