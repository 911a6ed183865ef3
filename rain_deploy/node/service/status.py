"""``status`` and ``runs``: what a node says about itself."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..config import node_config
from ..run.directory import all_runs
from ..wire import Life, ListedRun, NodeConfig, NodeStatus, extended
from .ensure import keeper_path, supervisor_path
from .process import Found, leader, recorded


def status(cluster_dir: Path, node_dir: Path) -> NodeStatus:
    """Return services, governor, runs, load and disk of a node.  Raises NotInstalled."""
    config = node_config(node_dir)
    return NodeStatus(
        services=_services(config),
        governor=_life(leader(config.service, "governor")),
        runs=runs(cluster_dir) if config.server else (),
        load=os.getloadavg()[0],
        disk_free_bytes=shutil.disk_usage(cluster_dir).free,
    )


def runs(cluster_dir: Path) -> tuple[ListedRun, ...]:
    """Return every run that was shipped here, oldest first."""
    return tuple(extended(run.status(), ListedRun, run=run.id) for run in all_runs(cluster_dir / "runs"))


def _services(config: NodeConfig) -> dict[str, int | None]:
    paths = {"keeper": keeper_path(config)}
    if config.server:
        paths["supervisor"] = supervisor_path(config)
    identities = {role: recorded(path.with_suffix(".pid")) for role, path in paths.items()}
    return {role: process.pid if process else None for role, process in identities.items()}


def _life(found: Found | None) -> Life | None:
    ready = found is not None and (Path(found.place) / "ready").exists()
    return Life(pid=found.process.pid, ready=ready) if found else None
