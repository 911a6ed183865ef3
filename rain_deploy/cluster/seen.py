"""Look: what is recorded of a cluster and what its account shows, gathered once; nothing is changed."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Cluster, Node, Quote
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import ASLEEP, GOING, Reach, Resource, node_index
from rain_deploy.core.spec import ClusterSpec, EnvironmentSpec, ResolvedEnvironment
from rain_deploy.core.text import count, owner_tag
from rain_deploy.errors import ApiError, CredentialsError, InputError, RainDeployError, StateError
from rain_deploy.parts.facts import DEBIAN_12
from rain_deploy.parts.software import check_packages, engine_key, node_lock, refuse_template
from rain_deploy.parts.supply.cache import EngineCache
from rain_deploy.parts.supply.resolve import asked, locked_names, resolve, unresolved
from rain_deploy.providers.base import Cloud, Provider

RUNNING, STARTING = "running", "starting"
VIEW_S = 6.0  # how long a command that only looks waits for an account: the whole command takes 10 s
_SETTLED = ("zone", "instance_type", "disk_size_gib", "template", "anti_affinity", "idle_s")
"""Fields of Machines that a living cluster cannot change."""


@dataclass(frozen=True, slots=True)
class Account:
    """The contents of a cloud account; ``silent`` says why it shows nothing."""

    found: tuple[Resource, ...] = ()
    silent: RainDeployError | None = None
    key: str = ""  # name of the API key that asked

    def of(self, cluster: Cluster) -> tuple[Resource, ...]:
        """Return what lasts of the cluster, and not what another owner has given its id."""
        owners = {owner_tag(cluster.owner), ""}
        mine = (f for f in self.found if f.cluster_id == cluster.id and f.state not in GOING)
        return tuple(found for found in mine if found.owner in owners or not cluster.owner)

    def about(self, cluster: Cluster) -> "Account":
        """Return what it shows of a cluster: where that is in another account, it is silent about it."""
        made_with = cluster.bill.account if cluster.bill else ""
        if self.silent or made_with in {"", self.key} or self.of(cluster):
            return self
        another = InputError(
            f"nothing of cluster {cluster.name} is in this account: it was created with API key {made_with}, "
            f"and this one is {self.key}",
            next_step=_elsewhere(cluster),
        )
        return Account(silent=another, key=self.key)

    def billed(self, cluster: Cluster, now_s: float) -> Cluster:
        """Return the cluster with its bill as of now: only machines that run cost their full price."""
        machines = None if self.silent else tuple(found for found in self.of(cluster) if found.is_machine)
        return replace(cluster, bill=cluster.bill.seen(machines, now_s)) if cluster.bill else cluster

    def machines(self, cluster: Cluster) -> dict[str, Resource]:
        """Return the cluster's machines by node name; of two with one name, the node's own."""
        ids = {node.name: node.host.machine for node in cluster.every_node}
        machines = [found for found in self.of(cluster) if found.is_machine]
        machines.sort(key=lambda found: found.ref.endswith(ids.get(found.name) or "no id"))
        return {found.name: found for found in machines}


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything that a plan is made from."""

    spec: ClusterSpec  # the wish, completed with what the cluster remembers
    cluster: Cluster  # as recorded; a new one has nothing yet
    recorded: bool
    resources: tuple[Resource, ...]
    """On record, in order of making; ``ref`` is empty where the outcome of a create is unknown."""
    now_s: float
    account: Account | None = None  # None where nothing is priced
    reach: Reach | None = None  # who reaches its machines; None: unknown, or not the provider's to say
    quote: Quote | None = None  # the price of its machines, where they must be paid for anew
    environment: ResolvedEnvironment | None = None
    resolved: bool = True
    """False where requirements are still to be resolved: the environment's digest will be another."""
    engine_cached: bool = False
    sentences: tuple[str, ...] = ()  # what the provider says of its machines

    @property
    def nodes(self) -> int:
        """Return the wanted number of nodes."""
        return self.spec.nodes or 1

    @property
    def existing(self) -> set[tuple[str, str]]:
        """Return kind and name of what exists: as the account shows, or as recorded if it cannot be asked."""
        made = tuple(resource for resource in self.resources if resource.ref)
        found = self.account.of(self.cluster) if self.account and not self.account.silent else made
        return {(each.kind, each.name) for each in found}

    @property
    def asleep(self) -> tuple[str, ...]:
        """Return the names of the wanted machines that are powered off."""
        shown = self.account.machines(self.cluster) if self.account else {}
        off = (found for found in shown.values() if found.state in ASLEEP and found.index <= self.nodes)
        return tuple(found.name for found in sorted(off, key=lambda found: found.index))

    @property
    def missing(self) -> int:
        """Return how many of the wanted machines do not exist."""
        return self.nodes - sum(0 < node_index(name) <= self.nodes for _, name in self.existing)


