"""Run the tasks of ``ansible/down.yml``: the steps of ``down``, one host at a time."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from rain_deploy.api.playbook import VERB, Done, Task
from rain_deploy.cluster.destroy import forget
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.step import Stage
from rain_deploy.errors import InputError
from rain_deploy.fleet.fanout import SshExecutor
from rain_deploy.parts.services import remove_stage, stop_stage
from rain_deploy.runs.finish import end_records, pull_all
from rain_deploy.runs.states import run_states, unfinished


@dataclass(frozen=True, slots=True)
class DownTask(Task):
    """One task of the way back, for the host that is ``name``."""

    def results(self) -> Done:
        """Pull the results that are not here yet; from then on the cluster takes no run.

        Raises InputError while a run is active, PullFailed.
        """
        cluster, pulled = self._recorded, tuple[str, ...]()
        if cluster is None:
            return Done()
        # Ansible's connection would hold all of a stream in memory.
        ctx = replace(self.ctx, transport=self.own, executor=SshExecutor(self.own))
        pulling = cluster.up and not self.discard_results
        if pulling and (active := unfinished(run_states(ctx, cluster))):
            cancel = f"rain-deploy cancel {active[0]} -c {cluster.name}"
            next_step = f"{cancel}; or lose its results: -e rain_node_discard_results=true"
            raise InputError(f"run {active[0]} is still active on {cluster.name}", next_step=next_step)
        if not self.check:
            with ctx.change(self.spec.name, VERB) as record:
                pulled = pull_all(ctx, record, None) if pulling else ()
                record.change(up=False)
        return Done(tuple(f"pulled {run}" for run in pulled))

    def stop(self) -> Done:
        """End all services of the host, and prove it."""
        return self._ended(stop_stage, "its processes are ended")

    def remove(self) -> Done:
        """Remove files and packet filter of the host; caches stay."""

        def stage(cluster: Cluster, _node: Node) -> Stage:
            wall = self.ctx.provider_for(cluster.provider).traits.needs_wall
            return remove_stage(cluster, wall=wall)

        return self._ended(stage, "its files and packet filter table are removed")

    def forget(self) -> Done:
        """Forget the cluster: nothing of it is left on any host."""
        cluster = self._recorded
        if cluster is None or self.check:
            return Done(("the cluster is forgotten",) if cluster else ())
        with self.ctx.change(self.spec.name, VERB) as record:
            _, verified = forget(self.ctx, record)
            end_records(self.ctx, cluster.whole)
        return Done(("the cluster is forgotten",), lines=(verified,))

    @property
    def _recorded(self) -> Cluster | None:
        """Return the recorded cluster.  Raises InputError if the play is not for exactly its hosts."""
        cluster, entries = self.ctx.store.cluster(self.spec.name), self.spec.machines.hosts
        if cluster is None:
            return None
        next_step = f"rain-deploy down -c {cluster.name}"
        if self.ctx.provider_for(cluster.provider).traits.owned:
            message = (
                f"cluster {cluster.name} is of provider {cluster.provider}, whose machines a play leaves"
            )
            raise InputError(message, next_step=next_step)
        nodes = sorted(cluster.every_node, key=lambda node: node.host.index)
        recorded = tuple(node.host.label if entries else node.name for node in nodes)
        if (given := entries or self.names) != recorded:
            message = (
                f"cluster {cluster.name} has {', '.join(recorded)}, and the play is for {', '.join(given)}"
            )
            raise InputError(message, next_step=next_step)
        return cluster

    def _ended(self, stage: Callable[[Cluster, Node], Stage], what: str) -> Done:
        cluster = self._recorded
        if cluster is None or self.check:
            return Done((what,) if cluster else ())
        cluster = cluster.whole
        report = self.run(cluster, stage(cluster, self.node_of(cluster)))
        return Done((what,), lines=tuple(f"{self.name}: no {line}" for line in report.values("absent")))
