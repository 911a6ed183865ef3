"""rain-deploy run, sweep, runs, attach, cancel, pull and logs: a script on the cluster, followed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rain_deploy.cli.command import NODE, SCRIPT_ENDS_OPTIONS, option, run_argument, verb
from rain_deploy.cli.commands.clusters import announced, down_text, planned
from rain_deploy.cli.session import Session, Shown
from rain_deploy.cli.show import text
from rain_deploy.cli.show.points import LONG_S, needs
from rain_deploy.core.text import cluster_flag, count, hour
from rain_deploy.options.table import Group

if TYPE_CHECKING:
    from rain_deploy.core.spec import RunSpec
    from rain_deploy.runs.finish import RunResult
    from rain_deploy.runs.left import Pulled
    from rain_deploy.runs.states import RunLine


def run_text(result: RunResult) -> text.Text:
    """Return how the run stands and what it brought."""
    ends = [f"cluster {result.cluster}: {text.limit(result.limit_s)}"] if result.limit_s else []
    if result.off_s:
        by = hour(result.off_s, time.time())
        ends = [f"cluster {result.cluster}: all machines are off by {by}, because of --then-off"]
    if result.detached:
        again = f"rain-deploy attach {text.short(result.run)}{cluster_flag(result.cluster)}"
        return [f"run {result.run} is {result.state}", *ends, f"next: {again}"]
    if not result.pulled:
        head, pull = f"run {result.run}: {result.outcome}", f"rain-deploy pull {text.short(result.run)}"
        pull += cluster_flag(result.cluster)
        results = f'results: not pulled yet; "{pull}" puts them into {text.near(result.results_dir)}'
        if result.outcome == "lost":
            results = "results: not pulled"
            if result.points:
                results += f"; what was seen of them: {text.near(result.results_dir)}"
        return [head, results, *ends]
    states = ", ".join(f"{number} {state}" for state, number in result.point_states.items())
    each = f" ({states})" if len(result.point_states) > 1 else ""
    if result.cached_points:
        each += f", {result.cached_points} of them cached"
    again = f" in attempt {result.attempt}" if result.attempt > 1 else ""
    brought = [
        count(result.figures, "figure") if result.figures else "",
        count(result.points, "point") + each if result.points else "",
        f"{count(result.files, 'file')} written by the script" if result.files else "",
    ]
    return [
        f"run {result.run}: {result.outcome or result.state}{again}, {text.seconds(result.seconds)}",
        f"results: {text.near(result.results_dir)}",
        "  " + (", ".join(filter(None, brought)) or "only what it printed: stdout.log, stderr.log"),
        *([f"  the same points {needs(result.others, result.currency)}"] if _worth(result) else []),
        *(f"warning: {sentence}" for sentence in result.warnings),
        *_left_text(result),
        *ends,
    ]


def _worth(result: RunResult) -> bool:
    """True if other numbers of nodes are worth a thought."""
    return bool(result.others) and result.seconds > LONG_S


def _left_text(pulled: Pulled) -> list[str]:
    """Return what was not pulled, and why."""
    from rain_deploy.runs.left import left_lines

    return [f"  not pulled: {text.clean(line)}" for line in left_lines(pulled)]


def script_arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with SCRIPT and its arguments."""
    arguments = click.argument("args", nargs=-1, type=click.UNPROCESSED)(command)
    return click.argument("script", type=click.Path(path_type=Path))(arguments)


def run_spec(session: Session, script: Path, args: tuple[str, ...]) -> RunSpec:
    """Check the script and return the spec of the run.  InputError."""
    from rain_deploy.options import spec
    from rain_deploy.runs.source import read_script

    path = Path.cwd() / script
    read_script(path)
    if session.app.has_input():
        advice = "write it to a file, and name that file as an argument of the script"
        session.say(f"what is piped to {session.verb} is not sent to the script: {advice}", warning=True)
    return spec.run_spec(path, args, session.flags, session.toml, session.app.environ)


@verb(
    "run hsearch.py",
    "run --files data --env SEED=1 --timeout 2h train.py --epochs 5",
    done=True,
    context_settings=SCRIPT_ENDS_OPTIONS,
)
@script_arguments
def run_command(session: Session, *, script: Path, args: tuple[str, ...]) -> Shown:
    """Run SCRIPT with ARGS on the cluster and pull its results.

    Everything after SCRIPT is passed to the script. Ctrl-C detaches; the run continues.
    """
    from rain_deploy.options.spec import refuse_rented
    from rain_deploy.verbs.run import run

    wanted = run_spec(session, script, args)
    if recorded := session.ctx.store.cluster(session.cluster):
        refuse_rented(recorded.provider, session.flags)
    machines = session.cluster_spec() if wanted.replace_lost else None
    result = session.call(run, session.cluster, wanted, machines)
    return result, run_text(result)


@verb(
    "sweep --provider local --nodes 2 hsearch.py",
    "sweep --nodes 4 --max-cost 10 train.py --fast",
    done=True,
    context_settings=SCRIPT_ENDS_OPTIONS,
)
@script_arguments
def sweep_command(session: Session, *, script: Path, args: tuple[str, ...]) -> Shown:
    """Create a cluster, run SCRIPT with ARGS on it, pull the results, and delete the cluster.

    It also deletes the cluster if the script fails or you press Ctrl-C.
    """
    from rain_deploy.verbs.sweep import sweep

    wanted = run_spec(session, script, args)
    spec = announced(session)
    if session.flags.get("dry_run"):
        return planned(session, spec)
    result = session.call(sweep, spec, wanted)
    lines = run_text(result.run) if result.run else []
    return result, [*lines, *(down_text(result.down)[-1:] if result.down else [])]


