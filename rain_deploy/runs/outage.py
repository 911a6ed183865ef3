"""A connection to a run that was lost: tries to get it back, and finds out if the machine is gone."""

import math
import time
from dataclasses import dataclass

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.seen import account_of
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice
from rain_deploy.core.run import RunRecord, RunState
from rain_deploy.errors import Unreachable
from rain_deploy.node import wire
from rain_deploy.runs.lost import all_here
from rain_deploy.runs.states import record_state, why_over

RECONNECT_S = 600.0
"""Time for which a lost connection is tried again before the command gives up."""
LOOK_EVERY_S = 5.0  # while it is tried again, the account is asked this often if the machine is on
PAUSES_S = (0.2, 1.0, 2.0, 5.0)


@dataclass(slots=True)
class Outage:
    """A connection that was lost: asks if the machine is on, and waits between the tries to get it back."""

    ctx: Context
    cluster: Cluster
    record: RunRecord
    since_s: float | None = None
    looked_s: float = -math.inf
    tries: int = 0

    def next(self, error: Unreachable, known: wire.RunStatus, progress: str) -> wire.RunStatus | None:
        """Wait until the next try, or return how the run ended.  Raises the error after RECONNECT_S.

        ``known``: what was heard of the run last.
        """
        now_s, run, name = self.ctx.clock(), self.record.id, self.cluster.name
        if now_s - self.looked_s >= LOOK_EVERY_S:
            self.looked_s = now_s
            if ended := self.ended(error, known, progress):
                return ended
        self.since_s = now_s if self.since_s is None else self.since_s
        if now_s - self.since_s > RECONNECT_S:
            error.still_running = f"run {run}, unless {self.cluster.server.name} was ended"
            error.next_step = f"rain-deploy attach {run} -c {name}"
            raise error
        if self.tries == 0:
            rest = "reconnecting; the run does not depend on the connection"
            self.ctx.emit(Notice(f"connection lost ({error.message}); {rest}"))
        self.ctx.pause(PAUSES_S[min(self.tries, len(PAUSES_S) - 1)])
        self.tries += 1
        return None

    def ended(self, error: Unreachable, known: wire.RunStatus, progress: str) -> wire.RunStatus | None:
        """Return how the run ended, if all its results are here, or if its machine is off or gone."""
        return self._ended_here(error) or self._look(known, progress)

    def _ended_here(self, error: Unreachable) -> wire.RunStatus | None:
        """Return how the run ended if all its results are here, whatever has become of its machine."""
        found = all_here(self.ctx, self.record)
        if found is None:
            return None
        status, pulled = found
        here = f"all results of run {self.record.id} are here, in {pulled.results_dir}"
        self.ctx.emit(Notice(f"{self.cluster.server.name} is out of reach ({error.message}); {here}"))
        return status

    def _look(self, known: wire.RunStatus, progress: str) -> wire.RunStatus | None:
        """Return how the run ended if its machine is off or gone; record it, unless an end is on record."""
        ctx, cluster = self.ctx, self.ctx.store.cluster(self.cluster.name) or self.cluster  # its limit of now
        account = account_of(ctx, cluster) if cluster.bill else None
        why, server = why_over(cluster, account, time.time()), cluster.server.name
        if ctx.provider_for(cluster.provider).ended(cluster, server):
            why = f"{server} is gone: none of its processes is left"
        if not why:
            return None
        there = account and server in account.machines(cluster)
        outcome = wire.Outcome.POWERED_OFF if there or (account and account.silent) else wire.Outcome.LOST
        message = "; ".join(filter(None, (why, progress)))
        status = wire.RunStatus(
            state=RunState.FINISHED,
            outcome=outcome,
            message=message,
            attempt=known.attempt,
            started_s=known.started_s,
            nodes=known.nodes,
        )
        if self.record.state != RunState.FINISHED:
            record_state(ctx, self.record, status)
        return status