def look(
    ctx: Context, spec: ClusterSpec, *, preflight: bool = True, resolve: bool = True, shrink: bool = False
) -> Seen:
    """Look at the record, the account and what was wished for.  Nothing is changed.

    ``preflight``: the provider checks the wish, which may ask a network.  ``resolve``: requirements that are
    new are resolved, which does.  ``shrink``: fewer nodes may be wished for than live.
    Raises what ``up`` refuses: InputError, CredentialsError, QuotaError, ApiError.
    """
    provider, recorded = ctx.provider_for(spec.provider), ctx.store.cluster(spec.name)
    cluster = recorded or new_cluster(ctx, spec)
    resources = ctx.store.resources(cluster.id)
    spec = completed(spec, cluster, resources, shrink=shrink)
    sentences = provider.preflight(spec) if preflight else ()
    environment, complete = _environment(ctx, spec.environment, cluster, resolving=resolve)
    cached = EngineCache(ctx.home).find(engine_key(spec.engine), DEBIAN_12.arch, DEBIAN_12.glibc)
    seen = Seen(
        spec=spec,
        cluster=cluster,
        recorded=recorded is not None,
        resources=resources,
        now_s=time.time(),
        environment=environment,
        resolved=complete,
        engine_cached=cached is not None,
        sentences=sentences,
    )
    if not (cloud := provider.cloud):
        return seen
    account = ask(cloud) if resources else Account(key=cloud.account)
    refuse_another_account(provider, cluster, resources, account)
    reach = None if account.silent else cloud.reach(cluster, account.of(cluster), spec.allow_ip)
    seen = replace(
        seen, account=account, cluster=account.about(cluster).billed(cluster, seen.now_s), reach=reach
    )
    if not is_offered(seen) or (shrink and seen.nodes <= len(cluster.nodes)):  # no machine is made
        return seen
    quote = replace(cloud.quote(spec, cluster, max(seen.missing, 0)), opens=reach.opens if reach else ())
    if seen.missing > 0:
        refuse_template(quote.template)
    return replace(seen, quote=quote)


def ask(cloud: Cloud) -> Account:
    """Ask the account what it has.  That it does not answer is an answer too: the machines may be well."""
    try:
        return Account(cloud.survey(), key=cloud.account)
    except (ApiError, CredentialsError) as error:
        return Account(silent=error, key=cloud.account)


def account_of(ctx: Context, cluster: Cluster) -> Account | None:
    """Return what the account shows of a cluster within VIEW_S; None where nothing is priced."""
    account = account_at(ctx, cluster.provider)
    return account and account.about(cluster)


def account_at(ctx: Context, provider: str) -> Account | None:
    """Return what a provider's account shows within VIEW_S, of all clusters; None where nothing is priced."""
    try:
        with viewed(ctx, provider) as cloud:
            return ask(cloud) if cloud else None
    except (CredentialsError, InputError) as error:
        return Account(silent=error)


@contextlib.contextmanager
def viewed(ctx: Context, provider: str) -> Iterator[Cloud | None]:
    """Yield a provider's cloud to a command that only looks: it gives up soon."""
    cloud = ctx.provider_for(provider).cloud
    with cloud.within(VIEW_S) if cloud else contextlib.nullcontext():
        yield cloud


def reach_of(ctx: Context, cluster: Cluster, account: Account) -> Reach:
    """Return who reaches the machines of a cluster that the account shows; empty if it shows none."""
    mine = account.of(cluster)
    try:
        with viewed(ctx, cluster.provider) as cloud:
            return cloud.reach(cluster, mine) if cloud and mine else Reach()
    except (ApiError, CredentialsError, InputError) as error:
        return Reach(unknown=error.message)


def note(ctx: Context, cluster: Cluster, account: Account) -> Cluster:
    """Record what the account shows of a cluster's cost, and return the cluster.

    Without a record (a full disk) the command continues: it only looks.
    """
    now_s = time.time()
    if cluster.bill and not account.silent:
        with contextlib.suppress(StateError, LookupError):
            change = lambda now: account.billed(now, now_s) if now.id == cluster.id else now  # noqa: E731
            ctx.store.update_cluster(cluster.name, change)
    return account.billed(cluster, now_s)


