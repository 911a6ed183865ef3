"""A cluster and its nodes, as they are recorded; its bill: what its machines cost and when they must end."""

import enum
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace

from rain_deploy.core.layout import Layout
from rain_deploy.core.machine import Facts, Host, Machines, Resource
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.text import HOUR_S, count, money

LISTS_LAG_S = 120.0  # for so long a list of the account may lack a new machine
SHORTEST_LIMIT_S = 600.0  # machines that end sooner compute nothing: they boot and are installed first
DEFAULT_TTL_S = 12 * HOUR_S  # from the making of a cluster to its time limit, unless another is asked for


@dataclass(frozen=True, slots=True)
class Quote:
    """The price and the open ports of the machines of a cluster, before any is created.

    Prices are of one node with its disk; one that is powered off costs its disk.
    """

    zone: str
    instance_type: str
    template: str
    disk_size_gib: int
    cpus: int
    memory_bytes: int
    gpus: int
    per_hour: float
    stopped_per_hour: float
    currency: str
    source: str  # where the prices come from, with the date of their table
    quota_left: int | None  # instances that may still be made; None: no limit
    opens: tuple[str, ...] = ()  # sentences: what is opened to whom

    @property
    def size(self) -> str:
        """Return the size of one machine in words: ``2 CPUs, 4 GiB, 20 GiB of disk``."""
        return f"{count(self.cpus, 'CPU')}, {self.memory_bytes >> 30} GiB, {self.disk_size_gib} GiB of disk"

    def settings(self, machines: Machines) -> Machines:
        """Return these settings of machines with everything that was quoted filled in."""
        return replace(
            machines,
            zone=self.zone,
            instance_type=self.instance_type,
            disk_size_gib=self.disk_size_gib,
            template=self.template,
        )


@dataclass(frozen=True, slots=True)
class Meter:
    """A machine, by the cloud's own id, that costs from ``since_s`` to ``until_s`` (None: it still does)."""

    name: str
    machine: str
    since_s: float
    per_hour: float
    until_s: float | None = None
    off: bool = False  # True while the machine is powered off: then it costs its disk

    def cost(self, now_s: float) -> float:
        """Return what it has cost until then."""
        end_s = now_s if self.until_s is None else min(now_s, self.until_s)
        return max(0.0, end_s - self.since_s) / HOUR_S * self.per_hour


@dataclass(frozen=True, slots=True)
class Bill:
    """The cost of a cluster of rented machines, and its time limit."""

    quote: Quote
    account: str = ""  # name of the API key with which its machines were made
    meters: tuple[Meter, ...] = ()  # one for each machine that was ever made
    max_cost: float | None = None
    ttl_limit_s: float | None = None  # the time limit by --ttl and ``extend`` alone
    limit_s: float | None = None
    """The time when the machines power themselves off; ``max_cost`` may put it before ``ttl_limit_s``."""
    moving: bool = False  # True while a command brings this time limit to the machines
    seen_s: float = 0.0  # when a command last saw the machines in the account

    @property
    def currency(self) -> str:
        return self.quote.currency

    @property
    def per_hour(self) -> float:
        """Return the hourly price of all machines that exist; one that is powered off costs its disk."""
        return sum(meter.per_hour for meter in self.meters if meter.until_s is None)

    @property
    def per_hour_running(self) -> float:
        """Return the hourly price of all machines that exist, once all of them run."""
        open_meters = (meter for meter in self.meters if meter.until_s is None)
        return sum(self.quote.per_hour if meter.off else meter.per_hour for meter in open_meters)

    def seen(self, machines: Iterable[Resource] | None, now_s: float) -> "Bill":
        """Return the bill after a look at the account: a machine that is gone costs nothing more.

        None: the account did not answer.  Then machines count as off once their time limit has passed.
        """
        if machines is None:
            off = {meter.machine for meter in self.meters if self._obeyed(meter, now_s)}
            return self.switched(off, now_s, off=True)
        states = {found.ref: found.state for found in machines}
        lasting = {meter.name for meter in self.meters if now_s - meter.since_s < LISTS_LAG_S}
        gone = {m.name for m in self.meters if m.until_s is None and m.machine not in states} - lasting
        bill = self.closed(gone, now_s)
        for found in machines:
            bill = bill.opened(found.name, found.ref, found.created_s or now_s, now_s)
        off = {ref for ref, state in states.items() if state == "stopped"}
        bill = bill.switched(off, now_s, off=True).switched(states.keys() - off, self.seen_s, off=False)
        return replace(bill, seen_s=now_s)

    def started(self, machines: Collection[str], now_s: float) -> "Bill":
        """Return the bill after these machines (the cloud's ids) were started."""
        return self.switched(machines, now_s, off=False)

    def _obeyed(self, meter: Meter, now_s: float) -> bool:
        """Return True where the machine was running when the time limit passed."""
        return self.limit_s is not None and meter.since_s < self.limit_s <= now_s

    def switched(self, machines: Collection[str], now_s: float, *, off: bool) -> "Bill":
        """Return the bill with another meter for each of these machines that was not so before."""
        meters: list[Meter] = []
        for meter in self.meters:
            if meter.until_s is not None or meter.off == off or meter.machine not in machines:
                meters.append(meter)
                continue
            since_s = self.limit_s if off and self.limit_s and self._obeyed(meter, now_s) else now_s
            since_s = max(since_s, meter.since_s)
            price = self.quote.stopped_per_hour if off else self.quote.per_hour
            meters += [
                replace(meter, until_s=since_s),
                Meter(meter.name, meter.machine, since_s, price, off=off),
            ]
        return replace(self, meters=tuple(meters))

    def cost(self, now_s: float) -> float:
        """Return what all machines have cost so far."""
        return sum(meter.cost(now_s) for meter in self.meters)

    @property
    def cap(self) -> str:
        """Return the highest cost, such as ``--max-cost 6.00 CHF``; empty: any sum."""
        return "" if self.max_cost is None else f"--max-cost {money(self.max_cost, self.currency)}"

    def agreed(self, spec: ClusterSpec, now_s: float) -> bool:
        """Return True while the user need not be asked again for what ``spec`` asks for."""
        return not self.passed(now_s) and spec.max_cost in {None, self.max_cost}

    def passed(self, now_s: float) -> bool:
        """Return True once the time limit has passed."""
        return self.limit_s is not None and self.limit_s <= now_s

    def limit_at(self, now_s: float, *, per_hour: float | None = None) -> float | None:
        """Return the hour at which machines must end: the one asked for or that of ``max_cost``, if earlier.

        ``per_hour``: price of all machines from now on, by default of those that exist.  None: no limit.
        """
        rate = self.per_hour_running if per_hour is None else per_hour
        limits = [] if self.ttl_limit_s is None else [self.ttl_limit_s]
        if self.max_cost is not None and rate > 0:
            limits.append(now_s + max(0.0, self.max_cost - self.cost(now_s)) / rate * HOUR_S)
        return min(limits, default=None)

    def opened(self, name: str, machine: str, since_s: float, now_s: float) -> "Bill":
        """Return the bill with one meter for the machine; that of an earlier machine of this name ends."""
        if any(meter.machine == machine for meter in self.meters):
            return self
        start_s = now_s if any(meter.name == name for meter in self.meters) else since_s
        meter = Meter(name, machine, start_s, self.quote.per_hour)
        return replace(self, meters=(*self.closed({name}, now_s).meters, meter))

    def closed(self, names: Collection[str], now_s: float) -> "Bill":
        """Return the bill with the meters of these nodes ended; one that ended before stays as it is."""
        ends = {meter for meter in self.meters if meter.name in names and meter.until_s is None}
        ended = (replace(meter, until_s=now_s) if meter in ends else meter for meter in self.meters)
        return replace(self, meters=tuple(ended))


