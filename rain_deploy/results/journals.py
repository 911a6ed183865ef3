"""The copies of journals below RAIN_DEPLOY_HOME: a directory per cluster, which may be gone by now."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.node.wire import JournalUsage, WireError, read

ABOUT = "about.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a copy says about itself."""

    cluster: str
    cluster_id: str
    env_digest: str  # results of another environment are of no use
    usage: JournalUsage  # as the server node reported it when the copy was made


@dataclass(frozen=True, slots=True)
class Copy:
    """The copy of a cluster's journal."""

    path: Path
    about: About


def copies(home: Path) -> Iterator[Copy]:
    """Yield all copies, by directory."""
    for about in sorted(home.glob(f"journal/*/{ABOUT}")):
        with contextlib.suppress(OSError, WireError):
            yield Copy(about.parent, read(About, about.read_bytes()))


def delete_copies(home: Path, cluster: str) -> None:
    """Delete the copies of all clusters of this name.  Raises OSError."""
    for copy in copies(home):
        if copy.about.cluster == cluster:
            shutil.rmtree(copy.path)
