"""The copies of journals below RAIN_DEPLOY_HOME: one for each name of a cluster and environment.

The next cluster of the name goes on with it.
"""

import contextlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rain_deploy.core.cluster import Cluster
from rain_deploy.node.wire import JournalState, JournalUsage, JournalWish, Limits, WireError, read, to_json
from rain_deploy.results.unpack import receive

ABOUT = "about.json"
MOST_BYTES = 20 * 10**9  # of all copies together
DISK_PART = 10  # they take at most this part of the disk that is free or theirs
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
    cluster_id: str = ""  # of the cluster that it was last copied from, or given to
    records: dict[str, int] = field(default_factory=dict)  # by file of the copy; a key may have several
    listed: tuple[str, ...] = ()  # the files that this cluster had then; it may have merged them since


@dataclass(frozen=True, slots=True)
class Copy:
    """The copy of a journal."""

    path: Path
    about: About

    def files(self) -> list[Path]:
        """Return its files, oldest first."""
        return sorted(self.path.glob("*.seg"))

    def batches(self) -> Iterator[bytes]:
        """Yield its files in tars for ``journal-take``.  Raises OSError."""
        files = self.files()
        while files:
            buffer, size_bytes = io.BytesIO(), 0
            with tarfile.open(fileobj=buffer, mode="w") as tar:
                while files and size_bytes < BATCH_BYTES:
                    file = files.pop(0)
                    size_bytes += file.stat().st_size
                    tar.add(file, file.name)
            yield buffer.getvalue()

    def wish(self, file_bytes: int, limit_bytes: int) -> JournalWish:
        """Return what to ask the server node for, so that the copy stays within ``limit_bytes``."""
        have = {path.name: path.stat().st_size for path in self.files()}
        left_bytes = max(0, limit_bytes - sum(have.values()))
        return JournalWish(have=tuple(have), file_bytes=file_bytes, total_bytes=left_bytes)

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
    try:
        return copy_at(path)
    except (OSError, WireError):
        return Copy(path, About(cluster=cluster.name, env_digest=cluster.env_digest))


def renew(
    copy: Copy,
    cluster_id: str,
    draft: Path,
    send: Callable[[Callable[[bytes], None]], None],
    most_bytes: int,
) -> JournalUsage:
    """Add to a copy what ``send`` hands to its sink; delete what the cluster had and has no more.

    ``draft``: an empty directory beside it.  Raises PullFailed, UnsafeResults (more than ``most_bytes`` was
    sent), WireError, OSError, and what ``send`` raises.
    """
    limits = Limits(files=_MOST_FILES, file_bytes=most_bytes, total_bytes=most_bytes + _SLACK_BYTES)
    receive(send, draft, limits, links=False)
    state = read(JournalState, (draft / _STATE).read_bytes())
    if not state.files and not copy.path.exists():
        return state.usage
    copy.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in state.files:
        if (draft / name).exists():
            (draft / name).replace(copy.path / name)
    if copy.about.cluster_id == cluster_id:
        for name in set(copy.about.listed) - state.files.keys():
            (copy.path / name).unlink(missing_ok=True)
    sizes = {path.name: path.stat().st_size for path in copy.files()}
    records = {name: (copy.about.records | state.files).get(name, 0) for name in sizes}
    same = sizes.keys() == state.files.keys()
    usage = JournalUsage(
        bytes=sum(sizes.values()),
        records=state.usage.records if same else sum(records.values()),
        segments=len(sizes),
        oldest_s=state.usage.oldest_s,
        newest_s=state.usage.newest_s,
    )
    about = copy.about
    copy.save(
        About(
            cluster=about.cluster,
            env_digest=about.env_digest,
            usage=usage,
            cluster_id=cluster_id,
            records=records,
            listed=tuple(state.files),
        )
    )
    return usage


def limit_of_copies(home: Path) -> int:
    """Return how many bytes all copies together may take.  Raises OSError."""
    taken_bytes = sum(copy.about.usage.bytes for copy in copies(home))
    return min(MOST_BYTES, (shutil.disk_usage(home).free + taken_bytes) // DISK_PART)


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
