"""Nodes that are gone for good, and accounts without a key: say what may be left there, then forget it."""

import contextlib
import shlex
import time
from collections.abc import Collection

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.destroy import forget_record
from rain_deploy.cluster.seen import Account
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import Resource
from rain_deploy.core.text import hour, money, owner_tag
from rain_deploy.errors import ApiError, CredentialsError, Declined, InputError, KeyRefused, PullFailed
from rain_deploy.parts.wall import needs_wall
from rain_deploy.state.store import Record

ALL = "all"


def forget_nodes(
    ctx: Context, record: Record, names: Collection[str], held: Collection[str]
) -> tuple[str, ...]:
    """Drop nodes from the record after a yes; return what may be left on each of them.

    ``held``: runs whose results are not pulled.  Raises InputError for a wrong name and for rented machines,
    PullFailed where results would be lost with the server node, Declined after a no.
    """
    cluster = record.cluster.whole
    known = [node.name for node in cluster.nodes]
    if cluster.bill:
        lost = f"if their account is lost for good: {_step(cluster, (ALL,))}"
        raise InputError(
            f"the machines of {cluster.name} are rented, and down deletes each of them",
            next_step=f"rain-deploy down -c {cluster.name}; {lost}",
        )
    if not known:
        nothing = f"cluster {cluster.name} has no node on record, so there is nothing to forget"
        raise InputError(nothing, next_step=f"rain-deploy down -c {cluster.name}")
    if unknown := sorted(set(names) - {ALL, *known}):
        message = f"cluster {cluster.name} has no {', '.join(unknown)}; it has {', '.join(known)}"
        raise InputError(message)
    chosen = [node for node in cluster.nodes if ALL in names or node.name in names]
    if held and cluster.server in chosen:
        raise PullFailed(
            f"results of {', '.join(held)} are on {cluster.server.name} only",
            next_step=f"to lose them: {_step(cluster, names)} --discard-results",
        )
    filtered = _filtered(ctx, cluster)
    left = tuple(_left_on(cluster, node, filtered=filtered) for node in chosen)
    forgotten, rest = ", ".join(node.name for node in chosen), len(chosen) < len(known)
    also = " and delete the rest of it" if rest else ""
    _agree(ctx, f"Forget {forgotten} of {cluster.name}{also}?", left)
    if cluster.server in chosen:
        record.change(up=False)  # no run is there any more
    record.drop_nodes({node.name for node in chosen})
    return left


def forget_account(ctx: Context, record: Record, why: str) -> tuple[str, ...]:
    """Forget a cluster of rented machines that no key can reach, after a yes; return what may be left.

    ``why``: what ``why_unknown`` has returned.  Raises Declined after a no.
    """
    cluster = record.cluster.whole
    assert cluster.bill
    left = tuple(_left_in_account(cluster, resource) for resource in record.resources)
    owner = f"owner label {owner_tag(cluster.owner)}, made with API key {cluster.bill.account or 'unknown'}"
    delete = f"with that key, this deletes them: rain-deploy gc --delete -c {cluster.name}"
    report = (*left, f"{owner}; {why}", delete)
    _agree(ctx, f"Forget {cluster.name}, without any proof that its machines are gone?", report)
    forget_record(ctx, record)
    return report


def _step(cluster: Cluster, names: Collection[str]) -> str:
    """Return the command that forgets these nodes."""
    return " ".join((f"rain-deploy down -c {cluster.name}", *(f"--forget {name}" for name in names)))


def why_unknown(ctx: Context, cluster: Cluster) -> str:
    """Return why nobody can say if the machines exist: the key is refused, or opens another account.

    Raises InputError if the account shows the machines or can prove that they are gone; ApiError,
    CredentialsError if it could say so in a moment.
    """
    assert cluster.bill
    down = f"rain-deploy down -c {cluster.name}"
    try:
        cloud = ctx.provider_for(cluster.provider).cloud
        assert cloud
        account = Account(cloud.survey(), key=cloud.account)
    except KeyRefused as error:
        return f"no key opens the account now: {error.message}"
    except CredentialsError as error:
        error.message = f"the account was not asked, so nothing was forgotten: {error.message}"
        again = f"the same command, with key {cluster.bill.account or 'of then'} or any that you have now"
        error.next_step = f"{error.next_step}; then {again}" if error.next_step else again
        raise
    except ApiError as error:
        error.message = f"the account does not answer, so nothing was forgotten: {error.message}"
        error.next_step = "the same command again when it answers"
        raise
    if account.of(cluster):
        message = f"{cluster.name} is in the account of key {account.key}, so down deletes it"
        raise InputError(message, next_step=down)
    if cluster.bill.account in {"", account.key}:
        message = f"the account of key {account.key} can prove that nothing of {cluster.name} is left"
        raise InputError(message, next_step=down)
    return f"nothing of it is in the account of key {account.key}"


def _agree(ctx: Context, question: str, left: tuple[str, ...]) -> None:
    ctx.emit(Notice("rain-deploy does not look there again, so this may be left:", warning=True))
    for line in left:
        ctx.emit(Notice(f"  {line}", warning=True))
    if not ctx.confirm(question):
        raise Declined("nothing was forgotten")


def _filtered(ctx: Context, cluster: Cluster) -> bool:
    """Return True where the cluster's machines have our packet filter."""
    facts = {node.name: node.facts for node in cluster.nodes if node.facts}
    addresses = {node.name: node.cluster_address for node in cluster.nodes if node.facts}
    with contextlib.suppress(InputError):  # without root there is none
        wanted = ctx.provider_for(cluster.provider).traits.needs_wall
        return wanted and needs_wall(addresses, facts, cluster.machines.trust_networks)
    return False


def _left_on(cluster: Cluster, node: Node, *, filtered: bool) -> str:
    """Return what may be left on a machine, and the command that removes it there."""
    host, service = node.host, f"{cluster.id}/{node.host.index}"
    end = f"grep -lszx RAIN_DEPLOY_SERVICE={service} /proc/[0-9]*/environ | cut -d/ -f3 | xargs -r kill -9"
    directory = cluster.layout.cluster
    table = f"rain_deploy_{cluster.id}"
    remove = f"{end}; rm -rf {shlex.quote(directory)}"
    files = f"processes of the cluster, files under {directory}"
    if filtered:
        remove += f"; nft delete table inet {table}"
        files += f", and packet filter table {table}"
    if node.facts and node.facts.sudo and node.facts.uid:
        remove = f"sudo sh -c {shlex.quote(remove)}"
    login = shlex.join(("ssh", "-p", str(host.port), f"{host.user}@{host.address}", remove))
    return f"{host.title} at {host.address}: {files}; to remove them: {login}"


def _left_in_account(cluster: Cluster, resource: Resource) -> str:
    """Return what may be left in the account, and what it may cost."""
    bill, zone = cluster.bill, cluster.machines.zone or "an unknown zone"
    assert bill
    name = f"{resource.label}, id {resource.ref or 'unknown'}, zone {zone}"
    if not resource.is_machine:
        return name
    address = next((n.host.address for n in cluster.nodes if n.name == resource.name), "unknown")
    running, off = (money(p, bill.currency) for p in (bill.quote.per_hour, bill.quote.stopped_per_hour))
    until = f"until {hour(bill.limit_s, time.time())}, then {off}" if bill.limit_s else "without a time limit"
    return f"{name}, address {address}: up to {running} per hour {until}"