class Role(enum.StrEnum):
    """The role of a node; the server node has a governor too."""

    SERVER = "server"
    GOVERNOR = "governor"


@dataclass(frozen=True, slots=True)
class Traits:
    """The differences between providers.  Verbs ask these, never a provider's name."""

    owned: bool  # machines are made by us and may be deleted
    installs_packages: bool  # Debian packages that are missing may be installed by ``up`` where there is root
    needs_wall: bool  # Rain ports must be closed by our packet filter, or the network declared trusted
    shared_machine: bool  # all nodes are on one machine, so its cores and memory are divided among them


@dataclass(frozen=True, slots=True)
class Node:
    """A node as recorded once it is installed."""

    name: str
    host: Host
    facts: Facts | None = None
    cluster_address: str = ""
    governor_port: int = 0
    cpus: int = 0


@dataclass(frozen=True, slots=True)
class Cluster:
    """A recorded cluster.  Changes are copies (dataclasses.replace)."""

    id: str
    name: str
    provider: str
    created_s: float
    nodes: tuple[Node, ...] = ()
    base: str = ""  # directory of ours on every node; the same absolute path on all
    env_digest: str = ""
    engine_sha256: str = ""
    code_digest: str = ""
    machines: Machines = field(default_factory=Machines)
    up: bool = False  # True once ``up`` saw every governor register
    left_out: tuple[Node, ...] = ()
    """Nodes without which a later ``up`` went on, by --min-nodes: something may run on them."""
    owner: str = ""
    bill: Bill | None = None  # None where nothing is priced

    @property
    def layout(self) -> Layout:
        """Return the paths on its nodes."""
        return Layout(self.base, self.id)

    @property
    def limit_s(self) -> float | None:
        """Return the time when its machines power themselves off; None: never."""
        return self.bill.limit_s if self.bill else None

    @property
    def currency(self) -> str:
        """Return the currency of its prices; empty if it has none."""
        return self.bill.currency if self.bill else ""

    def cost(self, now_s: float) -> float | None:
        """Return what its machines have cost so far; None where nothing is priced."""
        return self.bill.cost(now_s) if self.bill else None

    @property
    def every_node(self) -> tuple[Node, ...]:
        return (*self.nodes, *self.left_out)

    @property
    def whole(self) -> "Cluster":
        """Return the cluster with all nodes, also those that are left out."""
        return replace(self, nodes=self.every_node, left_out=())

    def with_nodes(self, change: Callable[[Node], Node]) -> "Cluster":
        """Return the cluster with each node, also of those left out, as ``change`` returns it."""
        return replace(self, nodes=tuple(map(change, self.nodes)), left_out=tuple(map(change, self.left_out)))

    def without(self, names: Collection[str]) -> "Cluster":
        """Return the cluster without the nodes of these names."""
        kept, left_out = ([n for n in nodes if n.name not in names] for nodes in (self.nodes, self.left_out))
        return replace(self, nodes=tuple(kept), left_out=tuple(left_out))

    @property
    def server(self) -> Node:
        return self.nodes[0]
