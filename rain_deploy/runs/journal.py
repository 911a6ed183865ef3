"""Brings a cluster's journal here with its results, and gives it to the cluster that comes next."""

import json
from dataclasses import replace
from pathlib import Path

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import understood
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice
from rain_deploy.core.text import count, size
from rain_deploy.errors import EngineError, InputError, RainDeployError
from rain_deploy.node.wire import JournalUsage, WireError, read, to_json
from rain_deploy.parts.services import node_command
from rain_deploy.results import journals
from rain_deploy.results.journals import Copy
from rain_deploy.state.drafts import draft_next_to
from rain_deploy.transport.base import Chunk

GIVEN_UNASKED_BYTES = 100_000_000  # larger copies are given only with --journal PATH
LITTLE_BYTES = 8_000_000
"""Files up to this size come with each run; larger ones with ``pull`` and ``down``."""
COPY_DEADLINE_S = 3600.0


def bring_journal(ctx: Context, cluster: Cluster, *, file_bytes: int = journals.MOST_BYTES) -> None:
    """Bring here what is new in the journal of a cluster.  If that fails, say so."""
    try:
        _bring(ctx, cluster, file_bytes)
    except (RainDeployError, WireError, OSError) as error:
        lost = f"another cluster would compute the tasks of {cluster.name} again: its journal was not copied"
        ctx.emit(Notice(f"{lost}: {_why(error)}", warning=True))


def _bring(ctx: Context, cluster: Cluster, file_bytes: int) -> None:
    copy, limit_bytes = journals.copy_for(ctx.home, cluster), journals.limit_of_copies(ctx.home)
    wish = copy.wish(file_bytes, limit_bytes)
    asked = json.dumps(to_json(wish)).encode("ascii")
    place = cluster.layout.cluster
    command = node_command(cluster, "journal-send", place, deadline_s=COPY_DEADLINE_S, stdin=asked)

    def send(sink: Chunk) -> None:
        done = ctx.transport.run(cluster.server.host, command, on_stdout=sink)
        done.require(EngineError, "`journal-send` failed on the server node", cluster.server.name)

    copy.path.parent.mkdir(mode=0o700, exist_ok=True)
    with draft_next_to(ctx.home, copy.path) as draft:
        journals.renew(copy, cluster.id, draft, send, wish.total_bytes)
    journals.prune_copies(ctx.home, limit_bytes)


def named_copy(path: Path) -> Copy:
    """Return the copy in the directory that ``--journal`` names.  Raises InputError if there is none."""
    try:
        return journals.copy_at(path)
    except (OSError, WireError) as error:
        message = f"--journal: {path} holds no copy of a journal: {error}"
        raise InputError(message, next_step="rain-deploy journal lists all that are here") from error


def offer_journal(ctx: Context, cluster: Cluster) -> None:
    """Give a new cluster what is kept of the last one with its name and environment, unless it is large."""
    copy = journals.copy_for(ctx.home, cluster)
    usage = copy.about.usage
    if usage.bytes > GIVEN_UNASKED_BYTES:
        kept = f"{count(usage.records, 'result')} ({size(usage.bytes)}) of an earlier {cluster.name}"
        ctx.emit(Notice(f"{kept} are kept here; to use them: rain-deploy up --journal {copy.path}"))
    elif usage.segments:
        give_journal(ctx, cluster, copy)


def give_journal(ctx: Context, cluster: Cluster, copy: Copy) -> None:
    """Put a copy into the journal of a cluster.  If that is of no use or fails, say so."""
    about, usage = copy.about, copy.about.usage
    kept = f"{count(usage.records, 'result')} ({size(usage.bytes)}) of an earlier {about.cluster}"
    if about.env_digest != cluster.env_digest:
        ctx.emit(Notice(f"{kept} are not used: they were computed with other packages", warning=True))
        return
    place = cluster.layout.cluster
    try:
        for batch in copy.batches():
            command = node_command(cluster, "journal-take", place, deadline_s=COPY_DEADLINE_S, stdin=batch)
            done = ctx.transport.run(cluster.server.host, command)
            answer = done.require(
                EngineError, "`journal-take` failed on the server node", cluster.server.name
            )
            with understood(cluster, cluster.server.name):
                read(JournalUsage, answer)
        if copy.path == journals.copy_for(ctx.home, cluster).path:
            listed = tuple(file.name for file in copy.files())
            copy.save(replace(about, cluster_id=cluster.id, listed=listed))
    except (RainDeployError, OSError) as error:
        ctx.emit(Notice(f"{kept} could not be sent, and are computed again: {_why(error)}", warning=True))
    else:
        ctx.emit(Notice(f"sent {kept}: tasks that did not change are not computed again"))


def _why(error: Exception) -> str:
    return error.message if isinstance(error, RainDeployError) else str(error)