def refuse_another_account(
    provider: Provider, cluster: Cluster, resources: tuple[Resource, ...], account: Account | None = None
) -> None:
    """Raise InputError where nothing of the cluster is in this account: it costs in another one.

    Raises ApiError where this account does not say.  An intent without an id may be a machine too.
    ``account`` is asked if it is not given, but not while the key is the same.
    """
    cloud, bill = provider.cloud, cluster.bill
    if cloud is None or bill is None or not resources or bill.account in {"", cloud.account}:
        return
    account, key = account or ask(cloud), cloud.account
    if account.silent:
        raise ApiError(
            f"cluster {cluster.name} was created with API key {bill.account}; the account of {key} does not "
            f"answer, so it is unknown if it has any of it: {account.silent}",
            next_step=_elsewhere(cluster),
        )
    if another := account.about(cluster).silent:
        another.message += f"; its {len(resources)} resources are not touched"
        raise another


def _elsewhere(cluster: Cluster) -> str:
    """Return what to do about a cluster that is in another account."""
    same = "the same command with the credentials of that account (EXOSCALE_ACCOUNT=NAME)"
    return f"{same}; if it is lost for good: rain-deploy down -c {cluster.name} --forget all"


def is_offered(seen: Seen) -> bool:
    """Return True where machines are made or started, or are paid for under other terms."""
    bill = seen.cluster.bill
    return bill is None or seen.missing > 0 or bool(seen.asleep) or not bill.agreed(seen.spec, seen.now_s)


def has_moved(node: Node, found: Resource) -> bool:
    """Return True where a node's machine does not run at the address that is recorded."""
    return found.state != RUNNING or found.address != node.host.address


def is_lost(node: Node, found: Resource) -> bool:
    """Return True where a node's machine is powered off, starts, or has another address."""
    return found.state in {*ASLEEP, STARTING} or found.address != node.host.address


def new_cluster(ctx: Context, spec: ClusterSpec) -> Cluster:
    """Return a cluster that has nothing yet.  Its id stays the same until it is recorded."""
    given, owner = ctx.store.next_cluster_id(spec.name), spec.owner or ""
    return Cluster(given, spec.name, spec.provider, time.time(), machines=spec.machines, owner=owner)


def completed(
    spec: ClusterSpec, cluster: Cluster, resources: tuple[Resource, ...] = (), *, shrink: bool = False
) -> ClusterSpec:
    """Return the spec with what the cluster has where nothing else is asked for, and the number of nodes.

    Raises InputError for machines of another kind, another provider, and fewer nodes than live.
    """
    another = f"rain-deploy down -c {cluster.name}, or another name with -c"
    if cluster.provider != spec.provider:
        message = f"cluster {cluster.name} is of provider {cluster.provider}, not {spec.provider}"
        raise InputError(message, next_step=another)
    for name in _SETTLED:
        wanted, has = getattr(spec.machines, name), getattr(cluster.machines, name)
        if wanted and has and wanted != has:
            setting = name.replace("_", "-")
            message = f"the machines of cluster {cluster.name} have {setting} {has}, not {wanted}"
            raise InputError(message, next_step=another)
    living, begun = len(cluster.nodes), sum(resource.is_machine for resource in resources)
    listed = 0 if living else len(spec.machines.hosts)
    nodes = spec.nodes or max(living, begun, listed, 1)  # as an ``up`` before had them, ended or not
    if nodes < living and not shrink and (cluster.up or cluster.bill is None):
        has = f"cluster {cluster.name} has {count(living, 'node')}"
        message = f"{has}; up does not remove nodes (asked for: {nodes})"
        raise InputError(message, next_step=f"rain-deploy scale {nodes} -c {cluster.name}")
    machines = spec.machines.or_else(cluster.machines)
    return replace(spec, owner=cluster.owner or spec.owner, machines=machines, nodes=nodes)


def _environment(
    ctx: Context, wanted: EnvironmentSpec, cluster: Cluster, *, resolving: bool
) -> tuple[ResolvedEnvironment, bool]:
    """Return the environment, and True if that is all of it.  One that is kept stays until another is wanted.

    Without ``resolving`` no network is asked: it lacks the user's requirements if no environment is kept.
    Raises InputError, before anything is changed, for what cannot be read or resolved.
    """
    check_packages(wanted.apt)
    kept = None if wanted.upgrade else ctx.store.environment(cluster.id)
    lock, requires = node_lock(), wanted.requirements or wanted.packages or wanted.wheels
    if kept and (not resolving or wanted == EnvironmentSpec()):
        return kept[1], True
    if not resolving:
        return unresolved(wanted, lock), not (wanted.upgrade or requires)
    question = asked(wanted, lock)
    if kept and kept[0] == question:
        return kept[1], True
    if requires:
        ctx.emit(Notice("resolving the requirements"))
    environment = resolve(wanted, lock)
    if kept and (gone := locked_names(kept[1].lock_text) - locked_names(environment.lock_text)):
        without = f"no longer installed: {', '.join(sorted(gone))}"
        ctx.emit(Notice(f"{without}; to keep them, repeat the --with and --requirements of earlier commands"))
    ctx.store.save_environment(cluster.id, question, environment)
    return environment, True
