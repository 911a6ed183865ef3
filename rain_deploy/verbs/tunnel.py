"""``tunnel`` and ``dashboard``: ports of the server node on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import living
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.layout import HTTP_PORT, IDLE_PORT
from rain_deploy.core.result import Result
from rain_deploy.runs.states import run_states, unfinished


@dataclass(frozen=True, slots=True)
class Tunnel(Result):
    """An open port on loopback of this machine; it closes when the verb ends."""

    cluster: str
    port: int
    target: str
    """Where it leads, like ``node-1 127.0.0.1:7210``."""
    url: str = ""
    """The address of the dashboard, if this is one."""


@contextlib.contextmanager
def tunnel(ctx: Context, name: str, port: int = 0) -> Iterator[Tunnel]:
    """Open Rain's client port on loopback: of the server of the active run, or else of the idle server."""
    cluster = living(ctx, name)
    active = unfinished(run_states(ctx, cluster))
    ports = {record.id: record.port for record in ctx.store.runs(cluster.name)}
    client_port = next((ports[run] for run in active if run in ports), IDLE_PORT)
    with _forwarded(ctx, cluster, client_port, port) as open_port:
        yield open_port


@contextlib.contextmanager
def dashboard(ctx: Context, name: str, port: int = 0) -> Iterator[Tunnel]:
    """Open Rain's dashboard on loopback.  Any user of this machine can reach it while it is open."""
    cluster = living(ctx, name)
    with _forwarded(ctx, cluster, HTTP_PORT, port) as open_port:
        yield open_port


@contextlib.contextmanager
def _forwarded(ctx: Context, cluster: Cluster, remote_port: int, local_port: int) -> Iterator[Tunnel]:
    server = cluster.server
    forward = ctx.transport.forward(server.host, server.cluster_address, remote_port, local_port=local_port)
    with contextlib.closing(forward):
        yield Tunnel(
            cluster=cluster.name,
            port=forward.local_port,
            target=f"{server.name} {server.cluster_address}:{remote_port}",
            url=f"http://127.0.0.1:{forward.local_port}/" if remote_port == HTTP_PORT else "",
        )
