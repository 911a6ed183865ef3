"""Every setting, declared once: flags, environment variables, TOML keys, their checks, help and completion.

To add a flag, add a row to ``_ROWS``; ``to`` names the field of ClusterSpec or RunSpec that it fills.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rain_deploy.core.layout import MAX_NODES
from rain_deploy.options import kinds
from rain_deploy.options.kinds import Kind, choice, text, whole

CLOUD = "exoscale"  # the provider whose machines cost money: the only one that takes the flags about them
PROVIDERS = (CLOUD, "hosts", "local")
CLUSTER_VERBS = ("up", "sweep", "check")
RUN_VERBS = ("run", "sweep")
REHEARSE = ("rehearse",)  # it takes what is about packages and the script
CLUSTER_NAME = text(
    r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?",
    "up to 32 lower-case letters, digits and dashes, no dash first or last",
    completes="clusters",
)


class Group(enum.StrEnum):
    """The headings of ``--help``, in order."""

    CLUSTER = "Cluster"
    RENTED = "Rented machines"
    PACKAGES = "Packages"
    RUN = "Run"
    OUTPUT = "Output"
    COMMON = "Common options"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting."""

    name: str
    kind: Kind
    group: Group
    verbs: tuple[str, ...]  # which verbs take the flag
    metavar: str
    help: str
    default: str = ""  # what holds without it, as ``--help`` shows it
    flags: tuple[str, ...]
    """The flag as it is typed, the short form first; empty: none.  ``--no-x`` sets it to False."""
    toml: str  # the key in rain-deploy.toml; empty: none
    to: str = ""  # Fields that it fills, such as ``cluster.nodes``, separated by spaces
    merge: Callable[[Any, Any], Any] = lambda _under, over: over
    """(value of rain-deploy.toml, value of the command line or the environment) -> the value of both."""


def variable(flag: str) -> str:
    """Return the environment variable of a flag: RAIN_DEPLOY_DISK_SIZE of ``--disk-size``."""
    return f"RAIN_DEPLOY_{flag.removeprefix('--').upper().replace('-', '_')}"


def _add(under: tuple[Any, ...], over: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*under, *over)


