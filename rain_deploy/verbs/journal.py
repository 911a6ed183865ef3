"""``journal``: what is kept of finished tasks, on the server node and here."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import ask_server, recorded, understood
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice, Result
from rain_deploy.core.text import count, size
from rain_deploy.errors import Declined, InputError, Unreachable
from rain_deploy.node.wire import JournalUsage, read
from rain_deploy.results.journals import copies, delete_copies
from rain_deploy.runs.states import run_states, unfinished


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One journal, or a copy of one."""

    where: str  # the server node's name, or a directory here
    cluster: str
    usage: JournalUsage
    action: str = "kept"  # or ``deleted``


@dataclass(frozen=True, slots=True)
class JournalResult(Result):
    """The result of ``journal``."""

    cluster: str
    lines: tuple[JournalLine, ...]


def journal(ctx: Context, name: str, *, prune: bool = False) -> JournalResult:
    """Return the journal of the cluster, and all copies here; with ``prune`` delete those of the cluster."""
    cluster, lines = ctx.store.cluster(name), list[JournalLine]()
    if cluster and cluster.up:
        lines += _on_server(ctx, cluster, must=prune)
    lines += [JournalLine(str(copy.path), copy.about.cluster, copy.about.usage) for copy in copies(ctx.home)]
    if not cluster and not any(line.cluster == name for line in lines):
        recorded(ctx, name)
    going = [line for line in lines if prune and line.cluster == name and line.usage.segments]
    if going:
        _agree(ctx, going)
        if cluster and cluster.up:
            ask_server(ctx, cluster, "journal", cluster.layout.cluster, "--prune")
        delete_copies(ctx.home, name)
    return JournalResult(
        name, tuple(replace(line, action="deleted") if line in going else line for line in lines)
    )


def _on_server(ctx: Context, cluster: Cluster, *, must: bool) -> Iterator[JournalLine]:
    """Yield the journal on the server node.  With ``must`` it has to answer, and to be free for changes."""
    try:
        if must and (active := unfinished(run_states(ctx, cluster))):
            message = f"run {active[0]} is not finished on {cluster.name}, and may use the journal"
            raise InputError(message, next_step=f"rain-deploy cancel {active[0]} -c {cluster.name}")
        with understood(cluster, cluster.server.name):
            usage = read(JournalUsage, ask_server(ctx, cluster, "journal", cluster.layout.cluster))
    except Unreachable as error:
        if must:
            raise
        ctx.emit(Notice(f"without the journal on {cluster.server.name}: {error.message}", warning=True))
    else:
        yield JournalLine(cluster.server.name, cluster.name, usage)


def _agree(ctx: Context, going: list[JournalLine]) -> None:
    """Ask before results are deleted.  Raises Declined."""
    for line in going:
        kept = count(line.usage.records, "result")
        ctx.emit(Notice(f"to delete: {line.where} ({kept}, {size(line.usage.bytes)})"))
    if not ctx.confirm("Delete what is kept of finished tasks? The next run computes it again."):
        raise Declined("nothing was deleted")
