"""What is ahead of a run: about how long and how much, on its nodes and on other numbers of nodes."""

import time
from collections.abc import Sequence

from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import RunNodes
from rain_deploy.core.text import HOUR_S, money, span
from rain_deploy.errors import InputError
from rain_deploy.node.wire import CostCap, PointRow, RunStatus
from rain_deploy.results.tally import Outlook, outlook

SHORTEST_CAP_S = 60.0  # a run that may cost no more than such a time computes nothing


def run_nodes(cluster: Cluster, status: RunStatus | None = None) -> RunNodes:
    """Return the nodes on which a run works: those whose governors registered, or all where none is named."""
    names = status.nodes if status else ()
    cpus = {node.name: node.cpus for node in cluster.nodes if not names or node.name in names}
    return RunNodes(cpus, cluster.bill.per_hour_running if cluster.bill else 0.0, cluster.currency)


def outlook_of(cluster: Cluster, rows: Sequence[PointRow], status: RunStatus | None = None) -> Outlook | None:
    """Return how far a run is that has these rows; None without a point."""
    points = [row for row in rows if row.point]
    return outlook(points, run_nodes(cluster, status), time.time()) if points else None


def cost_cap(max_cost: float, per_hour: float, currency: str) -> CostCap:
    """Return after what time a run has cost ``max_cost``.  Raises InputError if that is at once."""
    words, seconds = f"--max-cost {money(max_cost, currency)}", max_cost / per_hour * HOUR_S
    if seconds < SHORTEST_CAP_S:
        message = f"{words}: the run would cost that within {span(seconds)}, at {money(per_hour, currency)}"
        raise InputError(f"{message} per hour", next_step="give a higher --max-cost")
    return CostCap(seconds=seconds, words=words)
