"""rain-deploy run and sweep: a script on the cluster, followed from here, its results pulled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rain_deploy.cli.command import SCRIPT_ENDS_OPTIONS, verb
from rain_deploy.cli.commands.down import down_text
from rain_deploy.cli.commands.up import announced, plan_text
from rain_deploy.cli.show import text

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.core.events import Result
    from rain_deploy.core.spec import RunSpec
    from rain_deploy.runs.finish import RunResult
    from rain_deploy.verbs.sweep import SweepResult


def run_text(result: RunResult) -> text.Text:
    """Return how the run stands and what it brought."""
    ends = [f"cluster {result.cluster}: {text.limit(result.limit_s)}"] if result.limit_s else []
    if result.detached:
        again = f"rain-deploy attach {result.run}{text.cluster_flag(result.cluster)}"
        return [f"run {result.run} is {result.state}", *ends, f"next: {again}"]
    failed = f" ({result.failed_points} failed)" if result.failed_points else ""
    brought = [
        text.count(result.figures, "figure") if result.figures else "",
        text.count(result.points, "point") + failed if result.points else "",
        f"{text.count(result.files, 'file')} written by the script" if result.files else "",
    ]
    return [
        f"run {result.run}: {result.outcome or result.state}, {text.seconds(result.seconds)}",
        f"results: {text.near(result.results_dir)}",
        "  " + (", ".join(filter(None, brought)) or "only what it printed: stdout.log, stderr.log"),
        *ends,
    ]


def script_arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with SCRIPT and its arguments."""
    arguments = click.argument("args", nargs=-1, type=click.UNPROCESSED)(command)
    return click.argument("script", type=click.Path(path_type=Path))(arguments)


def run_spec(session: Session, script: Path, args: tuple[str, ...]) -> RunSpec:
    """Return what is to be run, once the script has been looked at.  InputError."""
    from rain_deploy.options import spec
    from rain_deploy.runs.source import read_script

    path = Path.cwd() / script
    read_script(path)
    return spec.run_spec(path, args, spec.merged(session.flags, session.toml))


@verb(
    "run",
    run_text,
    done=True,
    examples=("run hsearch.py", "run --files data --env SEED=1 --timeout 2h train.py --epochs 5"),
    context_settings=SCRIPT_ENDS_OPTIONS,
)
@script_arguments
def run_command(session: Session, *, script: Path, args: tuple[str, ...]) -> RunResult:
    """Run SCRIPT with ARGS on the cluster and pull its results.

    Everything after SCRIPT is passed to the script. Ctrl-C detaches; the run continues.
    """
    from rain_deploy.options.spec import refuse_rented
    from rain_deploy.verbs.run import run

    wanted = run_spec(session, script, args)
    living = session.ctx.store.cluster(session.cluster)
    if living is not None:
        refuse_rented(living.provider, session.flags)
    return session.call(run, session.cluster, wanted)


def sweep_text(result: SweepResult) -> text.Text:
    """Return the run's result, and that the cluster is down."""
    lines = run_text(result.run) if result.run else []
    return lines + (down_text(result.down)[-1:] if result.down else [])


@verb(
    "sweep",
    sweep_text,
    done=True,
    examples=(
        "sweep --provider local --nodes 2 hsearch.py",
        "sweep --nodes 4 --max-cost 10 train.py --fast",
    ),
    context_settings=SCRIPT_ENDS_OPTIONS,
)
@script_arguments
def sweep_command(session: Session, *, script: Path, args: tuple[str, ...]) -> Result:
    """Create a cluster, run SCRIPT with ARGS on it, pull the results, and delete the cluster.

    It also deletes the cluster if the script fails or you press Ctrl-C.
    """
    from rain_deploy.verbs.sweep import sweep
    from rain_deploy.verbs.up import up

    dry_run = bool(session.flags.get("dry_run"))
    wanted = run_spec(session, script, args)
    spec = announced(session, must_be_named=not dry_run)
    if not dry_run:
        return session.call(sweep, spec, wanted)
    session.show, session.done = plan_text, False
    return session.call(up, spec, dry_run=True)
