"""Results as text: data on stdout, in columns that fit the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rain_deploy.cli.show import render_cloud, text
from rain_deploy.cli.show.output import echo
from rain_deploy.cli.show.points_table import points_table
from rain_deploy.cli.show.tables import nodes, table, width
from rain_deploy.core.bill import Quote
from rain_deploy.core.result import Result
from rain_deploy.core.wording import hour, money
from rain_deploy.runs.finish import RunResult
from rain_deploy.runs.states import RunLine
from rain_deploy.verbs.catalog import TypesResult, ZonesResult
from rain_deploy.verbs.check import CheckResult
from rain_deploy.verbs.copy import CopyResult
from rain_deploy.verbs.down import DownResult
from rain_deploy.verbs.extend import ExtendResult
from rain_deploy.verbs.gc import GcResult
from rain_deploy.verbs.logs import LogsResult, PointsResult
from rain_deploy.verbs.nodes import ExecResult
from rain_deploy.verbs.plan import PlanResult
from rain_deploy.verbs.runs import CancelResult, PullResult, RunsResult
from rain_deploy.verbs.scale import ScaleResult
from rain_deploy.verbs.status import ClusterLine, ListResult, StatusResult
from rain_deploy.verbs.sweep import SweepResult
from rain_deploy.verbs.up import UpResult

NAMES_SHOWN = 5
"""Of nodes in one line, before "and N more"."""


def render(result: Result, *, quiet: bool) -> None:
    """Show ``result`` on stdout; ``quiet`` leaves out what only says that it was done."""
    if quiet and isinstance(result, _DEEDS):
        return
    shown: list[str | bytes] = _RENDERERS[type(result)](result)
    for piece in shown:
        echo(piece, nl=isinstance(piece, str))


def _flag(cluster: str) -> str:
    return "" if cluster == "default" else f" -c {cluster}"


def _up(result: UpResult) -> list[str | bytes]:
    size = text.count(len(result.nodes), "node")
    head = f"changed, with {text.count(result.started, 'process')} started:" if result.started else "changed:"
    changes, quote = _grouped(result.changed), result.quote
    return [
        f"cluster {result.cluster} is up: {size} ({result.provider}), {text.seconds(result.seconds)}",
        *((head, *changes) if changes else ("changed nothing on the nodes: all was as it should be",)),
        *nodes(result.nodes),
        *(_offer(quote, len(result.nodes), result.limit_s) if quote else ()),
        f"next: rain-deploy run{_flag(result.cluster)} SCRIPT",
    ]


def _offer(quote: Quote, machines: int, limit_s: float | None) -> list[str]:
    """What so many machines cost from now on."""
    running, off = (
        money(each * machines, quote.currency) for each in (quote.per_hour, quote.stopped_per_hour)
    )
    return [f"{running} per hour, {off} while powered off; {text.limit(limit_s)}"]


def _grouped(changes: tuple[str, ...]) -> list[str]:
    """What was changed, each change once, with the nodes that it was made on."""
    where: dict[str, list[str]] = {}
    for change in changes:
        node, colon, what = change.partition(": ")
        where.setdefault(what if colon else change, []).extend([node] if colon else [])
    return [
        text.clean(f"  {what}: {_some(nodes)}" if nodes else f"  {what}") for what, nodes in where.items()
    ]


def _some(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _plan(result: PlanResult) -> list[str | bytes]:
    lines: list[str | bytes] = [
        f"cluster {result.cluster}, provider {result.provider}; nothing was done",
        f"facts: {text.clean(result.facts)}",
        *(text.clean(sentence) for sentence in result.offer),
        *(f"would make: {text.clean(thing)}" for thing in result.creates),
    ]
    for host in result.hosts:
        lines.append(f"\n# {host.host} {host.label}".rstrip())
        for stage in host.stages:
            lines += [f"\n## {host.host}: {stage.stage}", text.clean(stage.command)]
    return lines


def _run(result: RunResult) -> list[str | bytes]:
    ends = [f"cluster {result.cluster}: {text.limit(result.limit_s)}"] if result.limit_s else []
    if result.detached:
        return [
            f"run {result.run} is {result.state}",
            *ends,
            f"next: rain-deploy attach {result.run}{_flag(result.cluster)}",
        ]
    failed = f" ({result.failed_points} failed)" if result.failed_points else ""
    brought = [
        text.count(result.figures, "figure") if result.figures else "",
        text.count(result.points, "point") + failed if result.points else "",
        f"{text.count(result.files, 'file')} written by the script" if result.files else "",
    ]
    return [
        f"run {result.run}: {result.outcome or result.state}, {text.seconds(result.seconds)}",
        f"results: {_near(result.results_dir)}",
        "  " + (", ".join(filter(None, brought)) or "nothing but what it printed: stdout.log, stderr.log"),
        *ends,
    ]


def _near(path: Path) -> str:
    """As one would type it here."""
    here = Path.cwd()
    return text.clean(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _down(result: DownResult) -> list[str | bytes]:
    if result.nothing:
        of_it = f"rain-deploy gc -c {result.cluster}"
        return [f"cluster {result.cluster}: there is nothing on record here; in an account: {of_it}"]
    cost = f"; it cost {money(result.cost, result.currency)}" if result.cost is not None else ""
    return [
        *(f"pulled: {run}" for run in result.pulled),
        *(f"deleted: {text.clean(thing)}" for thing in result.deleted),
        "looked at, and found that there is nothing left:",
        *(f"  {text.clean(line)}" for line in result.certificate),
        f"cluster {result.cluster} is down, {text.seconds(result.seconds)}{cost}",
    ]


def _sweep(result: SweepResult) -> list[str | bytes]:
    lines = _run(result.run) if result.run else []
    return lines + (_down(result.down)[-1:] if result.down else [])


def _run_row(run: RunLine) -> tuple[str, ...]:
    took = run.ended_s - run.started_s if run.started_s and run.ended_s else None
    state = run.outcome or run.state
    return (
        run.run,
        f"{state} ({run.exit_code})" if run.exit_code else state,
        text.moment(run.created_s),
        text.seconds(took),
        "pulled" if run.pulled else "",
        " ".join((run.script, *run.args)),
    )


def _runs(result: RunsResult) -> list[str | bytes]:
    if not result.runs:
        return [f"cluster {result.cluster}: no runs"]
    return table(
        ("RUN", "STATE", "TYPED", ">TOOK", "RESULTS", "SCRIPT"), [_run_row(run) for run in result.runs]
    )


def _status(result: StatusResult) -> list[str | bytes]:
    rain = "Rain does not answer"
    if result.governors is not None:
        rain = f"{text.count(result.governors, 'governor')} registered with Rain"
    run = result.run
    return [
        f"cluster {result.cluster}: {result.provider}, {text.count(len(result.nodes), 'node')}, {rain}",
        *_bill(result),
        *nodes(result.nodes),
        f"run {run.run}: {run.outcome or run.state}, {run.script}" if run else "no run yet",
        *(f"not as recorded: {text.clean(line)}" for line in result.drift),
    ]


def _bill(result: StatusResult) -> list[str]:
    """What is paid and until when; nothing where nothing is priced."""
    if result.cost is None:
        return []
    hourly = f"{money(result.per_hour, result.currency)} per hour; " if result.per_hour is not None else ""
    return [f"cost so far {money(result.cost, result.currency)}; {hourly}{text.limit(result.limit_s)}"]


def _list(result: ListResult) -> list[str | bytes]:
    if not result.clusters:
        return ["no clusters"]
    return table(
        ("CLUSTER", "PROVIDER", ">NODES", "STATE", "MADE", ">COST", "TIME LIMIT", ">RUNS", "ACTIVE RUN"),
        [
            (
                line.name,
                line.provider,
                str(line.nodes),
                ", ".join(filter(None, ("up" if line.up else "not up", line.state))),
                text.moment(line.created_s),
                "" if line.cost is None else money(line.cost, line.currency),
                _hour(line),
                str(line.runs),
                line.active_run,
            )
            for line in result.clusters
        ],
    )


def _hour(line: ClusterLine) -> str:
    if line.cost is None:
        return ""
    return hour(line.limit_s, time.time()) if line.limit_s else "none"


def _logs(result: LogsResult) -> list[str | bytes]:
    if result.stderr:
        echo(result.stderr, nl=False, err=True)
    return [result.stdout]


def _cancel(result: CancelResult) -> list[str | bytes]:
    done = "cancelled" if result.changed else f"had ended before ({result.outcome or result.state})"
    return [f"run {result.run}: {done}"]


def _points(result: PointsResult) -> list[str | bytes]:
    return [points_table(result, width())]


def _pull(result: PullResult) -> list[str | bytes]:
    if not result.runs:
        return [f"cluster {result.cluster}: no runs"]
    return [
        f"{_near(run.results_dir)}: {text.count(run.figures, 'figure')}, {text.count(run.points, 'point')}, "
        f"{text.count(run.files, 'file')}, {text.size(run.bytes)}{'' if run.finished else ' (still runs)'}"
        for run in result.runs
    ]


def _exec(result: ExecResult) -> list[str | bytes]:
    alone = len(result.nodes) == 1
    lines: list[str | bytes] = []
    for node in result.nodes:
        prefix = b"" if alone else f"{node.node} | ".encode()
        echo(_prefixed(node.stderr, prefix), nl=False, err=True)
        lines.append(_prefixed(node.stdout, prefix))
    return lines


def _prefixed(output: bytes, prefix: bytes) -> bytes:
    return b"".join(prefix + line for line in output.splitlines(keepends=True)) if prefix else output


def _copy(result: CopyResult) -> list[str | bytes]:
    return [
        f"{text.clean(result.source)} -> {text.clean(result.destination)} ({', '.join(result.nodes)})",
        f"{text.count(result.files, 'file')}, {text.size(result.bytes)}, {text.seconds(result.seconds)}",
    ]


def _check(result: CheckResult) -> list[str | bytes]:
    rows = [(line.subject, line.state, line.text) for line in result.findings]
    return table(("WHAT", "STATE", "FOUND"), rows, wrap=True)


_DEEDS = (
    UpResult,
    RunResult,
    DownResult,
    SweepResult,
    CancelResult,
    PullResult,
    CopyResult,
    ScaleResult,
    ExtendResult,
)
_RENDERERS: dict[type[Result], Callable[[Any], list[str | bytes]]] = {
    UpResult: _up,
    PlanResult: _plan,
    RunResult: _run,
    DownResult: _down,
    SweepResult: _sweep,
    StatusResult: _status,
    ListResult: _list,
    RunsResult: _runs,
    LogsResult: _logs,
    CancelResult: _cancel,
    PointsResult: _points,
    PullResult: _pull,
    ExecResult: _exec,
    CopyResult: _copy,
    CheckResult: _check,
    TypesResult: render_cloud.types,
    ZonesResult: render_cloud.zones,
    GcResult: render_cloud.gc,
    ScaleResult: render_cloud.scale,
    ExtendResult: render_cloud.extend,
}
