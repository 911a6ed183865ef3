"""A part is one thing that a node gets; here is its protocol, and what can be asked of a list of parts."""

import abc
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from rain_deploy.core.cluster import Cluster, Node, Traits
from rain_deploy.core.layout import Layout
from rain_deploy.core.machine import Facts
from rain_deploy.core.spec import EngineSpec, ResolvedEnvironment
from rain_deploy.core.step import Stage, joined
from rain_deploy.errors import RainDeployError


class Part(abc.ABC):
    """One thing that a node gets.  A part is made with what all nodes of a cluster share."""

    stage_name: ClassVar[str]
    """Neighbours in the list with the same name are one stage: one exec channel on each node."""

    def refusals(self, node: Node) -> Iterable[RainDeployError]:
        """Return why the node cannot get it, before anything is changed on any node."""
        return ()

    @abc.abstractmethod
    def lacks(self, node: Node) -> str | None:
        """Return what will be done on the node, in words; None if nothing is missing."""

    @abc.abstractmethod
    def stage(self, node: Node) -> Stage:
        """Return the stage that brings it.  Steps check first: it may run where nothing is missing."""

    def done(self, node: Node) -> Node:
        """Return the node with facts that know that the stage has run."""
        return node


@dataclass(frozen=True, slots=True)
class Shared:
    """The values that all nodes of a cluster share: all that parts are made from."""

    cluster: Cluster
    """With facts of its nodes and digests of what they get; no ``engine_sha256`` if it is to be made."""
    traits: Traits
    environment: ResolvedEnvironment
    engine: EngineSpec
    trust: tuple[str, ...] = ()  # networks whose hosts may reach the Rain ports
    new: frozenset[str] = frozenset()  # names of nodes that are new
    grown: bool = False  # the cluster got another number of nodes
    binary: bytes | None = None  # the engine, where it is kept on this machine
    uv: bytes | None = None  # the program of ``uv_pin``; may be None where the nodes have it

    @property
    def layout(self) -> Layout:
        return Layout(self.cluster.base, self.cluster.id)


def facts_of(node: Node) -> Facts:
    """Return the facts of a node that was looked at."""
    assert node.facts is not None, node.name
    return node.facts


def having(node: Node, path: str) -> Node:
    """Return the node with facts that know of ``path``."""
    facts = facts_of(node)
    damaged = tuple(other for other in facts.damaged if other != path)
    have = tuple(dict.fromkeys((*facts.have, path)))
    return replace(node, facts=replace(facts, have=have, damaged=damaged))


def refusals(parts: Iterable[Part], nodes: tuple[Node, ...]) -> tuple[RainDeployError, ...]:
    """Return every reason why the nodes cannot get the parts, each once."""
    found = (error for part in parts for node in nodes for error in part.refusals(node))
    return tuple({(error.node, error.message): error for error in found}.values())


def lacking(parts: Iterable[Part], node: Node) -> tuple[str, ...]:
    """Return what will be done on the node, in words, in order."""
    return tuple(reason for part in parts if (reason := part.lacks(node)))


def groups(parts: Iterable[Part]) -> Iterator[tuple[Part, ...]]:
    """Return the parts that are one stage together, in order."""
    for _, group in itertools.groupby(parts, key=lambda part: part.stage_name):
        yield tuple(group)


def stages_of(group: tuple[Part, ...], nodes: Iterable[Node]) -> dict[str, Stage]:
    """Return the stage of a group for every node that lacks one of its parts."""
    return {node.name: joined(part.stage(node) for part in group) for node in nodes if lacking(group, node)}


def after(group: Iterable[Part], node: Node) -> Node:
    """Return the node as it is once the group's stage has run."""
    for part in group:
        node = part.done(node)
    return node


def planned(parts: Iterable[Part], nodes: tuple[Node, ...]) -> Iterator[dict[str, Stage]]:
    """Return the stages that will run, in order, each computed for nodes as the ones before leave them."""
    for group in groups(parts):
        if stages := stages_of(group, nodes):
            yield stages
        nodes = tuple(after(group, node) if node.name in stages else node for node in nodes)
