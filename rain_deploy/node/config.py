"""What ``up`` tells a node: node.json and, on the server, cluster.json."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from .files import Json, read_json
from .service.process import PLACE, ROLE, SERVICE

_SHOWN = {"rain-python": "rain", "tensorflow": "tensorflow", "tensorflow-cpu": "tensorflow"}


class NotInstalled(Exception):  # noqa: N818 - a fact about the node, worded as one
    """node.json or cluster.json is absent or says nothing."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One node, as node.json describes it; read anew whenever it is used."""

    node_dir: Path
    cluster_dir: Path
    name: str
    service: str
    env: Path
    engine: Path
    code: Path
    address: str
    governor_port: int
    server_address: str
    idle_port: int
    http_port: int
    cpus: int
    server: bool

    @property
    def python(self) -> str:
        return str(self.env / "bin" / "python")

    @property
    def governor_dir(self) -> Path:
        return self.node_dir / "governor"

    @property
    def server_dir(self) -> Path:
        return self.cluster_dir / "server"

    @property
    def runs_dir(self) -> Path:
        return self.cluster_dir / "runs"

    def verb(self, *arguments: str | Path) -> list[str]:
        """Argument vector of a verb of this node code.

        Isolated and without site-packages: a user's variables and ``.pth`` files do not reach a service.
        """
        return [self.python, "-I", "-S", str(self.code), *map(str, arguments)]

    def environment(self, role: str, place: Path) -> dict[str, str]:
        """Environment of a service: the caller's, our marks, the node environment first on PATH."""
        path = f"{self.env / 'bin'}:{os.environ.get('PATH', os.defpath)}"
        marks = {SERVICE: self.service, ROLE: role, PLACE: str(place)}
        inherited = {name: value for name, value in os.environ.items() if name not in {"PWD", "OLDPWD"}}
        return {**inherited, "PATH": path, "PYTHONHASHSEED": "0", **marks}


@dataclass(frozen=True, slots=True)
class Member:
    """A node of the cluster, as its server knows it."""

    name: str
    address: str
    governor_port: int


def node_config(node_dir: Path) -> NodeConfig:
    """Raises NotInstalled."""
    value = _read(node_dir / "node.json")
    try:
        return NodeConfig(
            node_dir=Path(value["node_dir"]),
            cluster_dir=Path(value["cluster_dir"]),
            name=value["name"],
            service=value["service"],
            env=Path(value["env"]),
            engine=Path(value["engine"]),
            code=Path(value["code"]),
            address=value["address"],
            governor_port=int(value["governor_port"]),
            server_address=value["server_address"],
            idle_port=int(value["idle_port"]),
            http_port=int(value["http_port"]),
            cpus=int(value["cpus"]),
            server=bool(value["server"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise NotInstalled(f"{node_dir / 'node.json'}: {error!r}") from error


def members(config: NodeConfig) -> tuple[Member, ...]:
    """Nodes whose governors a run waits for.  Raises NotInstalled."""
    path = config.server_dir / "cluster.json"
    try:
        return tuple(
            Member(node["name"], node["address"], int(node["governor_port"])) for node in _read(path)["nodes"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise NotInstalled(f"{path}: {error!r}") from error


def member_name(nodes: tuple[Member, ...], governor: str) -> str:
    """Name of the node whose governor Rain calls ``address:port``; that text itself when unknown.

    A port is enough where the address is not: Rain names a governor by the address that it sees.
    """
    address, _, port = governor.rpartition(":")
    same_port = [node for node in nodes if str(node.governor_port) == port]
    exact = [node for node in same_port if node.address == address]
    return (exact or same_port)[0].name if exact or len(same_port) == 1 else governor


def versions(env: Path) -> dict[str, str]:
    """Versions in a node environment, from its metadata: Python, Rain, and TensorFlow if it has it."""
    places = [str(path) for path in (env / "lib").glob("python3*/site-packages")]
    found = {
        label: distribution.version
        for name, label in _SHOWN.items()
        for distribution in distributions(name=name, path=places)
    }
    return {"python": platform.python_version(), **found}


def _read(path: Path) -> Json:
    value = read_json(path)
    if value is None:
        raise NotInstalled(f"{path} is absent or unreadable")
    return value
