"""rain-deploy rehearse: a script's plan, tried on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rain_deploy.cli.command import SCRIPT_ENDS_OPTIONS, verb
from rain_deploy.cli.commands.runs import run_spec, script_arguments
from rain_deploy.cli.session import Session, Shown
from rain_deploy.cli.show import text
from rain_deploy.core.text import count

if TYPE_CHECKING:
    from rain_deploy.node.wire import RehearsedKind
    from rain_deploy.verbs.rehearsal.rehearse import RehearseResult


def rehearse_text(result: RehearseResult) -> text.Text:
    """Return what was tried, what was found, and what was not tried."""
    tasks = sum(kind.count for kind in result.kinds)
    head = f"rehearsed {result.script}: {count(tasks, 'task')}, {text.seconds(result.seconds)}"
    rows = [_row(kind) for kind in result.kinds]
    table = [text.table(("TASKS OF", ">COUNT", "TRIED", ">TOOK", "FOUND"), rows)] if rows else []
    memory = f"a task's process used at most {result.memory_bytes >> 20} MiB of memory"
    same = "the plan was made twice: all keys are the same, so a second run finds these results again"
    unstable = any("differs from run to run" in finding for finding in result.findings)
    return [
        head,
        *table,
        *([memory] if result.memory_bytes else []),
        *([text.clean(result.ended)] if result.ended else []),
        *([text.clean(result.left)] if result.left else []),
        *(f"warning: {text.clean(finding)}" for finding in result.findings),
        *([same] if result.compared and not unstable else []),
        *(["what a task reads from the network or the clock is kept with its result"] if tasks else []),
    ]


def _row(kind: RehearsedKind) -> tuple[str, ...]:
    found = kind.error
    if kind.waits:
        found = "needs results of tasks that were not run"
    elif kind.seconds is not None and kind.count > 1 and not found:
        found = f"all: about {text.seconds(kind.seconds * kind.count)} on one CPU"
    tried = "" if kind.waits else kind.tried
    took = "" if kind.seconds is None else text.seconds(kind.seconds)
    return (text.clean(kind.name), str(kind.count), text.clean(tried), took, text.clean(found))


@verb("rehearse hsearch.py", "rehearse --with torch train.py --fast", context_settings=SCRIPT_ENDS_OPTIONS)
@script_arguments
def rehearse_command(session: Session, *, script: Path, args: tuple[str, ...]) -> Shown:
    """Try the plan of SCRIPT with ARGS on this machine, before machines cost money.

    Of each kind of task only the first runs. It ends where the script needs the result of another task, and
    says which lines were not tried. Then it makes the plan again, and says which tasks differ from run to
    run: their results would be computed again each time.
    """
    from rain_deploy.options import spec
    from rain_deploy.verbs.rehearsal.rehearse import rehearse

    wanted = run_spec(session, script, args)
    node = spec.rehearsal_spec(session.cluster, spec.merged(session.flags, session.toml))
    result = session.call(rehearse, node, wanted)
    return result, rehearse_text(result)
