"""The copies of journals below RAIN_DEPLOY_HOME: one for each name of a cluster and environment.

The next cluster of the name goes on with it.
"""

import contextlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from rain_deploy.core.cluster import Cluster
from rain_deploy.node.wire import (
    SEGMENT_NAME,
    JournalState,
    JournalUsage,
    JournalWish,
    Limits,
    WireError,
    journal_limit,
    read,
    to_json,
)
from rain_deploy.results.partial import linked_or_copied
from rain_deploy.results.unpack import receive

ABOUT = "about.json"
BATCH_BYTES = 64_000_000  # of one stream to a server node, which is in memory here
_STATE = "state.json"
_MOST_FILES = 1_000_000
_SLACK_BYTES = 1 << 26  # of a stream, for what is about its files


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a copy says about itself."""

    cluster: str
    env_digest: str  # results of another environment are of no use
    usage: JournalUsage = field(default_factory=JournalUsage)  # of the copy
    records: dict[str, int] = field(default_factory=dict)  # by file of the copy; a key may have several


@dataclass(frozen=True, slots=True)
class Copy:
    """The copy of a journal."""

    path: Path
    about: About

    def files(self) -> list[Path]:
        """Return its files, oldest first."""
        return sorted(path for path in self.path.glob("*.seg") if SEGMENT_NAME.fullmatch(path.name))

    def batches(self, but: Container[str] = ()) -> Iterator[bytes]:
        """Yield its files, without those named ``but``, in tars for ``journal-take``.  Raises OSError."""
        files = [file for file in self.files() if file.name not in but]
        while files:
            buffer, size_bytes = io.BytesIO(), 0
            with tarfile.open(fileobj=buffer, mode="w") as tar:
                while files and size_bytes < BATCH_BYTES:
                    file = files.pop(0)
                    size_bytes += file.stat().st_size
                    tar.add(file, file.name)
            yield buffer.getvalue()

    def wish(self, file_bytes: int, limit_bytes: int, after: str = "") -> JournalWish:
        """Return what to ask the server node for: what it has of the newest ``limit_bytes``.

        ``after``: only files that are named later are of interest.
        """
        sizes = {path.name: path.stat().st_size for path in self.files() if path.name > after}
        return JournalWish(
            have=tuple(sizes), sizes=sizes, after=after, file_bytes=file_bytes, total_bytes=limit_bytes
        )

    def prune(self, limit_bytes: int) -> None:
        """Delete the oldest files until all are within the limit; the newest stays.  Raises OSError."""
        *older, newest = [(path, path.stat().st_size) for path in self.files()] or [(self.path, 0)]
        taken_bytes = newest[1] + sum(size_bytes for _, size_bytes in older)
        for path, size_bytes in older:
            if taken_bytes <= limit_bytes:
                break
            path.unlink(missing_ok=True)
            taken_bytes -= size_bytes

    def now(self) -> "Copy":
        """Return the copy as it is now, which may not exist yet."""
        try:
            return copy_at(self.path)
        except (OSError, WireError):
            return self

    def adopt(self, other: "Copy") -> None:
        """Take in the files of another copy: the journal of the cluster has them now.  Raises OSError."""
        if other.path == self.path:
            return
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in other.files():
            with contextlib.suppress(FileExistsError):
                linked_or_copied(file, self.path / file.name)
        about = self.now().about
        records = other.about.records | about.records
        self.save(replace(about, records=records, usage=self.usage(records)))

    def usage(self, records: dict[str, int], counted: int | None = None) -> JournalUsage:
        """Return what it holds, by the number of results of each file, or as ``counted``."""
        sizes = {path.name: path.stat().st_size for path in self.files()}
        return JournalUsage(
            bytes=sum(sizes.values()),
            records=sum(records.get(name, 0) for name in sizes) if counted is None else counted,
            segments=len(sizes),
            oldest_s=min(map(_written_s, sizes), default=None),
            newest_s=max(map(_written_s, sizes), default=None),
        )

    def save(self, about: About) -> None:
        """Write what the copy says about itself, in one step.  Raises OSError."""
        draft = self.path / f".{ABOUT}"
        draft.write_text(json.dumps(to_json(about)), "ascii")
        draft.replace(self.path / ABOUT)


def copies(home: Path) -> Iterator[Copy]:
    """Yield all copies, by directory."""
    for about in sorted(home.glob(f"journal/*/{ABOUT}")):
        with contextlib.suppress(OSError, WireError):
            yield copy_at(about.parent)


def copy_at(path: Path) -> Copy:
    """Return the copy in a directory.  Raises OSError, WireError."""
    return Copy(path, read(About, (path / ABOUT).read_bytes()))


def copy_for(home: Path, cluster: Cluster) -> Copy:
    """Return the copy for a cluster of this name and environment, which may not exist yet."""
    path = home / "journal" / f"{cluster.name}-{cluster.env_digest[:12]}"
    return Copy(path, About(cluster=cluster.name, env_digest=cluster.env_digest)).now()


def fitting(home: Path, cluster: Cluster) -> Iterator[Copy]:
    """Yield what a new cluster can use: the copy of its name, and the newest one if that has more.

    Both are of the same environment.
    """
    own = copy_for(home, cluster)
    if own.about.usage.segments:
        yield own
    same = [one for one in copies(home) if one.about.env_digest == cluster.env_digest]
    newest = max(same, key=lambda one: one.about.usage.newest_s or 0.0, default=own)
    if {file.name for file in newest.files()} - {file.name for file in own.files()}:
        yield newest


def renew(
    copy: Copy,
    draft: Path,
    send: Callable[[Callable[[bytes], None]], None],
    wish: JournalWish,
) -> str:
    """Add to a copy what ``send`` hands to its sink; delete what was merged into a file that is here.

    What else the cluster has no more, it may have lost: that stays until the copy is over its limit.  Returns
    the name of the newest file that the cluster has; empty if it has none.  ``draft``: an empty directory
    beside the copy.  Raises PullFailed, UnsafeResults (more was sent than wished for), WireError, OSError,
    and what ``send`` raises.
    """
    most_bytes = wish.total_bytes
    limits = Limits(files=_MOST_FILES, file_bytes=most_bytes, total_bytes=most_bytes + _SLACK_BYTES)
    receive(send, draft, limits, links=False)
    state = read(JournalState, (draft / _STATE).read_bytes())
    state = replace(state, files={name: n for name, n in state.files.items() if SEGMENT_NAME.fullmatch(name)})
    newest = max(state.files, default=wish.after)
    if not state.files and not copy.path.exists():
        return newest
    copy.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in state.files:
        if (draft / name).exists():
            (draft / name).replace(copy.path / name)
    for name, into in state.merged.items():
        if SEGMENT_NAME.fullmatch(name) and SEGMENT_NAME.fullmatch(into) and (copy.path / into).exists():
            (copy.path / name).unlink(missing_ok=True)
    copy.prune(most_bytes)
    about, names = copy.now().about, {path.name for path in copy.files()}
    records = {name: (about.records | state.files).get(name, 0) for name in names}
    same = names == state.files.keys() and not wish.after  # then the cluster has counted no key twice
    usage = copy.usage(records, state.usage.records if same else None)
    copy.save(replace(about, usage=usage, records=records))
    return newest


def _written_s(name: str) -> float:
    return int(name[:20]) / 1e9


def limit_of_copies(home: Path) -> int:
    """Return how many bytes all copies together may take.  Raises OSError."""
    return journal_limit(home, sum(copy.about.usage.bytes for copy in copies(home)))


def prune_copies(home: Path, limit_bytes: int) -> None:
    """Delete the copies with the oldest results until all are within the limit; the newest stays.

    Raises OSError.
    """
    found = sorted(copies(home), key=lambda copy: copy.about.usage.newest_s or 0.0)
    size_bytes = sum(copy.about.usage.bytes for copy in found)
    for copy in found[:-1]:
        if size_bytes > limit_bytes:
            shutil.rmtree(copy.path)
            size_bytes -= copy.about.usage.bytes


def delete_copies(home: Path, cluster: str) -> None:
    """Delete the copies of all clusters of this name.  Raises OSError."""
    for copy in copies(home):
        if copy.about.cluster == cluster:
            shutil.rmtree(copy.path)