def _by_name(under: tuple[Any, ...], over: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple({**dict(under), **dict(over)}.items())


def _row(
    name: str, kind: Kind, metavar: str, help_: str, *, flag: str | None = None, short: str = "", **more: Any
) -> Option:
    """Return an option; its flag and its TOML key follow from its name unless they are given."""
    long = f"--{name.replace('_', '-')}" if flag is None else flag
    flags = tuple(filter(None, (short, long)))
    return Option(name=name, kind=kind, metavar=metavar, help=help_, flags=flags, **{"toml": name, **more})


_CLUSTER: dict[str, Any] = {"group": Group.CLUSTER, "verbs": CLUSTER_VERBS}
_RENTED: dict[str, Any] = {"group": Group.RENTED, "verbs": CLUSTER_VERBS}
_PACKAGES: dict[str, Any] = {"group": Group.PACKAGES, "verbs": CLUSTER_VERBS + REHEARSE}
_SCRIPT: dict[str, Any] = {"group": Group.RUN, "verbs": RUN_VERBS + REHEARSE}
_RUN: dict[str, Any] = {"group": Group.RUN, "verbs": RUN_VERBS}
_COMMON: dict[str, Any] = {"group": Group.COMMON, "verbs": ("*",), "toml": ""}

# fmt: off
_ROWS = (
    _row("nodes", whole(1, MAX_NODES), "N", "Use N nodes.", **_CLUSTER,
         to="cluster.nodes", default="the nodes that the cluster has, else the number of hosts, else 1"),
    _row("provider", choice(*PROVIDERS), "",
         "Use rented machines (exoscale), your own machines (hosts), or this machine (local).",
         group=Group.CLUSTER, verbs=(*CLUSTER_VERBS, "types", "zones")),
    _row("hosts", kinds.HOSTS, "FILE|LIST",
         "Use these machines: a comma-separated list of user@host[:port] or names in your OpenSSH config, "
         "or a file with one per line.", **_CLUSTER,
        to="cluster.machines.hosts cluster.machines.host_addresses"),
    _row("host_key", kinds.PATH, "FILE", "Check host keys against this known_hosts file instead of your own.",
         **_CLUSTER, to="cluster.host_keys"),
    _row("trust_network", kinds.NETWORKS, "CIDR", "Let every host in this network reach Rain's ports.",
         **_CLUSTER, to="cluster.machines.trust_networks"),
    _row("ssh_port", whole(1, 65535), "N", "Use this SSH port, unless --hosts gives another.",
         **_CLUSTER, to="cluster.machines.ssh_port", default="22"),
    _row("min_nodes", whole(1, MAX_NODES), "N", "Continue if at least N nodes come up.", **_CLUSTER,
         to="cluster.min_nodes run.min_nodes", default="all nodes"),
    _row("cpus_per_node", whole(1, 1024), "N", "Run at most N tasks at a time on each node.", **_CLUSTER,
         to="cluster.cpus_per_node", default="the number of cores; with local, cores divided by nodes"),
    _row("keep_partial", kinds.SWITCH, "", "If up fails, keep what it created instead of deleting it.",
         **_CLUSTER, to="cluster.keep_partial"),
    _row("journal", kinds.JOURNAL, "PATH|none",
         "Give a new cluster the kept results in this directory (none: no results).",
         group=Group.CLUSTER, verbs=("up", "sweep"), toml="", to="cluster.journal",
         default="those of the last cluster of this name, up to 100 MB"),
    _row("owner", text(r"[A-Za-z0-9][\w.-]{0,62}", "at most 63 letters, digits, '.', '_' and '-'"), "",
         "Label what up creates with this owner.", **_CLUSTER, to="cluster.owner", flag="",
         default="your user name and a hash"),
    _row("dry_run", kinds.SWITCH, "",
         "Print the plan and its steps (with -v: the scripts), but change nothing.",
         group=Group.CLUSTER, verbs=("up", "sweep"), toml=""),

    _row("zone", text(r"[a-z0-9-]+", 'a zone such as "ch-gva-2"', completes="zones"), "ZONE",
         "Use this zone.", group=Group.RENTED, verbs=(*CLUSTER_VERBS, "types"),
         to="cluster.machines.zone", default="the default zone of your account"),
    _row("instance_type", text(r"[\w.-]+", 'a type such as "standard.medium"', completes="types"), "TYPE",
         "Rent machines of this type: FAMILY.SIZE, or SIZE for standard.SIZE.", **_RENTED,
         to="cluster.machines.instance_type", default="standard.medium"),
    _row("disk_size", whole(10, 51200), "GIB", "Give each machine a disk of this size.", **_RENTED,
         to="cluster.machines.disk_size_gib", default="20"),
    _row("template", text(r".*\S.*", "a template's name or id"), "NAME|ID",
         "Boot the machines from this template.", **_RENTED,
         to="cluster.machines.template", default="Debian 12"),
    _row("ttl", kinds.LIFETIME, "DURATION",
         "Power the machines off after this time, at least 10m (none: never).", **_RENTED,
         to="cluster.ttl_s", default="12h"),
    _row("idle", kinds.LIMIT, "DURATION",
         "Power a machine off after this time, at least 10m, without a run or an SSH session.",
         **_RENTED, to="cluster.machines.idle_s"),
    _row("max_cost", kinds.AMOUNT, "AMOUNT",
         "Power the machines off before the cluster has cost this much. With run: end the run before it has.",
         group=Group.RENTED, verbs=(*CLUSTER_VERBS, "run"), to="cluster.max_cost run.max_cost"),
    _row("allow_ip", kinds.NETWORKS, "CIDR", "Allow SSH from this address or network.", **_RENTED,
         to="cluster.allow_ip", default="your current address"),
    _row("anti_affinity", kinds.SWITCH, "",
         "Spread the machines over different hardware, in groups of eight.", **_RENTED,
         to="cluster.machines.anti_affinity"),
    _row("prices", kinds.PRICES, "", "Use these prices per hour instead of the built-in ones.", **_RENTED,
         to="cluster.prices cluster.currency", flag=""),

    _row("requirements", kinds.PATH, "FILE", "Install the Python packages of this requirements file.",
         **_PACKAGES, to="cluster.environment.requirements"),
    _row("packages", kinds.PACKAGES, "PKG", "Install this Python package or wheel file.", **_PACKAGES,
         to="cluster.environment.packages cluster.environment.wheels",
         flag="--with", toml="with", merge=_add),
    _row("upgrade", kinds.SWITCH, "",
         "Update the packages to the newest versions that the requirements allow.", **_PACKAGES,
         to="cluster.environment.upgrade", toml=""),
    _row("apt", kinds.TEXTS, "", "Install these Debian packages. Needs root on the nodes.", **_PACKAGES,
         to="cluster.environment.apt", flag=""),
    _row("setup", kinds.PATH, "", "Run this shell script once on each node. Needs root there.", **_PACKAGES,
         to="cluster.environment.setup", flag=""),
    _row("engine_url", text(r"(https?|file)://\S+", "an https:// or file:// address"), "",
         "Download Rain 0.4.0 from here instead of building it.", **_PACKAGES,
         to="cluster.engine.url", flag="", toml="engine.url"),
    _row("engine_sha256", text("[0-9a-f]{64}", "64 hexadecimal digits, lower case"), "",
         "The SHA-256 of the file at engine.url.", **_PACKAGES,
         to="cluster.engine.sha256", flag="", toml="engine.sha256"),

    _row("files", kinds.PATHS, "PATH", "Also send this file or directory.", **_SCRIPT,
         to="run.files", merge=_add),
    _row("env", kinds.VARIABLES, "NAME[=VALUE]",
         "Set an environment variable for the script and its tasks. NAME alone passes on your own value.",
         **_SCRIPT, to="run.env", merge=_by_name),
    _row("timeout", kinds.DURATION, "DURATION", "End the run after this time.", **_SCRIPT,
         to="run.timeout_s"),
    _row("fresh", kinds.SWITCH, "", "Run every task again, also those with a result in the journal.", **_RUN,
         to="run.fresh", toml=""),
    _row("fail_fast", kinds.SWITCH, "", "End the script with the first task that fails, as on bare Rain.",
         **_RUN,
         to="run.fail_fast", toml=""),
    _row("replace_lost", kinds.SWITCH, "",
         "Create a rented machine again that is lost, while the run is followed.", **_RUN,
         to="run.replace_lost", toml=""),
    _row("companion", kinds.SWITCH, "",
         "Behave as bare Rain: keep no results, figures and points, and do not start again after a loss.",
         **_RUN, to="run.companion", flag="--no-companion", toml=""),
    _row("wait", kinds.SWITCH, "", "Stop if another run is active, instead of waiting for it.", **_RUN,
         to="run.wait", flag="--no-wait", toml=""),
    _row("detach", kinds.SWITCH, "", "Return as soon as the run is queued.", group=Group.RUN, verbs=("run",),
         to="run.detach", short="-d", toml=""),
    _row("then_off", kinds.SWITCH, "", "Power rented machines off when the run ends.",
         group=Group.RUN, verbs=("run",), to="run.then_off", toml=""),

    _row("out", kinds.PATH, "DIR", "Put the results in this directory.", group=Group.OUTPUT,
         verbs=(*RUN_VERBS, "attach", "pull", "down"), to="run.out",
         default="results/RUN in the directory where you started the run"),

    _row("cluster", CLUSTER_NAME, "NAME", "Use the cluster with this name.", **_COMMON, short="-c",
         default="default"),
    _row("json", kinds.SWITCH, "", "Print one JSON document.", **_COMMON),
    _row("quiet", kinds.SWITCH, "", "Print no progress.", **_COMMON, short="-q"),
    _row("verbose", kinds.SWITCH, "", "Print more progress.", **_COMMON, short="-v"),
    _row("yes", kinds.SWITCH, "", "Answer yes to every question.", **_COMMON, short="-y"),
    _row("config", kinds.PATH, "FILE", "Read this file instead of ./rain-deploy.toml.", **_COMMON),
)
# fmt: on
OPTIONS: dict[str, Option] = {option.name: option for option in _ROWS}
