"""The list of all parts, in the order in which a node gets them."""

from dataclasses import replace

from rain_deploy.parts.machine import FirstBoot, HostKey
from rain_deploy.parts.part import Part, Shared
from rain_deploy.parts.services import Services
from rain_deploy.parts.software import Code, Engine, Environment
from rain_deploy.parts.wall import Wall

STILL_TO_BUILD = "0" * 64  # stands for the digest of an engine that is still to be built


def software(shared: Shared) -> tuple[Code, Environment, Engine]:
    """Return the parts of one stage ``install``: the environment and the engine are made at the same time."""
    return Code(shared), Environment(shared), Engine(shared)


def first_parts(shared: Shared) -> tuple[Part, ...]:
    """Return what machines that we made get before anything is installed on them."""
    own_machines = shared.traits.owned and not shared.traits.shared_machine
    return (FirstBoot(shared.new), HostKey()) if own_machines else ()


def last_parts(shared: Shared) -> tuple[Part, ...]:
    """Return what comes once the software is there.  The wall stands before anything listens."""
    cluster = shared.cluster
    known = replace(cluster, engine_sha256=cluster.engine_sha256 or STILL_TO_BUILD)
    wall = (Wall(cluster, shared.trust),) if shared.traits.needs_wall else ()
    return (*wall, Services(known, grown=shared.grown))


def parts(shared: Shared) -> tuple[Part, ...]:
    """Return every part, in order."""
    return (*first_parts(shared), *software(shared), *last_parts(shared))
