"""``clean``: the caches of this machine, with their sizes; what nothing needs is removed."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rain_deploy.cluster.context import Context
from rain_deploy.core.events import Notice, Result
from rain_deploy.core.spec import EngineSpec, ResolvedEnvironment
from rain_deploy.core.text import size
from rain_deploy.errors import Declined
from rain_deploy.parts.software import code_bundle, engine_key, environment_digest, node_lock
from rain_deploy.parts.supply.cache import uv_pin


@dataclass(frozen=True, slots=True)
class CacheLine:
    """An entry of a cache."""

    path: Path
    what: str  # ``engine``, ``environment``, ``node code`` or ``uv``
    bytes: int
    action: str  # ``kept``, ``to remove`` or ``removed``
    reason: str


@dataclass(frozen=True, slots=True)
class CleanResult(Result):
    """The result of ``clean``: every entry of the caches, largest first."""

    lines: tuple[CacheLine, ...]

    def bytes_of(self, action: str) -> int:
        """Return the size of all entries with this action."""
        return sum(line.bytes for line in self.lines if line.action == action)


def clean(ctx: Context, *, everything: bool) -> CleanResult:
    """Show the caches, and remove after a yes what no cluster here uses and no next ``up`` needs.

    ``everything``: also what the next ``up`` needs, so that it builds and downloads again.
    """
    lines = sorted(_lines(ctx, everything=everything), key=lambda line: -line.bytes)
    going = [line for line in lines if line.action == "to remove"]
    for line in going:
        ctx.emit(Notice(f"to remove: {line.what} {line.path} ({size(line.bytes)}): {line.reason}"))
    total = sum(line.bytes for line in going)
    entries = "1 cache entry" if len(going) == 1 else f"{len(going)} cache entries"
    if going and not ctx.confirm(f"Remove {entries} ({size(total)})?"):
        raise Declined("nothing was removed")
    if going:
        ctx.emit(Notice(f"removing {size(total)}"))
    return CleanResult(tuple(_removed(ctx, line) if line in going else line for line in lines))


def _lines(ctx: Context, *, everything: bool) -> Iterator[CacheLine]:
    used = _used(ctx)
    needed = _needed(ctx.home)
    for what, path in _entries(ctx.home):
        action, reason = "to remove", "nothing uses it"
        with _locked(path, fcntl.LOCK_SH) as free:
            pass
        if not free:
            action, reason = "kept", "another command is using it"
        elif path.name in used:
            action, reason = "kept", "a cluster uses it"
        elif path.name.startswith(".") or (what == "environment" and not (path / ".ok").exists()):
            reason = "unfinished build"
        elif path.name in needed:
            action, reason = "kept", "the next up needs it"
            if everything:
                action, reason = "to remove", "the next up makes it again"
        yield CacheLine(path, what, _size(path), action, reason)


def _entries(home: Path) -> Iterator[tuple[str, Path]]:
    """Yield every entry of the caches: of this machine's own, and of its local nodes."""
    for what, pattern in (
        ("engine", "cache/engine/*/*"),
        ("uv", "cache/uv/*"),
        ("engine", "local/cache/engine/*"),
        ("environment", "local/cache/envs/*"),
        ("node code", "local/cache/code/*"),
        ("uv", "local/cache/uv/*"),
    ):
        yield from ((what, path) for path in home.glob(pattern) if path.is_dir() and path.name != "from")


def _used(ctx: Context) -> set[str]:
    """Return the names of entries that the clusters of this home use."""
    clusters = ctx.store.clusters()
    return {name for each in clusters for name in (each.env_digest, each.engine_sha256, each.code_digest)}


def _needed(home: Path) -> set[str]:
    """Return the names of entries that an ``up`` without requirements uses."""
    key = engine_key(EngineSpec())
    notes = (*home.glob(f"cache/engine/*/from/{key}"), *home.glob("local/cache/engine/from/*"))
    engines = {note.read_text("ascii").strip() for note in notes}
    environment = environment_digest(ResolvedEnvironment(node_lock()))
    return {*engines, environment, code_bundle()[0], uv_pin().binary_sha256}


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[bool]:
    """Hold an entry's locks, which its builders take and never delete; yield False if it is being built."""
    with contextlib.ExitStack() as held:
        for lock in (path.with_name(f"{path.name}.lock"), path.with_name(".lock")):
            with contextlib.suppress(FileNotFoundError):
                file = held.enter_context(lock.open("rb"))
                try:
                    fcntl.flock(file, how | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield False
                    return
        yield True


def _size(path: Path) -> int:
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # another command removes it
                total += Path(folder, name).lstat().st_size
    return total


def _removed(ctx: Context, line: CacheLine) -> CacheLine:
    """Remove an entry, unless a command began to use it while the question was open."""
    with _locked(line.path, fcntl.LOCK_EX) as free:
        if not free or line.path.name in _used(ctx):
            return replace(line, action="kept", reason="another command uses it now")
        shutil.rmtree(line.path, ignore_errors=True)
    if line.path.exists():
        return replace(line, action="kept", reason="it cannot be removed")
    return replace(line, action="removed")
