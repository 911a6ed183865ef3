"""Report the services and runs of a node.  First ends runs that no process serves any more."""

import os
import shutil
import time
from functools import partial
from pathlib import Path

from ..files import load, member_name, node_config
from ..run import Run, Script, all_runs, unfinished
from ..wire import ClusterConfig, Life, ListedRun, NodeConfig, NodeStatus, Outcome, extended
from .process import Service, leader, scan


def status(cluster_dir: Path, node_dir: Path) -> NodeStatus:
    """Return services, governor, runs, load and disk of a node.  Raises NotInstalled."""
    config = node_config(node_dir)
    roles = ("keeper", "supervisor") if config.server else ("keeper",)
    running = {role: Service(config, role).process() for role in roles}
    found = leader(config.service, "governor")
    ready = found is not None and Path(found.place, "ready").exists()
    return NodeStatus(
        services={role: process.pid if process else None for role, process in running.items()},
        governor=Life(pid=found.pid, ready=ready) if found else None,
        runs=runs(cluster_dir) if config.server else (),
        load=os.getloadavg()[0],
        disk_free_bytes=shutil.disk_usage(cluster_dir).free,
    )


def runs(cluster_dir: Path) -> tuple[ListedRun, ...]:
    """Return every run that was shipped here, oldest first."""
    end_lost(server_config(cluster_dir))
    return tuple(extended(run.status(), ListedRun, run=run.id) for run in all_runs(cluster_dir / "runs"))


def interrupted(node_dir: Path) -> list[str]:
    """End the runs that a power-off interrupted, on a node without services; return their ids."""
    why = "the machine was powered off before it ended"
    return end_lost(node_config(node_dir), Outcome.POWERED_OFF, why)


def end_lost(config: NodeConfig | None, outcome: Outcome = Outcome.LOST, why: str = "") -> list[str]:
    """End every unfinished run if nothing of a server node works on one any more; return their ids.

    That is so after a restart of the machine: it starts no services by itself.
    """
    broken = unfinished(config.runs_dir) if config else ()
    if not config or not broken or scan(config.service):
        return []
    members = load(config.server_dir / "cluster.json", ClusterConfig) or ClusterConfig(nodes=())
    why = why or f"{config.name} was restarted, or its services were ended, before it ended"
    for run in broken:
        script = run.script_end or Script()
        done = script.exit_code == 0  # a script that ended badly was ended with the services
        _record_points(run, members, "the script ended" if done else why)
        ending = (Outcome.DONE, "") if done else (outcome, why)
        run.finish(*ending, exit_code=script.exit_code, ended_s=script.ended_s or time.time())
    return [run.id for run in broken]


def server_config(cluster_dir: Path) -> NodeConfig | None:
    """Return the configuration of the cluster's server node, if that is this one."""
    found = (load(path, NodeConfig) for path in cluster_dir.glob("nodes/*/node.json"))
    return next((config for config in found if config and config.server), None)


def _record_points(run: Run, members: ClusterConfig, why: str) -> None:
    from ..points.recorder import Recorder  # noqa: PLC0415 - SQLite is for a run that was lost, not for every question

    recorder = Recorder(run, partial(member_name, members.nodes))
    recorder.points.run_end = why
    recorder.step()
    recorder.close(why)
