"""The list of all parts, in the order in which a node gets them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rain_deploy.core.cluster import Cluster, Traits
from rain_deploy.core.spec import EngineSpec, ResolvedEnvironment
from rain_deploy.parts.code import Code
from rain_deploy.parts.engine import Engine
from rain_deploy.parts.environment import Environment
from rain_deploy.parts.host_key import HostKey
from rain_deploy.parts.part import Part
from rain_deploy.parts.services import Services, layout_of
from rain_deploy.parts.user_data import FirstBoot
from rain_deploy.parts.wall import Wall

STILL_TO_BUILD = "0" * 64
"""Stands for the digest of an engine that is still to be built."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all nodes of a cluster share: all that parts are made from."""

    cluster: Cluster
    """With facts of its nodes and digests of what they get; no ``engine_sha256`` if it is to be made."""
    traits: Traits
    environment: ResolvedEnvironment
    engine: EngineSpec
    trust: tuple[str, ...] = ()
    """Networks whose hosts may reach the Rain ports."""
    new: frozenset[str] = frozenset()
    """Names of nodes that are new."""
    grown: bool = False
    """The cluster got another number of nodes."""
    binary: bytes | None = None
    """The engine, where it is kept on this machine."""
    uv: bytes | None = None


def software(shared: Shared) -> tuple[Code, Environment, Engine]:
    """Return the parts of one stage ``install``: the environment and the engine are made at the same time."""
    cluster, traits = shared.cluster, shared.traits
    layout = layout_of(cluster)
    return (
        Code(layout),
        Environment(layout, shared.environment, shared.uv),
        Engine(
            layout,
            shared.engine,
            cluster.engine_sha256,
            maker=cluster.server.name,
            binary=shared.binary,
            installs_packages=traits.installs_packages,
            shared_machine=traits.shared_machine,
        ),
    )


def first_parts(shared: Shared) -> tuple[Part, ...]:
    """Return what machines that we made get before anything is installed on them."""
    own_machines = shared.traits.owned and not shared.traits.shared_machine
    return (FirstBoot(shared.new), HostKey()) if own_machines else ()


def last_parts(shared: Shared) -> tuple[Part, ...]:
    """Return what comes once the software is there.  The wall stands before anything listens."""
    cluster = shared.cluster
    known = replace(cluster, engine_sha256=cluster.engine_sha256 or STILL_TO_BUILD)
    wall = (Wall(layout_of(cluster), cluster.nodes, shared.trust),) if shared.traits.needs_wall else ()
    return (*wall, Services(known, grown=shared.grown))


def parts(shared: Shared) -> tuple[Part, ...]:
    """Return every part, in order."""
    return (*first_parts(shared), *software(shared), *last_parts(shared))
