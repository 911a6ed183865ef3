"""``status`` and ``runs``: what a node says about itself."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..config import node_config
from ..run.directory import all_runs
from ..wire import Life, ListedRun, NodeConfig, NodeStatus, extended
from .engine import Epoch
from .ensure import keeper_path, supervisor_path
from .process import Found, leader, recorded


def status(node_dir: Path) -> NodeStatus:
    """Return services, governor, server, runs, load and disk of a node.  Raises NotInstalled."""
    config = node_config(node_dir)
    return NodeStatus(
        services=_services(config),
        governor=_life(leader(config.service, "governor")),
        server=_life(leader(config.service, "server")) if config.server else None,
        runs=runs(config.cluster_dir) if config.server else (),
        load=os.getloadavg()[0],
        disk_free_bytes=shutil.disk_usage(config.cluster_dir).free,
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
    """Return pid, epoch and run of a Rain process, and whether Rain called it ready."""
    if found is None:
        return None
    place = Path(found.place)
    epoch = Epoch.read(place)
    ready = (place / "ready").exists()
    return Life(pid=found.process.pid, epoch=place.name, run=epoch.run if epoch else "", ready=ready)
