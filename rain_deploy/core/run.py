"""A run, as it is recorded."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path


class RunState(enum.StrEnum):
    """How far a run is; all but ``shipped`` are told by the server node."""

    SHIPPED = "shipped"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as the operator's side records it."""

    id: str
    cluster_id: str
    cluster: str
    sequence: int
    port: int
    script: str
    args: tuple[str, ...]
    script_sha256: str
    created_s: float
    out: Path
    """Absolute path of the results, fixed when ``run`` was typed."""
    state: RunState = RunState.SHIPPED
    outcome: str = ""
    """``done``, ``failed``, ``cancelled``, ``timeout``, ``engine``, ``points``; empty while it runs."""
    exit_code: int | None = None
    """Of the script itself; negative: killed by that signal."""
    pulled: bool = False
    """True once everything of the finished run is in ``out`` and verified."""
    shipped: tuple[tuple[str, str], ...] = field(default=())
    """(path relative to files/, sha256) of what was sent."""
