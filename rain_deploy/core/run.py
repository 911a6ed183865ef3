"""A run, as it is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rain_deploy.node.wire import RunState

__all__ = ["RunRecord", "RunState"]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as the laptop records it."""

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
    """``done``, ``failed``, ``cancelled``, ``timeout``, ``limit``, ``engine`` or ``lost``; empty while it
    runs."""
    exit_code: int | None = None
    """Exit code of the script itself; negative: killed by that signal."""
    pulled: bool = False
    """True once everything of the finished run is in ``out`` and verified."""
