"""What flows return: frozen records that the command line shows as text or as JSON.

A result that is complete as data but is not a success says so in ``problem``: a run whose script
failed is a RunResult with a ScriptFailed, so that both reach the user.  Paths are absolute, times are
epoch seconds, ``bytes`` fields are output of somebody else's program.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rain_deploy.core.model import Quote
from rain_deploy.errors import (
    Drift,
    EndedEarly,
    EngineError,
    InputError,
    PointsFailed,
    RainDeployError,
    ScriptFailed,
)

PointRow = dict[str, object]
"""A row of points.jsonl."""


class Result:
    """Anything that a flow returns."""

    __slots__ = ()

    @property
    def problem(self) -> RainDeployError | None:
        """Why the command's exit code is not 0 although there is a result."""
        return None


@dataclass(frozen=True, slots=True)
class NodeLine:
    """A node as a command saw it."""

    name: str
    role: str
    """``server`` (which has a governor too) or ``governor``."""
    address: str
    state: str
    """``ready``, ``starting``, ``no services``, ``stopped`` (powered off), ``unreachable``, ``gone`` or
    ``unknown``; of a machine that is no node yet, the cloud's word."""
    cpus: int
    label: str = ""
    load: float | None = None
    disk_free_bytes: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class UpResult(Result):
    """``up``: ``changed`` empty and ``started`` 0 mean that everything was as it should be."""

    cluster: str
    provider: str
    nodes: tuple[NodeLine, ...]
    changed: tuple[str, ...]
    """One sentence per thing that was changed."""
    started: int
    """Processes started that outlive the command."""
    seconds: float
    limit_s: float | None = None
    """When the machines power themselves off; None: never."""
    quote: Quote | None = None
    """What one of them costs; None where nothing is priced."""


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage of a host, as text."""

    stage: str
    command: str
    """The text that would be sent to the host's shell, payload not included."""


@dataclass(frozen=True, slots=True)
class HostPlan:
    """The stages of one host, in order."""

    host: str
    label: str
    stages: tuple[StagePlan, ...]


@dataclass(frozen=True, slots=True)
class PlanResult(Result):
    """``up --dry-run``: what would run on which node, in order."""

    cluster: str
    provider: str
    facts: str
    """Where the facts come from: state, or the assumed Debian 12 with root and systemd."""
    hosts: tuple[HostPlan, ...]
    quote: Quote | None = None
    """What one machine costs; None where nothing is priced."""
    creates: tuple[str, ...] = ()
    """What would be made in the cloud, ``kind name``, in order."""
    offer: tuple[str, ...] = ()
    """What it would cost and open, and when it would end by itself: sentences."""


@dataclass(frozen=True, slots=True)
class RunResult(Result):
    """``run`` and ``attach``: how a run stands when the command ends."""

    cluster: str
    run: str
    state: str
    outcome: str
    """As in RunRecord; empty while it runs."""
    exit_code: int | None
    """Of the script itself; negative: killed by that signal."""
    results_dir: Path
    seconds: float
    """From the start of the run to its end, or to now."""
    figures: int = 0
    points: int = 0
    files: int = 0
    failed_points: int = 0
    detached: bool = False
    message: str = ""
    limit_s: float | None = None
    """When the machines power themselves off; None: never."""

    @property
    def problem(self) -> RainDeployError | None:
        if self.outcome == "points" or (self.outcome in {"done", "failed"} and self.failed_points):
            return PointsFailed(
                f"run {self.run}: {self.failed_points} points failed",
                details=self.message or None,
                next_step=f"rain-deploy points {self.run} -c {self.cluster}",
            )
        if self.outcome == "failed":
            return ScriptFailed(
                f"run {self.run}: the script {_ending(self.exit_code)}",
                next_step=f"rain-deploy logs {self.run} -c {self.cluster}",
            )
        if self.outcome in {"cancelled", "timeout", "limit"}:
            how = {"timeout": "timed out", "limit": "stopped"}.get(self.outcome, self.outcome)
            why = f" ({self.message})" if self.message else ""
            return EndedEarly(
                f"run {self.run}: {how} before its script ended{why}",
                next_step=f"rain-deploy logs {self.run} -c {self.cluster}",
            )
        if self.outcome in {"engine", "lost"}:
            return EngineError(
                f"run {self.run}: {self.message or 'Rain could not run it'}",
                next_step=f"rain-deploy status -c {self.cluster}",
            )
        return None


def _ending(exit_code: int | None) -> str:
    if exit_code is None:
        return "ended without an exit code"
    return f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"


@dataclass(frozen=True, slots=True)
class DownResult(Result):
    """``down``: ``nothing`` is true when no such cluster existed."""

    cluster: str
    deleted: tuple[str, ...] = ()
    certificate: tuple[str, ...] = ()
    """What was looked at and found absent, one line each."""
    pulled: tuple[str, ...] = ()
    """Runs whose results were brought home first."""
    seconds: float = 0.0
    nothing: bool = False
    cost: float | None = None
    """Of the machines from first to last; None where nothing is priced."""
    currency: str = ""


