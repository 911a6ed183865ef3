"""A cluster's machines as the cloud tells them, beside what the record says."""

from __future__ import annotations

from dataclasses import dataclass

from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.machine import Resource
from rain_deploy.errors import ApiError, CredentialsError, HostKeyError, InputError
from rain_deploy.fleet.fanout import fan_out
from rain_deploy.providers.base import Cloud

RUNNING, STARTING = "running", "starting"
ASLEEP = frozenset({"stopped", "stopping"})
"""What a machine is that has powered itself off: it can be started."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What the cloud answered; ``silent`` says why it did not."""

    found: tuple[Resource, ...] = ()
    silent: str = ""

    def machines(self, cluster: Cluster) -> dict[str, Resource]:
        """Those that carry the cluster's id, by node name."""
        mine = (found for found in self.found if found.cluster_id == cluster.id)
        return {found.name: found for found in mine if found.is_machine}


def look_at(cloud: Cloud) -> Sight:
    """One survey.  That the cloud does not answer is an answer too: the machines may be well."""
    try:
        return Sight(cloud.survey())
    except (ApiError, CredentialsError) as error:
        return Sight(silent=error.message)


def seen(ctx: Context, provider: str) -> Sight | None:
    """What the cloud of a provider tells, if it can be asked at all; None where nothing is priced."""
    try:
        cloud = ctx.provider_for(provider).cloud
    except (CredentialsError, InputError) as error:
        return Sight(silent=error.message)
    return look_at(cloud) if cloud else None


def answering(ctx: Context, cloud: Cloud, cluster: Cluster) -> tuple[Node, ...]:
    """Nodes that answer over SSH.

    Raises HostKeyError for a machine that runs at its recorded address with another key: where it is powered
    off, the address may be another machine's by now.
    """
    outcomes = fan_out(tuple(node.host for node in cluster.nodes), ctx.transport.connect)
    wrong = {name: error for name, error in outcomes.errors.items() if isinstance(error, HostKeyError)}
    machines = look_at(cloud).machines(cluster) if wrong else {}
    for node in cluster.nodes:
        found = machines.get(node.name)
        if node.name in wrong and (found is None or not _moved(node, found)):
            raise wrong[node.name]
    return tuple(node for node in cluster.nodes if node.name in outcomes.values)


def _moved(node: Node, found: Resource) -> bool:
    return found.state != RUNNING or found.address != node.host.address


def cloud_drift(ctx: Context, cluster: Cluster, sight: Sight) -> tuple[str, ...]:
    """What the record and the cloud do not agree on, in sentences."""
    if sight.silent:
        return (f"the cloud did not tell how the machines are: {sight.silent}",)
    machines = sight.machines(cluster)
    recorded = {ref.name for ref in ctx.store.resources(cluster.id) if ref.is_machine}
    addresses = {node.name: node.host.address for node in (*cluster.nodes, *cluster.left_out)}
    lines = [f"{name}: its machine is gone" for name in sorted(recorded - machines.keys())]
    for name, found in sorted(machines.items()):
        if name not in recorded:
            lines.append(f"{name}: a machine of this cluster that is not on record ({found.ref})")
        elif found.state != RUNNING:
            lines.append(f"{name}: its machine is {found.state}")
        elif name not in addresses:
            lines.append(f"{name}: its machine runs and is no node yet ({found.ref})")
        elif addresses[name] != found.address:
            lines.append(f"{name}: its machine has another address now ({found.address})")
    return tuple(lines)


def out_of_reach(cluster: Cluster, sight: Sight) -> dict[str, str]:
    """Nodes that need not be asked over SSH, each with its state as NodeLine knows it."""
    machines = sight.machines(cluster)
    states = {}
    for node in cluster.nodes:
        found = machines.get(node.name)
        if found is None:
            states[node.name] = "gone"
        elif _moved(node, found):
            states[node.name] = "stopped" if found.state in ASLEEP else "unreachable"
    return {} if sight.silent else states
