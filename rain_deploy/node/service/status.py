"""``status`` and ``runs``: what a node says about itself."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..config import NodeConfig, node_config
from ..files import Json, read_json
from ..run.directory import all_runs
from ..run.line import unfinished
from .ensure import keeper_path, supervisor_path
from .process import Found, leader, recorded


def status(node_dir: Path) -> Json:
    """Services, governor, server, runs in line, load and disk of one node.  Raises NotInstalled."""
    config = node_config(node_dir)
    line = unfinished(config.runs_dir) if config.server else ()
    active = [run for run in line if run.state()["state"] != "queued"]
    return {
        "name": config.name,
        "services": _services(config),
        "governor": _life(leader(config.service, "governor")),
        "server": _life(leader(config.service, "server")) if config.server else None,
        "active_run": active[0].id if active else "",
        "queued": [run.id for run in line if run not in active],
        "runs": runs(config.cluster_dir) if config.server else [],
        "load": os.getloadavg()[0],
        "cpus": os.cpu_count() or 1,
        "disk_free_bytes": shutil.disk_usage(config.cluster_dir).free,
    }


def runs(cluster_dir: Path) -> list[Json]:
    """Every run in line, active or finished, oldest first."""
    return [
        {"run": run.id, "script": run.script, "args": list(run.args), **run.state()}
        for run in all_runs(cluster_dir / "runs")
    ]


def _services(config: NodeConfig) -> Json:
    paths = {"keeper": keeper_path(config)}
    if config.server:
        paths["supervisor"] = supervisor_path(config)
    identities = {role: recorded(path.with_suffix(".pid")) for role, path in paths.items()}
    return {role: process.pid if process else None for role, process in identities.items()}


def _life(found: Found | None) -> Json | None:
    """Of a Rain process: its pid, epoch, the run it is for, and whether Rain called it ready."""
    if found is None:
        return None
    place = Path(found.place)
    record = read_json(place / "epoch.json") or {}
    return {
        "pid": found.process.pid,
        "epoch": place.name,
        "run": record.get("run", ""),
        "ready": (place / "ready").exists(),
    }
