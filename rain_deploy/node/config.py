"""What ``up`` tells a node, read from node.json and, on the server, cluster.json; what is installed there."""

from __future__ import annotations

import platform
from importlib.metadata import distributions
from pathlib import Path
from typing import TypeVar

from .wire import ClusterConfig, Member, NodeConfig, WireError, read

_SHOWN = {"rain-python": "rain", "tensorflow": "tensorflow", "tensorflow-cpu": "tensorflow"}


class NotInstalled(Exception):  # noqa: N818 - a fact about the node, worded as one
    """node.json or cluster.json is absent or not of its shape."""


T = TypeVar("T")


def node_config(node_dir: Path) -> NodeConfig:
    """Return the node's configuration.  Raises NotInstalled."""
    return _load(node_dir / "node.json", NodeConfig)


def members(config: NodeConfig) -> tuple[Member, ...]:
    """Return the nodes whose governors a run waits for.  Raises NotInstalled."""
    return _load(config.server_dir / "cluster.json", ClusterConfig).nodes


def member_name(nodes: tuple[Member, ...], governor: str) -> str:
    """Return the name of the node whose governor Rain calls ``address:port``, or that text when unknown.

    The port is enough where the address differs: Rain names a governor by the address that it sees.
    """
    address, _, port = governor.rpartition(":")
    same_port = [node for node in nodes if str(node.governor_port) == port]
    exact = [node for node in same_port if node.address == address]
    return (exact or same_port)[0].name if exact or len(same_port) == 1 else governor


def versions(env: Path) -> dict[str, str]:
    """Return the versions of Python, Rain and TensorFlow in an environment; nothing is imported."""
    places = [str(path) for path in (env / "lib").glob("python3*/site-packages")]
    found = {
        label: distribution.version
        for name, label in _SHOWN.items()
        for distribution in distributions(name=name, path=places)
    }
    return {"python": platform.python_version(), **found}


def _load(path: Path, kind: type[T]) -> T:
    try:
        return read(kind, path.read_bytes())
    except (OSError, WireError) as error:
        raise NotInstalled(f"{path}: {error}") from error
