"""What up, sweep and check are told about a cluster, by flags, environment and TOML together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rain_deploy.cli.cloud_options import CLOUD_OPTIONS, CloudFlags
from rain_deploy.cli.options import MAX_NODES, PATH, PROVIDERS, network, option, whole
from rain_deploy.cli.provider_choice import CLOUD, choose_provider, refuse_cloud_flags

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.core.spec import ClusterSpec
    from rain_deploy.options import Settings

_OPTIONS = (
    option(
        "--nodes",
        type=whole(1, MAX_NODES),
        metavar="N",
        help="How many [default: as it is, else 1].",
    ),
    option("--provider", type=click.Choice(PROVIDERS), help="Whose machines."),
    option("--hosts", metavar="FILE|LIST", help="user@host[:port] or OpenSSH names; each is a node."),
    option("--host-key", type=PATH, metavar="FILE", help="known_hosts file to use instead of yours."),
    option(
        "--trust-network",
        type=network,
        multiple=True,
        metavar="CIDR",
        help="Hosts there may reach Rain's ports.",
    ),
    option("--requirements", type=PATH, metavar="FILE", help="Python packages for the nodes."),
    option("--with", "packages", multiple=True, metavar="PKG", help="A package or wheel for the nodes."),
    option("--upgrade", is_flag=True, help="Choose the packages' versions anew."),
    option("--cpus-per-node", type=whole(1, 1024), metavar="N", help="Tasks at a time on each node."),
    option(
        "--min-nodes",
        type=whole(1, MAX_NODES),
        metavar="N",
        help="Enough to go on with [default: all].",
    ),
    *CLOUD_OPTIONS,
    option("--keep-partial", is_flag=True, help="Keep what an up that fails has made."),
    option("--ssh-port", type=whole(1, 65535), hidden=True),
)


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the flags of ``ClusterFlags``."""
    for decorator in reversed(_OPTIONS):
        command = decorator(command)
    return command


@dataclass(frozen=True, slots=True)
class ClusterFlags:
    """The flags as click parsed them; None and empty: not given."""

    nodes: int | None = None
    provider: str | None = None
    hosts: str | None = None
    host_key: Path | None = None
    trust_network: tuple[str, ...] = ()
    requirements: Path | None = None
    packages: tuple[str, ...] = ()
    upgrade: bool = False
    cpus_per_node: int | None = None
    min_nodes: int | None = None
    cloud: CloudFlags = field(default_factory=CloudFlags)
    keep_partial: bool = False
    ssh_port: int | None = None

    @classmethod
    def taken(cls, parameters: dict[str, Any]) -> ClusterFlags:
        """The flags, taken out of ``parameters``."""
        parameters["cloud"] = CloudFlags.taken(parameters)
        return cls(**{name: parameters.pop(name) for name in cls.__slots__})

    def settings(self, base: Path) -> Settings:
        """As Settings, paths relative to ``base``.  UsageError, InputError."""
        from rain_deploy import options as config  # noqa: PLC0415 - not for --help

        try:
            hosts = config.hosts(self.hosts, base) if self.hosts is not None else {}
            packages = config.packages(self.packages, base)
        except ValueError as error:
            raise click.UsageError(f"expected {error}") from error
        return config.Settings(
            provider=self.provider,
            nodes=self.nodes,
            min_nodes=self.min_nodes,
            cpus_per_node=self.cpus_per_node,
            host_key=base / self.host_key if self.host_key else None,
            trust_network=self.trust_network,
            requirements=base / self.requirements if self.requirements else None,
            keep_partial=self.keep_partial or None,
            ssh_port=self.ssh_port,
            **self.cloud.settings(),
            **hosts,
            **packages,
        )


def cluster_spec(session: Session, flags: ClusterFlags, *, must_be_named: bool) -> ClusterSpec:
    """What the user wants.  ``must_be_named``: no provider is assumed where nobody can object."""
    from rain_deploy import options as config  # noqa: PLC0415 - not for --help

    given, toml = flags.settings(Path.cwd()), session.toml
    living = session.ctx.store.cluster(session.cluster)
    provider = choose_provider(
        given,
        toml,
        living=living.provider if living else None,
        credentials=session.app.credentials,
        must_be_named=must_be_named and (session.options.yes or not session.app.interactive),
    )
    refuse_cloud_flags(provider[0], flags.cloud.given())
    return config.cluster_spec(session.cluster, provider, config.merged(given, toml), upgrade=flags.upgrade)


def announce(session: Session, spec: ClusterSpec) -> None:
    """The first line: which provider and why; then, in red, what is open to everybody."""
    session.say(f"provider {spec.provider}: {spec.provider_reason}")
    everybody = [net for net in spec.cloud.allow_ip if net.endswith("/0")]
    if everybody and spec.provider == CLOUD:
        session.say(f"SSH will be open to EVERY ADDRESS: {' and '.join(everybody)}", warning=True)
