"""Specs of what the user wants: a cluster, its software, a run.  Built by options, never changed."""

from dataclasses import dataclass, field
from pathlib import Path

from rain_deploy.core.machine import Machines
from rain_deploy.node.wire import CostCap


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """Packages for each node besides our own locked set; ``--with`` has packages and wheels."""

    requirements: Path | None = None
    packages: tuple[str, ...] = ()
    wheels: tuple[Path, ...] = ()
    apt: tuple[str, ...] = ()  # Debian packages; needs root on the nodes, as ``setup`` does
    setup: Path | None = None  # A shell script run once per node
    upgrade: bool = False  # resolve again instead of using the resolution that the cluster was made with


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """The source of the Rain binary when it is not cached; both or neither."""

    url: str | None = None
    sha256: str | None = None


NO_JOURNAL = "none"  # as ``journal``: a new cluster gets no kept results


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """A cluster as flags, environment and TOML describe it together."""

    name: str
    provider: str
    provider_reason: str  # why this provider: shown in the first line of ``up``
    nodes: int | None = None  # None: the living cluster's size, else 1
    min_nodes: int | None = None
    cpus_per_node: int | None = None
    machines: Machines = field(default_factory=Machines)
    """Settings that are not given: those of the cluster, else the default."""
    host_keys: Path | None = None  # A known_hosts file (--host-key) used instead of the user's own
    environment: EnvironmentSpec = EnvironmentSpec()
    engine: EngineSpec = EngineSpec()
    owner: str | None = None  # who is recorded as owner of what is made; None: a stable hash of user and host
    allow_ip: tuple[str, ...] = ()  # CIDRs from which SSH is open; empty: the address that the cloud sees
    ttl_s: float | None = None  # from now to the time limit; math.inf: no limit
    max_cost: float | None = None  # of the whole cluster, in the price table's currency; becomes a time limit
    prices: tuple[tuple[str, float], ...] = ()
    """TOML ``prices``: (``family.size`` or ``disk``, per hour; a disk's is per GiB and hour)."""
    currency: str | None = None  # currency of ``prices``
    journal: str = ""  # the directory of a copy, NO_JOURNAL, or empty: the one that fits
    keep_partial: bool = False  # what an ``up`` that failed has made stays, for a look at it


@dataclass(frozen=True, slots=True)
class FunctionScript:
    """A script that was made to call a function.  It is sent without being a file here."""

    content: bytes
    module: Path | None
    """The file that defines the function; it is sent too, with what it imports and the files it names."""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One run of a script as the user typed it; for a function, where its script would stand."""

    script: Path
    args: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    timeout_s: float | None = None
    max_cost: float | None = None  # of the run alone, in the currency of the cluster's bill
    cap: CostCap | None = None  # what that is for the machines that there are
    min_nodes: int | None = None
    companion: bool = True
    out: Path | None = None  # where results go; None: ``results/<run>`` under the directory of the command
    wait: bool = True  # False: refuse when another run is active instead of waiting
    detach: bool = False
    function: FunctionScript | None = None
    fresh: bool = False  # take no result from the journal
    fail_fast: bool = False  # Rain's own behaviour: the first task that fails ends its session
    then_off: bool = False  # every node powers itself off once the run has ended
    replace_lost: bool = False  # nodes that are lost are created again, while the command follows the run
    again: tuple[str, ...] = ()  # flags without which another run would not be the same; no values of ``env``


NODE_PYTHON = (3, 11)  # the last Python that Rain's client has wheels for
NODE_PYTHON_TEXT = "3.11"
NODE_REQUIREMENTS = (
    "cloudpickle",
    "matplotlib",
    "pycapnp<2",
    "rain-python==0.4.0",
    "scikit-learn",
    "tensorflow",
)
"""Extra ``node`` of pyproject.toml, which an installed package cannot read (a test compares)."""


@dataclass(frozen=True, slots=True)
class ResolvedEnvironment:
    """Everything that decides what is installed on a node."""

    lock_text: str  # requirements with versions and hashes; names no index
    wheels: tuple[tuple[str, bytes], ...] = ()  # (file name, content) of the user's own wheels
    apt: tuple[str, ...] = ()
    setup: str = ""  # text of the user's set-up script
