"""A run's files, read where they are: on the server node while it has them, else in the results here."""

from __future__ import annotations

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.wake import awake
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.command import Command
from rain_deploy.core.run import RunRecord
from rain_deploy.errors import InputError
from rain_deploy.parts.services import layout_of

_READ_DEADLINE_S = 300.0


def holder(ctx: Context, record: RunRecord) -> Cluster | None:
    """Return the cluster whose server node has the run, awake; None when only the results here are left.

    No machine is started, for money, to show what was pulled.
    """
    cluster = ctx.store.cluster(record.cluster)
    if cluster is None or cluster.id != record.cluster_id:
        return None
    if cluster.bill is not None and record.pulled and record.out.is_dir():
        return None
    return awake(ctx, cluster, (cluster.server,))


def remote_file(ctx: Context, cluster: Cluster, record: RunRecord, name: str) -> bytes:
    """Return a file of the run's directory on the server node; empty when it is not there (yet)."""
    path = f"{layout_of(cluster).run(record.id)}/{name}"
    command = Command(("sh", "-c", '[ ! -e "$0" ] || cat -- "$0"', path), deadline_s=_READ_DEADLINE_S)
    return ctx.transport.run(cluster.server.host, command).stdout


def pulled_file(record: RunRecord, name: str) -> bytes:
    """Return a file of the results here.  Raises InputError."""
    try:
        return (record.out / name).read_bytes()
    except OSError as error:
        raise InputError(
            f"the cluster of run {record.id} is gone, and {record.out / name} cannot be read: "
            f"{error.strerror}",
            next_step=f"rain-deploy runs -c {record.cluster}",
        ) from error
