"""``down``: pull what is not pulled yet, delete everything, look again, certify."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.destroy import destroy
from rain_deploy.cluster.lookup import out_of_reach
from rain_deploy.cluster.lost import ALL, forget_account, forget_nodes, why_unknown
from rain_deploy.cluster.seen import account_at, account_of, note, refuse_another_account
from rain_deploy.core.events import Result
from rain_deploy.core.machine import GOING
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.text import money, owner_tag
from rain_deploy.errors import NotVerified, RainDeployError, Unwritable
from rain_deploy.runs.finish import end_records, not_pulled, pull_all
from rain_deploy.runs.journal import bring_journal
from rain_deploy.runs.states import runs_of
from rain_deploy.state.store import Record


@dataclass(frozen=True, slots=True)
class DownResult(Result):
    """The result of ``down``.  ``nothing`` is True if neither the record nor the cloud has such a cluster."""

    cluster: str
    deleted: tuple[str, ...] = ()
    certificate: tuple[str, ...] = ()  # what was checked and is gone, one line each
    pulled: tuple[str, ...] = ()  # runs whose results were pulled first
    seconds: float = 0.0
    nothing: bool = False
    forgotten: tuple[str, ...] = ()
    """With ``--forget``: what may be left, one line each; nothing of it was verified."""
    clusters: tuple[str, ...] = ()  # with ``nothing``: those that are on record here
    unrecorded: str = ""  # why the record still has the cluster; empty: it has not
    cost: float | None = None  # what the machines cost in total; None if they cost nothing
    currency: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """Return what was pulled and deleted, and how that was verified."""
        verified = f"verified: nothing {'else ' if self.forgotten else ''}is left"
        return (
            *(f"pulled: {run}" for run in self.pulled),
            *(f"deleted: {thing}" for thing in self.deleted),
            *(f"forgotten, NOT verified: {line}" for line in self.forgotten),
            *([verified] if self.certificate or not self.forgotten else []),
            *(f"  {line}" for line in self.certificate),
        )

    @property
    def costs(self) -> str:
        """Return ``; it cost 1.20 CHF``; empty if the machines cost nothing."""
        return f"; it cost {money(self.cost, self.currency)}" if self.cost is not None else ""

    @property
    def problem(self) -> RainDeployError | None:
        if not self.unrecorded:
            return None
        return Unwritable(
            f"cluster {self.cluster} is deleted, but its record stays: {self.unrecorded}",
            next_step=f"make it writable, then rain-deploy down -c {self.cluster} finds that all is gone",
        )


def down(
    ctx: Context,
    name: str,
    *,
    discard_results: bool = False,
    out: Path | None = None,
    account: ClusterSpec | None = None,
    forget: tuple[str, ...] = (),
) -> DownResult:
    """Delete the cluster.  Absent is success; what could not be proved to be gone is an error.

    ``account``: whose resources to look for, and in which cloud, if the cluster is not on record.
    ``forget``: nodes that are gone for good, or ``all``.
    """
    with ctx.change(name, "down", ending=True) as record:
        if record.known:
            return take_down(ctx, record, discard_results=discard_results, out=out, forget=forget)
    certificate = _nothing_in(ctx, name, account) if account else ()
    known = tuple(cluster.name for cluster in ctx.store.clusters())
    return DownResult(cluster=name, certificate=certificate, nothing=True, clusters=known)


def _nothing_in(ctx: Context, name: str, spec: ClusterSpec) -> tuple[str, ...]:
    """Return the certificate of a cluster without a record; NotVerified if the account may have it."""
    account = account_at(ctx, spec.provider)
    if account is None:
        return ()
    no_record = f"cluster {name} is not recorded on this machine"
    if account.silent:
        message = f"{no_record}, and it is unknown what the account has of it: {account.silent}"
        raise NotVerified(message, next_step=f"rain-deploy gc -c {name}")
    mine = (name, owner_tag(spec.owner or ""))
    lasting = (each for each in account.found if each.state not in GOING)
    found = ", ".join(each.label for each in lasting if (each.cluster, each.owner) == mine)
    if not found:
        return (f"{spec.provider}: listed, no resource of {name} is yours in the account",)
    message = f"{no_record}, but the account has something of it that is yours: {found}"
    raise NotVerified(message, still_running=found, next_step=f"rain-deploy gc --delete -c {name}")


def take_down(
    ctx: Context,
    record: Record,
    *,
    discard_results: bool,
    out: Path | None = None,
    forget: tuple[str, ...] = (),
) -> DownResult:
    """Delete a cluster that is held.  Raises PullFailed, with nothing deleted, if results would be lost."""
    started_s = time.monotonic()
    cluster = record.meter().whole
    account = account_of(ctx, cluster)
    if account:  # before the pull starts what is off
        note(ctx, cluster, account)
    pulling = cluster.up and not discard_results
    forgotten = deleted = certificate = pulled = tuple[str, ...]()
    if cluster.bill and ALL in forget:
        why = why_unknown(ctx, cluster)
        pulled = pull_all(ctx, record, out) if pulling else ()  # its machines may answer without the account
        priced = record.cluster
        forgotten = forget_account(ctx, record, why)
    else:
        if forget:
            held = tuple(run.id for run in not_pulled(ctx, cluster)) if pulling else ()
            forgotten = forget_nodes(ctx, record, forget, held)
        refuse_another_account(ctx.provider_for(cluster.provider), cluster, record.resources)
        if pulling and record.cluster.up:
            pulled = pull_all(ctx, record, out)
            if pulled or (
                runs_of(ctx, cluster) and cluster.server.name not in out_of_reach(cluster, account)
            ):
                bring_journal(ctx, record.cluster.whole)
        priced = record.cluster
        deleted, certificate = destroy(ctx, record)
    end_records(ctx, cluster)
    now_s = time.time()
    if account and account.silent:
        priced = account.billed(priced, now_s)
    seconds, cost = time.monotonic() - started_s, priced.cost(now_s)
    why = ctx.store.unrecorded.message if ctx.store.unrecorded else ""
    result = DownResult(
        cluster.name, deleted, certificate, pulled, seconds, forgotten=forgotten, unrecorded=why
    )
    return replace(result, cost=cost, currency=cluster.currency)
