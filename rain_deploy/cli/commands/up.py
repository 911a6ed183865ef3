"""rain-deploy up and check: bring up a cluster, and say beforehand what that would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain_deploy.cli.command import verb
from rain_deploy.cli.show import text
from rain_deploy.core.text import money
from rain_deploy.options.table import CLOUD

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.cluster.nodes.preview import PlanResult
    from rain_deploy.core.bill import Quote
    from rain_deploy.core.spec import ClusterSpec
    from rain_deploy.verbs.check import CheckResult
    from rain_deploy.verbs.up import UpResult

NAMES_SHOWN = 5
"""Nodes in one line, before "and N more"."""


def up_text(result: UpResult) -> text.Text:
    """Return what was changed, the nodes, what they cost, and what to type next."""
    size = text.count(len(result.nodes), "node")
    head = f"changed, with {text.count(result.started, 'process')} started:" if result.started else "changed:"
    changes, quote = _grouped(result.changed), result.quote
    return [
        f"cluster {result.cluster} is up: {size} ({result.provider}), {text.seconds(result.seconds)}",
        *((head, *changes) if changes else ("nothing had to be changed on the nodes",)),
        text.nodes_table(result.nodes),
        *(_offer(quote, len(result.nodes), result.limit_s) if quote else ()),
        f"next: rain-deploy run{text.cluster_flag(result.cluster)} SCRIPT",
    ]


def _offer(quote: Quote, machines: int, limit_s: float | None) -> list[str]:
    running, off = (
        money(each * machines, quote.currency) for each in (quote.per_hour, quote.stopped_per_hour)
    )
    return [f"{running} per hour, {off} while powered off; {text.limit(limit_s)}"]


def _grouped(changes: tuple[str, ...]) -> list[str]:
    """Return each change once, with the nodes on which it was made."""
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


def plan_text(result: PlanResult) -> text.Text:
    """Return what would be made, and the commands that would run on each node."""
    lines: text.Text = [
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


def check_text(result: CheckResult) -> text.Text:
    """Return a row for each thing that was looked at."""
    rows = [(line.subject, line.state, line.text) for line in result.findings]
    return [text.table(("WHAT", "STATE", "FOUND"), rows, wrap=True)]


def announced(session: Session, *, must_be_named: bool = False) -> ClusterSpec:
    """Return the cluster that is wanted; say its provider and why, and, in red, if everybody may try SSH."""
    spec = session.cluster_spec(must_be_named=must_be_named)
    session.say(f"provider {spec.provider}: {spec.provider_reason}")
    everybody = [net for net in spec.allow_ip if net.endswith("/0")]
    if everybody and spec.provider == CLOUD:
        session.say(f"SSH will be open to EVERY ADDRESS: {' and '.join(everybody)}", warning=True)
    return spec


@verb(
    "up",
    up_text,
    done=True,
    examples=(
        "up --provider local --nodes 2",
        "up --nodes 4 --instance-type cpu.huge --ttl 3h",
    ),
)
def up_command(session: Session) -> UpResult | PlanResult:
    """Create a cluster of N machines, with a Rain governor on each and a Rain server on the first.

    Run it again to repair the cluster: it changes only what is missing or wrong.
    """
    from rain_deploy.verbs.up import up

    dry_run = bool(session.flags.get("dry_run"))
    if dry_run:
        session.show, session.done = plan_text, False
    spec = announced(session, must_be_named=not dry_run)
    return session.call(up, spec, dry_run=dry_run)


@verb("check", check_text, examples=("check --provider local", "check --hosts alice@10.0.0.5,alice@10.0.0.6"))
def check_command(session: Session) -> CheckResult:
    """Show what up would install or refuse, but change nothing."""
    from rain_deploy.verbs.check import check

    return session.call(check, announced(session))
