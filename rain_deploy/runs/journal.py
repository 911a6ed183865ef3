"""Brings a cluster's journal here with its results, and gives it to the cluster that comes next."""

import json
import shlex
import threading
import time
from collections.abc import Container
from dataclasses import replace
from pathlib import Path
from typing import Self

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import understood
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice
from rain_deploy.core.step import Command
from rain_deploy.core.text import count, size
from rain_deploy.errors import EngineError, InputError, RainDeployError, Unreachable
from rain_deploy.node.wire import JOURNAL_BYTES, LITTLE_BYTES, JournalUsage, WireError, read, to_json
from rain_deploy.parts.services import node_command
from rain_deploy.results import journals
from rain_deploy.results.journals import Copy
from rain_deploy.state.drafts import draft_next_to
from rain_deploy.transport.base import Chunk

GIVEN_UNASKED_BYTES = 100_000_000  # larger copies are given only with --journal PATH
LITTLE_FILE_BYTES = LITTLE_BYTES + 1_000_000  # with what is about the results
"""Larger files come only with ``pull`` and ``down``, and not while a run is followed or at its end."""
COPY_DEADLINE_S = 3600.0
WINDOW_S = 5.0
"""So long after a result is stored it is brought, while its run is followed; each pull waits for the last."""
_one_at_a_time = threading.Lock()


def bring_journal(ctx: Context, cluster: Cluster, *, file_bytes: int = JOURNAL_BYTES) -> None:
    """Bring here what is new in the journal of a cluster.  If that fails, say so."""
    try:
        _bring(ctx, cluster, file_bytes)
    except (RainDeployError, WireError, OSError) as error:
        ctx.emit(_not_brought(cluster, error))


def _not_brought(cluster: Cluster, error: Exception) -> Notice:
    lost = f"another cluster would compute the tasks of {cluster.name} again: its journal was not copied"
    return Notice(f"{lost}: {_why(error)}", warning=True)


def _bring(
    ctx: Context, cluster: Cluster, file_bytes: int, *, after: str = "", background: bool = False
) -> str:
    """Bring here the files that are named after ``after``; return the name of the newest on the server node.

    Raises RainDeployError, WireError, OSError.
    """
    place = cluster.layout.cluster
    if not _one_at_a_time.acquire(timeout=COPY_DEADLINE_S):
        raise Unreachable("the pull before it does not end", node=cluster.server.name)
    try:
        copy, limit_bytes = journals.copy_for(ctx.home, cluster), journals.limit_of_copies(ctx.home)
        wish = copy.wish(file_bytes, limit_bytes, after)
        asked = json.dumps(to_json(wish)).encode("ascii")
        command = node_command(cluster, "journal-send", place, deadline_s=COPY_DEADLINE_S, stdin=asked)
        command = replace(command, background=background)

        def send(sink: Chunk) -> None:
            done = ctx.transport.run(cluster.server.host, command, on_stdout=sink)
            done.require(EngineError, "`journal-send` failed on the server node", cluster.server.name)

        copy.path.parent.mkdir(mode=0o700, exist_ok=True)
        with draft_next_to(ctx.home, copy.path) as draft:
            newest = journals.renew(copy, draft, send, wish)
        journals.prune_copies(ctx.home, limit_bytes)
        return newest
    finally:
        _one_at_a_time.release()


