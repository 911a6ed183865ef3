"""``logs``: what a script, one of its tasks, or a node printed."""

import enum
from dataclasses import dataclass

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.hosts import install_log
from rain_deploy.cluster.lookup import find_node, recorded
from rain_deploy.cluster.power import awake
from rain_deploy.core.events import Result
from rain_deploy.core.step import Command
from rain_deploy.errors import InputError
from rain_deploy.node.wire import MOST_HOMES, PointDetail, PointRow
from rain_deploy.results.details import detail_of, find_task
from rain_deploy.results.points import fold, parse_rows
from rain_deploy.runs.follow import follow as follow_run
from rain_deploy.runs.states import find_run, holder, run_details, run_file

_BOOT_LOG = """
log=/var/log/cloud-init-output.log
none() { echo "$1: there is no log of a first boot" >&2; exit 0; }
[ -z "${RAIN_DEPLOY_MACHINE:-}" ] || none "light machines do not boot"
[ -e "$log" ] || none "$log is not there"
[ -r "$log" ] || sudo="sudo -n"
${sudo:-} tail -n 5000 -- "$log"
"""
"""A light machine has its own directory in its environment; the log belongs to the machine below it."""

_SERVICE_LOGS = r"""
cd -- "$0" || exit
find "$@" -type f -size +0 \( -name '*.log' -o -path '*/log/executors/*' \) -printf '%T@ %p\n' 2>/dev/null |
  sort -n |
  while read -r _ path; do echo "==> ${path#nodes/*/} <=="; tail -n 500 -- "$path"; done
"""
"""Prints what each service, and each process in which tasks ran, has printed; the newest last."""

_TASK_LOG = """
for place in "$0" "$0"-*; do [ ! -e "$place/output.log" ] || cat -- "$place/output.log"; done
"""


class NodeLog(enum.StrEnum):
    """A log of a node; the services are the governor, its keeper and, on the server node, the server's."""

    SERVICES = "governor"
    INSTALL = "install"
    BOOT = "boot"


@dataclass(frozen=True, slots=True)
class LogsResult(Result):
    """``logs``: with ``follow`` the text went through ScriptOutput events and the fields are empty."""

    cluster: str
    source: str  # ``script``, ``task``, ``governor``, ``boot`` or ``install``
    run: str = ""
    node: str = ""
    stdout: bytes = b""
    stderr: bytes = b""
    task: str = ""


def script_log(ctx: Context, name: str, run: str | None = None, *, follow: bool = False) -> LogsResult:
    """Return what the script printed so far; with ``follow`` emit it until the run ends."""
    record = find_run(ctx, name, run)
    cluster = holder(ctx, record)
    if cluster and follow:
        follow_run(ctx, cluster, record)
        return LogsResult(cluster=name, source="script", run=record.id)
    out, err = (run_file(ctx, cluster, record, log) for log in ("stdout.log", "stderr.log"))
    return LogsResult(cluster=name, source="script", run=record.id, stdout=out, stderr=err)


def task_log(ctx: Context, name: str, task: str, run: str | None = None) -> LogsResult:
    """Return what a task printed.  Raises InputError if there is no such task, or if it has not ended."""
    record = find_run(ctx, name, run)
    cluster = holder(ctx, record)
    rows = fold(parse_rows(run_file(ctx, cluster, record, "points.jsonl").splitlines()), all_=True)
    _, row = find_task(rows, task, record)
    if not row.ended:
        message = f"{row.title} is {row.state}; what it prints comes when it ends"
        raise InputError(message, next_step=f"rain-deploy logs --node N -c {name} shows it now")
    place = f"tasks/{row.session}-{row.task}"
    if cluster:
        command = Command(("sh", "-c", _TASK_LOG, f"{cluster.layout.run(record.id)}/{place}"))
        out = ctx.transport.run(cluster.server.host, command).stdout
    else:
        places = (record.out / place, *record.out.glob(f"{place}-*"))
        out = b"".join((one / "output.log").read_bytes() for one in places if (one / "output.log").exists())
    why = ""
    if not out:
        detail = detail_of(run_details(ctx, cluster, record), row)
        why = f"{row.title}: {_why_silent(row, rows.index(row), detail)}\n"
    return LogsResult(
        cluster=name,
        source="task",
        run=record.id,
        task=row.title,
        node=row.node or "",
        stdout=out,
        stderr=why.encode(),
    )


def _why_silent(row: PointRow, tasks_before: int, detail: PointDetail) -> str:
    """Return why there is no output of a task that has ended."""
    if row.started_s is None and not row.cached:
        if row.state == "failed" and row.message:  # its process died, or it was not run after a failure
            return f"nothing of what it may have printed is kept: {row.message}"
        return "it was not executed, so it printed nothing"
    if not (row.key or detail.arguments or detail.unkept):
        return "what it printed was not kept, because nothing watched the run (--no-companion)"
    if tasks_before >= MOST_HOMES:
        return f"it printed nothing, or was not among the first {MOST_HOMES} tasks, whose output is kept"
    return "it printed nothing"


def node_log(ctx: Context, name: str, number: int | None, log: NodeLog) -> LogsResult:
    """Return a log of a node; the server node when no number is given."""
    cluster = recorded(ctx, name)
    node = find_node(cluster, number)
    if log == NodeLog.INSTALL:
        path, prefix = install_log(ctx, cluster), f"{node.name} |".encode()
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        out = b"".join(line for line in lines if line.startswith(prefix))
        return LogsResult(cluster=name, source=log, node=node.name, stdout=out)
    if log == NodeLog.BOOT and cluster.bill is None:
        raise InputError(f"the machines of {name} were not booted by rain-deploy: there is no log of that")
    cluster = awake(ctx, cluster, (node,))
    node = find_node(cluster, number)  # it may have another address now
    command = Command(("sh", "-c", _BOOT_LOG))
    if log == NodeLog.SERVICES:
        places = (f"nodes/{node.host.index}", *(("server",) if node.name == cluster.server.name else ()))
        command = Command(("sh", "-c", _SERVICE_LOGS, cluster.layout.cluster, *places))
    result = ctx.transport.run(node.host, command)
    err = result.stderr if log == NodeLog.BOOT else b""
    return LogsResult(cluster=name, source=log, node=node.name, stdout=result.stdout, stderr=err)