def state_text(run: RunLine) -> str:
    """Return how a run stands: ``running``, ``failed, exit code 1``; no number of one that was ended."""
    code = run.exit_code if run.outcome == "failed" else None
    number = f", exit code {code}" if code and code > 0 else f", signal {-code}" if code else ""
    attempt = f", attempt {run.attempt}" if run.attempt > 1 else ""
    return f"{run.outcome or run.state}{number}{attempt}"


@verb("runs", "runs -c mine --json")
def runs_command(session: Session) -> Shown:
    """Show the runs of a cluster, oldest first.

    All clusters of this machine count their runs together, so the numbers of one cluster may have gaps.
    """
    from rain_deploy.verbs.runs import runs

    result = session.call(runs, session.cluster)
    rows = []
    for run in result.runs:
        took = run.ended_s - run.started_s if run.started_s and run.ended_s else None
        times = (text.moment(run.created_s), text.seconds(took))
        rows.append(
            (
                *(str(run.sequence), run.run, state_text(run), *times, "pulled" if run.pulled else ""),
                " ".join((run.script, *run.args)),
            )
        )
    head = (">NO", "RUN", "STATE", "STARTED", ">TOOK", "RESULTS", "SCRIPT")
    return result, [text.table(head, rows) if rows else f"cluster {result.cluster}: no runs"]


@verb("attach", "attach --out results/again 20261124-093601-5-3af3", done=True)
@run_argument
def attach_command(session: Session, *, run: str | None) -> Shown:
    """Follow RUN (default: the last) from its first line and pull its results.

    Ctrl-C detaches; the run continues.
    """
    from rain_deploy.verbs.runs import attach

    result = session.call(attach, session.cluster, run, out=session.flags.get("out"))
    return result, run_text(result)


@verb("cancel", "cancel 20261124-093601-5-3af3", done=True)
@run_argument
def cancel_command(session: Session, *, run: str | None) -> Shown:
    """Cancel RUN (default: the last)."""
    from rain_deploy.verbs.runs import cancel

    result = session.call(cancel, session.cluster, run)
    done = "cancelled" if result.changed else f"had ended before ({result.outcome or result.state})"
    return result, [f"run {result.run}: {done}"]


@verb("pull", "pull --all", done=True)
@run_argument
@option("--all", "all_runs", is_flag=True, group=Group.OUTPUT, help="Pull the results of every run.")
def pull_command(session: Session, *, run: str | None, all_runs: bool) -> Shown:
    """Pull the results of RUN (default: the last) again."""
    from rain_deploy.verbs.runs import pull

    if run and all_runs:
        raise click.UsageError("name a run or say --all, not both")
    result = session.call(pull, session.cluster, run, all_runs=all_runs, out=session.flags.get("out"))
    lines = []
    for pulled in result.runs:
        counts = ((pulled.figures, "figure"), (pulled.points, "point"), (pulled.files, "file"))
        brought = ", ".join((*(count(*one) for one in counts), text.size(pulled.bytes)))
        active = "" if pulled.finished else " (the run is still active)"
        lines += [f"{text.near(pulled.results_dir)}: {brought}{active}", *_left_text(pulled)]
    return result, lines or [f"cluster {result.cluster}: no runs"]


@verb("report", "report 20261124-093601-5-3af3", done=True)
@run_argument
def report_command(session: Session, *, run: str | None) -> Shown:
    """Make report.html of RUN (default: the last) again, from its results on this machine.

    `run`, `attach`, `pull` and `down` make it too. It is one file with the figures, the points and a
    timeline of the tasks, and it needs no network.
    """
    from rain_deploy.verbs.results.report import report

    result = session.call(report, session.cluster, run)
    return result, [f"report: {text.near(result.path)}"]


@verb("logs -f", "logs --task lr=0.1", "logs --node 2 --install")
@run_argument
@option("-f", "--follow", is_flag=True, help="Keep printing until the run ends.")
@option("--task", metavar="POINT", help="Show what this task printed, by its number, name or parameters.")
@option("--node", kind=NODE, metavar="N", help="Show the logs of the governor on this node.")
@option("--boot", is_flag=True, help="Show what a rented machine printed when it first booted.")
@option("--install", is_flag=True, help="Show what the installation printed.")
def logs_command(
    session: Session,
    *,
    run: str | None,
    follow: bool,
    task: str | None,
    node: int | None,
    boot: bool,
    install: bool,
) -> Shown:
    """Show what the script of RUN (default: the last) printed, one of its tasks, or a node's log."""
    from rain_deploy.verbs.logs import NodeLog, node_log, script_log, task_log

    of_node = node is not None or boot or install
    if follow and (of_node or task):
        raise click.UsageError("--follow follows the script; leave out --task, --node, --boot and --install")
    if boot and install:
        raise click.UsageError("--boot and --install are two logs; name one")
    if task and of_node:
        raise click.UsageError("--task is a log of a run; leave out --node, --boot and --install")
    if task:
        result = session.call(task_log, session.cluster, task, run)
    elif not of_node:
        result = session.call(script_log, session.cluster, run, follow=follow)
    else:
        log = NodeLog.BOOT if boot else NodeLog.INSTALL if install else NodeLog.SERVICES
        result = session.call(node_log, session.cluster, node, log)
    session.sink.pause()
    if not session.json:
        text.echo(result.stderr, nl=False, err=True)
    return result, [result.stdout]
