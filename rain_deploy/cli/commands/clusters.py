"""rain-deploy up, check, scale, extend, status, list and down: a cluster from beginning to end."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from rain_deploy.cli.command import checks, option, verb
from rain_deploy.cli.commands.account import account_spec
from rain_deploy.cli.session import Session, Shown
from rain_deploy.cli.show import text
from rain_deploy.cli.show.points import outlook_lines
from rain_deploy.core.text import cluster_flag, count, money, some
from rain_deploy.options.kinds import LIFETIME
from rain_deploy.options.table import CLOUD, OPTIONS, Group

if TYPE_CHECKING:
    from rain_deploy.cluster.install import PlanResult
    from rain_deploy.cluster.lookup import NodeLine
    from rain_deploy.core.spec import ClusterSpec
    from rain_deploy.verbs.down import DownResult
    from rain_deploy.verbs.up import UpResult


def up_text(result: UpResult) -> text.Text:
    """Return what was changed, the nodes, what they cost, and what to type next."""
    size, quote = count(len(result.nodes), "node"), result.quote
    where: dict[str, list[str]] = {}  # each change once, with the nodes on which it was made
    for change in result.changed:
        node, colon, what = change.partition(": ")
        where.setdefault(what if colon else change, []).extend([node] if colon else [])
    changes = []
    for what, nodes in where.items():
        changes.append(text.clean(f"  {what}: {some(nodes)}" if nodes else f"  {what}"))
    head = f"changed, with {count(result.started, 'process')} started:" if result.started else "changed:"
    costs = []
    if quote:
        each = (quote.per_hour, quote.stopped_per_hour)
        running, off = (money(price * len(result.nodes), quote.currency) for price in each)
        costs = [f"{running} per hour, {off} while powered off; {text.limit(result.limit_s)}"]
    return [
        f"cluster {result.cluster} is up: {size} ({result.provider}), {text.seconds(result.seconds)}",
        *((head, *changes) if changes else ("nothing had to be changed on the nodes",)),
        _nodes_table(result.nodes),
        *costs,
        f"next: rain-deploy run{cluster_flag(result.cluster)} SCRIPT",
    ]


def _nodes_table(nodes: Sequence[NodeLine]) -> str:
    head = ("NODE", "ROLE", "STATE", ">CPUS", ">LOAD", ">DISK FREE", "ADDRESS", "MACHINE")
    rows = []
    for node in nodes:
        load = "" if node.load is None else f"{node.load:.2f}"
        numbers = (str(node.cpus), load, text.size(node.disk_free_bytes))
        rows.append((node.name, node.role, node.state, *numbers, node.address, node.label))
    return text.table(head, rows)


def announced(session: Session) -> ClusterSpec:
    """Return the wanted cluster; say its provider and why, and, in red, if SSH is open to everyone."""
    nothing_is_done = session.verb == "check" or session.flags.get("dry_run")
    spec = session.cluster_spec(must_be_named=not nothing_is_done)
    session.say(f"provider {spec.provider}: {spec.provider_reason}")
    everybody = [net for net in spec.allow_ip if net.endswith("/0")]
    if everybody and spec.provider == CLOUD:
        session.say(f"SSH will be open to EVERY ADDRESS: {' and '.join(everybody)}", warning=True)
    return spec


def planned(session: Session, spec: ClusterSpec) -> tuple[PlanResult, text.Text]:
    """Return what ``up`` would create and run on each node, and the text of it, also for --quiet."""
    from rain_deploy.verbs.up import plan

    session.done = False
    result = session.call(plan, spec)
    lines = [
        f"cluster {result.cluster}, provider {result.provider}; nothing was done",
        f"facts: {text.clean(result.facts)}",
        *(text.clean(sentence) for sentence in result.offer),
        *(f"would create: {text.clean(thing)}" for thing in result.creates),
    ]
    rows = []
    for host in result.hosts:
        subject = f"{host.host} {host.label}".strip()
        rows += [(subject, "change", step) for step in host.steps] or [(subject, "ok", "nothing is missing")]
    if not session.verbose:
        return result, [*lines, _findings_table(rows), "to see the scripts, add -v"]
    for host in result.hosts:
        lines.append(f"\n# {host.host} {host.label}".rstrip())
        for stage in host.stages:
            lines += [f"\n## {host.host}: {stage.stage}", text.clean(stage.command)]
    return result, lines


def _findings_table(rows: Sequence[tuple[str, str, str]]) -> str:
    return text.table(("WHAT", "STATE", "FOUND"), rows, wrap=True)


@verb("up --provider local --nodes 2", "up --nodes 4 --instance-type cpu.huge --ttl 3h", done=True)
def up_command(session: Session) -> Shown:
    """Create a cluster of N machines, with a Rain governor on each and a Rain server on the first.

    Run it again to repair the cluster: it changes only what is missing or wrong.
    """
    from rain_deploy.verbs.up import up

    spec = announced(session)
    if session.flags.get("dry_run"):
        return planned(session, spec)
    result = session.call(up, spec)
    return result, up_text(result)


@verb("check --provider local", "check --hosts alice@10.0.0.5,alice@10.0.0.6")
def check_command(session: Session) -> Shown:
    """Show what up would install or refuse, but change nothing."""
    from rain_deploy.verbs.check import check

    result = session.call(check, announced(session))
    rows = [(line.subject, line.state, line.text) for line in result.findings]
    return result, [_findings_table(rows)]


@verb("scale 8", "scale 2 -c mine", done=True)
@click.argument("nodes", metavar="N", callback=checks(OPTIONS["nodes"].kind))
def scale_command(session: Session, *, nodes: int) -> Shown:
    """Add or remove nodes until the cluster has N.

    If a new node fails, the existing nodes stay as they are. You can add nodes while a run is waiting or
    active, but not remove them.
    """
    from rain_deploy.verbs.scale import scale

    recorded = session.ctx.store.cluster(session.cluster)
    provider = {"provider": recorded.provider} if recorded else {}
    session.flags = {**session.flags, "nodes": nodes, **provider}
    result = session.call(scale, session.cluster_spec(), nodes)
    now, hourly = count(result.after, "node"), result.per_hour
    if not (result.added or result.removed):
        return result, [f"cluster {result.cluster} has {now} as before", _nodes_table(result.nodes)]
    changes = (("added", result.added), ("removed", result.removed))
    costs = [] if hourly is None else [f"costs {money(hourly, result.currency)} per hour; "]
    return result, [
        f"cluster {result.cluster} has {now} now, {result.before} before, {text.seconds(result.seconds)}",
        *(f"{what}: {', '.join(names)}" for what, names in changes if names),
        _nodes_table(result.nodes),
        *(f"{cost}{text.limit(result.limit_s)}" for cost in costs),
    ]


@verb("extend 2h", "extend none -c mine", done=True)
@click.argument("duration", metavar="DURATION", callback=checks(LIFETIME))
def extend_command(session: Session, *, duration: float) -> Shown:
    """Extend the time limit of the cluster by DURATION. "none" removes the limit.

    At the limit, each machine powers itself off. If the limit has passed, DURATION counts from now. If
    --max-cost would be spent before the new limit, the machines power themselves off then.
    """
    from rain_deploy.verbs.scale import extend

    result = session.call(extend, session.cluster, None if math.isinf(duration) else duration)
    unreachable = "no node was reachable; only the labels were updated"
    return result, [
        f"cluster {result.cluster}: {text.limit(result.limit_s)}",
        f"costs {money(result.per_hour, result.currency)} per hour",
        f"updated {', '.join(result.nodes)}" if result.nodes else unreachable,
    ]


@verb("status", "status -c mine --check")
@option("--check", is_flag=True, help="Exit with 3 if anything differs from the record.")
def status_command(session: Session, *, check: bool) -> Shown:
    """Show the state of a cluster and of each of its nodes."""
    from rain_deploy.verbs.status import status

    result = session.call(status, session.cluster, check=check)
    run, rain, costs = result.run, "Rain does not answer", []
    why = f" (attempt {run.attempt})" if run and run.attempt > 1 else ""
    why += f" ({run.message})" if run and run.message else ""
    where = f"{result.provider} {result.zone}".rstrip()
    if result.governors is not None:
        rain = f"{count(result.governors, 'governor')} registered with Rain"
    if result.cost is not None:
        hourly = result.per_hour
        rate = "" if hourly is None else f"{money(hourly, result.currency)} per hour; "
        so_far = money(result.cost, result.currency)
        costs = [f"cost so far {so_far}; {rate}{text.limit(result.limit_s)}"]
    return result, [
        f"cluster {result.cluster}: {where}, {count(len(result.nodes), 'node')}, {rain}",
        *costs,
        *([f"{result.changing} is at work on it: this is how far it is"] if result.changing else []),
        *([_nodes_table(result.nodes)] if result.nodes else []),
        f"run {run.run}: {run.outcome or run.state}{why}, {run.script}" if run else "no run yet",
        *outlook_lines(result.outlook, result.currency),
        *(f"not as recorded: {text.clean(line)}" for line in result.drift if not result.changing),
    ]


@verb("list", "list --json")
def list_command(session: Session) -> Shown:
    """Show all clusters that are recorded on this machine, with their cost so far and their time limit."""
    from rain_deploy.verbs.list import list_clusters

    result = session.call(list_clusters)
    head = ("CLUSTER", "PROVIDER", "NODES", "CREATED", ">COST", "TIME LIMIT", "RUN")
    rows = []
    for line in result.clusters:
        up = "" if line.up else "not up"
        if line.changing:
            up = f"`{line.changing}` is at work"
        nodes = ", ".join(filter(None, (line.state or f"{line.nodes} {'' if up else 'up'}".rstrip(), up)))
        limit = text.moment(line.limit_s) or "none"
        costs = ("", "") if line.cost is None else (money(line.cost, line.currency), limit)
        where = f"{line.provider} {line.zone}".rstrip()
        rows.append(
            (line.name, where, nodes, text.moment(line.created_s), *costs, text.short(line.active_run))
        )
    return result, [text.table(head, rows) if rows else "no clusters"]


def down_text(result: DownResult) -> text.Text:
    """Return what was pulled and deleted, and how it was verified."""
    if result.nothing:
        looked = "; ".join(result.certificate) or f"to look in an account: rain-deploy gc -c {result.cluster}"
        near = difflib.get_close_matches(result.cluster, result.clusters, n=1)
        known = f"(recorded: {', '.join(result.clusters) or 'none'})"
        known += f"; did you mean {near[0]}?" if near else ""
        return [f"cluster {result.cluster} is not recorded on this machine {known}", text.clean(looked)]
    lines = map(text.clean, result.lines)
    return [*lines, f"cluster {result.cluster} is down, {text.seconds(result.seconds)}{result.costs}"]


@verb("down", "down -c mine --discard-results --yes", done=True)
@option(
    "--discard-results", is_flag=True, group=Group.OUTPUT, help="Do not pull results that are not here yet."
)
@option(
    "--forget",
    multiple=True,
    metavar="NODE",
    group=Group.OUTPUT,
    help="Delete the cluster without this node, which is gone for good. May be repeated. all: every node, or "
    "a lost account.",
)
def down_command(session: Session, *, discard_results: bool, forget: tuple[str, ...]) -> Shown:
    """Pull the results that are not here yet, delete the cluster, and check that nothing is left.

    If a run is active, it asks first; --yes cancels the run. If there is no record of the cluster on this
    machine, it looks in your cloud account and shows what it finds there, but deletes nothing.

    --forget shows what may be left on the node, and how to remove it there, and asks. Rented machines are
    forgotten only with "all", and only if no key can show them or prove that they are gone.
    """
    from rain_deploy.verbs.down import down

    out = session.flags.get("out")
    account = account_spec(session) if session.app.credentials() else None
    result = session.call(
        down, session.cluster, discard_results=discard_results, out=out, account=account, forget=forget
    )
    return result, down_text(result)