@dataclass(frozen=True, slots=True)
class SweepResult(Result):
    """``sweep``: up, run and down in one; what did not happen is None."""

    up: UpResult
    run: RunResult | None
    down: DownResult | None

    @property
    def problem(self) -> RainDeployError | None:
        return self.run.problem if self.run else None


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run in a list."""

    run: str
    sequence: int
    script: str
    args: tuple[str, ...]
    state: str
    outcome: str
    exit_code: int | None
    created_s: float
    started_s: float | None
    ended_s: float | None
    results_dir: Path
    pulled: bool


@dataclass(frozen=True, slots=True)
class RunsResult(Result):
    """``runs``: newest last."""

    cluster: str
    runs: tuple[RunLine, ...]


@dataclass(frozen=True, slots=True)
class StatusResult(Result):
    """``status``: ``drift`` says in sentences what is not as recorded."""

    cluster: str
    provider: str
    nodes: tuple[NodeLine, ...]
    governors: int | None
    """Registered with Rain now; None: Rain did not answer."""
    run: RunLine | None
    """The active run, else the last."""
    drift: tuple[str, ...]
    seconds: float
    checked: bool = False
    """True for ``--check``: drift is then a problem."""
    limit_s: float | None = None
    """When the machines power themselves off; None: never."""
    cost: float | None = None
    """So far; None where nothing is priced."""
    per_hour: float | None = None
    """Of all machines of the cluster as they are: one that is powered off costs its disk."""
    currency: str = ""

    @property
    def problem(self) -> RainDeployError | None:
        if not (self.checked and self.drift):
            return None
        return Drift(
            f"cluster {self.cluster} is not as recorded: {'; '.join(self.drift)}",
            next_step=f"rain-deploy up -c {self.cluster}",
        )


@dataclass(frozen=True, slots=True)
class ClusterLine:
    """A cluster in a list, from state alone."""

    name: str
    id: str
    provider: str
    nodes: int
    up: bool
    """True once ``up`` has ended well."""
    created_s: float
    runs: int = 0
    active_run: str = ""
    limit_s: float | None = None
    """When the machines power themselves off; None: never."""
    cost: float | None = None
    """So far; None where nothing is priced."""
    currency: str = ""
    state: str = ""
    """Of priced machines, as the cloud tells it: ``3 running, 1 stopped``, or ``unknown``."""


@dataclass(frozen=True, slots=True)
class ListResult(Result):
    """``list``: every cluster of this home."""

    clusters: tuple[ClusterLine, ...]


@dataclass(frozen=True, slots=True)
class LogsResult(Result):
    """``logs``: with ``follow`` the text went through ScriptOutput events and the fields are empty."""

    cluster: str
    source: str
    """``script``, ``governor``, ``boot`` or ``install``."""
    run: str = ""
    node: str = ""
    stdout: bytes = b""
    stderr: bytes = b""


@dataclass(frozen=True, slots=True)
class CancelResult(Result):
    """``cancel``."""

    cluster: str
    run: str
    state: str
    outcome: str
    changed: bool
    """False: it had ended before."""


@dataclass(frozen=True, slots=True)
class PointsResult(Result):
    """``points``: the newest row of each task, in order of task id."""

    cluster: str
    run: str
    rows: tuple[PointRow, ...]


@dataclass(frozen=True, slots=True)
class PulledRun:
    """What of a run lies in its results directory now."""

    run: str
    results_dir: Path
    figures: int
    points: int
    files: int
    bytes: int
    finished: bool
    """False: it still runs; this is what there was."""


@dataclass(frozen=True, slots=True)
class PullResult(Result):
    """``pull``."""

    cluster: str
    runs: tuple[PulledRun, ...]


@dataclass(frozen=True, slots=True)
class ExecLine:
    """One node's part of ``exec``: an exit status or an error."""

    node: str
    exit_status: int | None
    stdout: bytes = b""
    stderr: bytes = b""
    error: RainDeployError | None = None


@dataclass(frozen=True, slots=True)
class ExecResult(Result):
    """``exec``: every node's part, in order."""

    cluster: str
    argv: tuple[str, ...]
    nodes: tuple[ExecLine, ...]

    @property
    def problem(self) -> RainDeployError | None:
        errors = [line.error for line in self.nodes if line.error]
        if errors:
            return max(errors, key=lambda error: error.exit_code)
        failed = [f"{line.node}: exit {line.exit_status}" for line in self.nodes if line.exit_status]
        return ScriptFailed(f"the command failed on {'; '.join(failed)}") if failed else None


@dataclass(frozen=True, slots=True)
class CopyResult(Result):
    """``push`` and ``fetch``."""

    cluster: str
    nodes: tuple[str, ...]
    source: str
    destination: str
    files: int
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Tunnel(Result):
    """An open port on loopback here; the flow that yields it closes it."""

    cluster: str
    port: int
    target: str
    """What it leads to, ``node-1 127.0.0.1:7210``."""
    url: str = ""
    """Of the dashboard."""


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One finding: ``state`` is ``ok``, ``change`` (``up`` would do it) or ``refused`` (with ``error``)."""

    subject: str
    state: str
    text: str
    error: RainDeployError | None = None


@dataclass(frozen=True, slots=True)
class CheckResult(Result):
    """``check``: what ``up`` would find, change or refuse."""

    provider: str
    findings: tuple[CheckLine, ...]

    @property
    def problem(self) -> RainDeployError | None:
        errors = [line.error for line in self.findings if line.error]
        if errors:
            return max(errors, key=lambda error: error.exit_code)
        refused = [f"{line.subject}: {line.text}" for line in self.findings if line.state == "refused"]
        return InputError(f"up would refuse: {'; '.join(refused)}") if refused else None