class Bringing:
    """Brings results here as they are stored, while a run is followed: in the background, pull after pull.

    It may fail: a lost connection is the follower's to report, of any other fault the first is a warning.
    """

    def __init__(self, ctx: Context, cluster: Cluster, *, window_s: float = WINDOW_S) -> None:
        self._ctx, self._cluster, self._window_s = ctx, cluster, window_s
        self._stored, self._over = threading.Event(), threading.Event()
        self._warned = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, name="bringing", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Begin no other pull.  One that is under way is waited for by the next that is asked for."""
        self._over.set()
        self._stored.set()

    def stored(self) -> None:
        """Take note of a new result."""
        self._stored.set()

    def _serve(self) -> None:
        after, took_s = "", 0.0
        while self._stored.wait() and not self._over.wait(max(self._window_s, took_s)):
            self._stored.clear()
            began_s = time.monotonic()
            try:
                after = _bring(self._ctx, self._cluster, LITTLE_FILE_BYTES, after=after, background=True)
            except (RainDeployError, WireError, OSError) as error:
                self._stored.set()
                self._warn(error)
            took_s = time.monotonic() - began_s

    def _warn(self, error: Exception) -> None:
        if not (self._warned or self._over.is_set() or isinstance(error, Unreachable)):
            self._warned = True
            self._ctx.emit(_not_brought(self._cluster, error))


def named_copy(path: Path) -> Copy:
    """Return the copy in the directory that ``--journal`` names.  Raises InputError if there is none."""
    try:
        return journals.copy_at(path)
    except (OSError, WireError) as error:
        message = f"--journal: {path} holds no copy of a journal: {error}"
        raise InputError(message, next_step="rain-deploy journal lists all that are here") from error


def offer_journal(ctx: Context, cluster: Cluster) -> None:
    """Give a new cluster what is kept of earlier ones with the same environment, unless it is large."""
    given = set[str]()
    for copy in tuple(journals.fitting(ctx.home, cluster)):
        if copy.about.usage.bytes <= GIVEN_UNASKED_BYTES:
            give_journal(ctx, cluster, copy, given)
            given |= {file.name for file in copy.files()}
        else:
            use = f"rain-deploy up -c {cluster.name} --journal {shlex.quote(str(copy.path))}"
            ctx.emit(Notice(f"{_kept(copy)} are kept here; to use them: {use}"))


def give_none(ctx: Context, cluster: Cluster) -> None:
    """Make an empty journal on the server node, so that a later ``up`` sends no copy either."""
    command = Command(("mkdir", "-p", f"{cluster.layout.cluster}/journal"))
    try:
        done = ctx.transport.run(cluster.server.host, command)
        done.require(EngineError, "the server node cannot make a journal", cluster.server.name)
    except RainDeployError as error:
        later = "a later `up` may send kept results; use --journal none again"
        ctx.emit(Notice(f"{later}: {_why(error)}", warning=True))


def _kept(copy: Copy) -> str:
    usage = copy.about.usage
    return f"{count(usage.records, 'result')} ({size(usage.bytes)}) of cluster {copy.about.cluster}"


def give_journal(ctx: Context, cluster: Cluster, copy: Copy, but: Container[str] = ()) -> None:
    """Put a copy, without the files named ``but``, into the journal of a cluster.

    If that is of no use or fails, say so.
    """
    kept = _kept(copy)
    if copy.about.env_digest != cluster.env_digest:
        ctx.emit(Notice(f"{kept} are not used: they were computed with other packages", warning=True))
        return
    place = cluster.layout.cluster
    try:
        for batch in copy.batches(but):
            command = node_command(cluster, "journal-take", place, deadline_s=COPY_DEADLINE_S, stdin=batch)
            done = ctx.transport.run(cluster.server.host, command)
            answer = done.require(
                EngineError, "`journal-take` failed on the server node", cluster.server.name
            )
            with understood(cluster, cluster.server.name):
                read(JournalUsage, answer)
    except (RainDeployError, OSError) as error:
        ctx.emit(Notice(f"{kept} could not be sent, and are computed again: {_why(error)}", warning=True))
        return
    ctx.emit(Notice(f"sent {kept}: tasks that did not change are not computed again"))
    try:
        journals.copy_for(ctx.home, cluster).adopt(copy)
    except OSError as error:
        unnoted = f"the copy of cluster {cluster.name} does not have them yet; the next pull brings them"
        ctx.emit(Notice(f"{unnoted}: {_why(error)}", warning=True))


def _why(error: Exception) -> str:
    return error.message if isinstance(error, RainDeployError) else str(error)
