"""rain-deploy runs, attach, cancel, pull: a run, by id or the last one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rain_deploy.cli.command import option, run_argument, verb
from rain_deploy.cli.commands.run import run_text
from rain_deploy.cli.show import text
from rain_deploy.options.table import Group

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.runs.finish import RunResult
    from rain_deploy.runs.states import RunLine
    from rain_deploy.verbs.runs import CancelResult, PullResult, RunsResult


def runs_text(result: RunsResult) -> text.Text:
    """Return a row for each run."""
    if not result.runs:
        return [f"cluster {result.cluster}: no runs"]
    head = ("RUN", "STATE", "TYPED", ">TOOK", "RESULTS", "SCRIPT")
    return [text.table(head, [_row(run) for run in result.runs])]


def _row(run: RunLine) -> tuple[str, ...]:
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


def cancel_text(result: CancelResult) -> text.Text:
    """Return whether the run was cancelled or had ended before."""
    done = "cancelled" if result.changed else f"had ended before ({result.outcome or result.state})"
    return [f"run {result.run}: {done}"]


def pull_text(result: PullResult) -> text.Text:
    """Return a line for each run: where its results are, and how much."""
    if not result.runs:
        return [f"cluster {result.cluster}: no runs"]
    return [
        f"{text.near(run.results_dir)}: {text.count(run.figures, 'figure')}, "
        f"{text.count(run.points, 'point')}, {text.count(run.files, 'file')}, {text.size(run.bytes)}"
        f"{'' if run.finished else ' (the run is still active)'}"
        for run in result.runs
    ]


@verb("runs", runs_text, examples=("runs", "runs -c mine --json"))
def runs_command(session: Session) -> RunsResult:
    """Show the runs of a cluster, oldest first."""
    from rain_deploy.verbs.runs import runs

    return session.call(runs, session.cluster)


@verb("attach", run_text, done=True, examples=("attach", "attach --out results/again 20261124-093601-5-3af3"))
@run_argument
def attach_command(session: Session, *, run: str | None) -> RunResult:
    """Follow RUN (default: the last) from its first line and pull its results.

    Ctrl-C detaches; the run continues.
    """
    from rain_deploy.verbs.runs import attach

    return session.call(attach, session.cluster, run, out=session.flags.get("out"))


@verb("cancel", cancel_text, done=True, examples=("cancel", "cancel 20261124-093601-5-3af3"))
@run_argument
def cancel_command(session: Session, *, run: str | None) -> CancelResult:
    """Cancel RUN (default: the last)."""
    from rain_deploy.verbs.runs import cancel

    return session.call(cancel, session.cluster, run)


@verb("pull", pull_text, done=True, examples=("pull", "pull --all"))
@run_argument
@option("--all", "all_runs", is_flag=True, group=Group.OUTPUT, help="Pull the results of every run.")
def pull_command(session: Session, *, run: str | None, all_runs: bool) -> PullResult:
    """Pull the results of RUN (default: the last) again."""
    from rain_deploy.verbs.runs import pull

    if run and all_runs:
        raise click.UsageError("name a run or say --all, not both")
    return session.call(pull, session.cluster, run, all_runs=all_runs, out=session.flags.get("out"))
