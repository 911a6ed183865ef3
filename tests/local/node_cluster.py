"""Nodes on this machine, laid out by hand as ``up`` and ``run`` lay them out: no SSH, no laptop side."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rain_deploy.parts.shell import render
from tests.support.network import WORKER
from tests.support.processes import command, cut_power, environments, without_forks
from tests.support.waiting import LONG_S, wait_for

NODE_CODE = Path(__file__).parents[2] / "rain_deploy" / "node"

SWEEP = """\
import sys, time
from rain.client import Client, remote

@remote()
def square(ctx, x):
    time.sleep(0.05)
    return str(x * x)

with Client("localhost", 7210).new_session("squares") as session:
    tasks = [square(x, name="square x=%d" % x) for x in range(int(sys.argv[1]))]
    for task in tasks:
        task.output.keep()
    session.submit()
    session.wait_all()
    print(sum(int(task.output.fetch().get_bytes()) for task in tasks))
"""


@dataclass
class NodeCluster:
    """``count`` nodes at 127.102.x.N, one x for each process that runs tests; node 1 has the server."""

    base: Path
    engine: Path
    env: Path
    count: int = 2
    code: Path = Path()
    _sequence: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def id(self) -> str:
        return f"test-{os.getpid()}"

    @property
    def directory(self) -> Path:
        return self.base / "clusters" / self.id

    def node_dir(self, index: int) -> Path:
        return self.directory / "nodes" / str(index)

    def service(self, index: int) -> str:
        return f"{self.id}/{index}"

    def address(self, index: int) -> str:
        return f"127.102.{WORKER}.{index}"

    def install(self) -> None:
        """Node code, node.json of each node, cluster.json."""
        self._copy_code("code")
        nodes = [self._write_node(index) for index in range(1, self.count + 1)]
        (self.directory / "server").mkdir(parents=True)
        (self.directory / "server" / "cluster.json").write_text(json.dumps({"nodes": nodes}))

    def renew_code(self) -> None:
        """Another bundle, as ``up`` of a newer version places it."""
        self._copy_code("newer")
        for index in range(1, self.count + 1):
            self._write_node(index)

    def _copy_code(self, name: str) -> None:
        self.code = self.base / name
        cached = shutil.ignore_patterns("__pycache__")
        companion = self.code / "site" / "rain_deploy_companion"
        shutil.copytree(NODE_CODE, self.code / "node", ignore=cached)
        shutil.copytree(NODE_CODE.parent / "companion", companion, ignore=cached)
        shutil.copy(NODE_CODE / "launch.py", self.code / "__main__.py")

    def _write_node(self, index: int) -> dict[str, Any]:
        member = {
            "node": index,
            "name": f"node-{index}",
            "address": self.address(index),
            "governor_port": 7300 + index,
        }
        config = {
            **member,
            "cluster": self.id,
            "service": self.service(index),
            "env": str(self.env),
            "engine": str(self.engine),
            "code": str(self.code),
            "node_dir": str(self.node_dir(index)),
            "cluster_dir": str(self.directory),
            "server_address": self.address(1),
            "idle_port": 7210,
            "http_port": 7222,
            "cpus": 2,
            "server": index == 1,
        }
        self.node_dir(index).mkdir(parents=True, exist_ok=True)
        (self.node_dir(index) / "node.json").write_text(json.dumps(config))
        return member

    def argv(self, verb: str, *arguments: object) -> list[str]:
        return [str(self.env / "bin" / "python"), str(self.code), verb, *map(str, arguments)]

    def call(
        self, verb: str, *arguments: object, timeout_s: float = 90.0
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.argv(verb, *arguments),
            capture_output=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def ensure(self, index: int) -> list[str]:
        server = ["--supervisor", self.directory] if index == 1 else []
        done = self.call("ensure", self.node_dir(index), *server)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().split()

    def up(self) -> list[str]:
        """Services on all nodes, governors registered at the idle server."""
        started = [name for index in range(1, self.count + 1) for name in self.ensure(index)]
        self.probe()
        return started

    def probe(self) -> None:
        done = self.call("probe", self.address(1), 7210, "--expect", self.count, "--deadline", 60)
        assert done.returncode == 0, (done.stdout, done.stderr)

    def ship(self, name: str, script: str, *args: str, **settings: object) -> Path:
        """A run directory as ``run`` leaves it on the nodes; ``env`` becomes env.json."""
        run_dir = self.directory / "runs" / name
        (run_dir / "files").mkdir(parents=True)
        (run_dir / "files" / "script.py").write_text(script)
        sequence = next(self._sequence)
        described = {
            "run": name,
            "sequence": sequence,
            "port": 7229 + sequence,
            "script": "script.py",
            "cwd": ".",
            "args": list(args),
            "timeout_s": None,
            "min_nodes": None,
            "companion": False,
            "restarts": 0,
            "live": [one.name for one in self._unfinished()],
        }
        env = settings.pop("env", {})
        digests = {"script.py": hashlib.sha256(script.encode()).hexdigest()}
        (run_dir / "shipped.json").write_text(json.dumps(digests))
        (run_dir / "env.json").write_text(json.dumps(env))
        (run_dir / "run.json").write_text(json.dumps({**described, **settings}))
        return run_dir

    def _unfinished(self) -> list[Path]:
        directories = [path.parent for path in self.directory.glob("runs/*/run.json")]
        return [path for path in directories if state(path)["state"] != "finished"]

    def queue(self, run_dir: Path) -> None:
        assert self.call("queue", run_dir).returncode == 0

    def run(self, name: str, script: str, *args: str, **settings: object) -> Path:
        """Ship and queue."""
        run_dir = self.ship(name, script, *args, **settings)
        self.queue(run_dir)
        return run_dir

    def follow(self, run_dir: Path, *offsets: object, timeout_s: float = LONG_S) -> list[dict[str, Any]]:
        """All lines of ``follow`` until it ends by itself."""
        done = self.call("follow", run_dir, *offsets, timeout_s=timeout_s)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def finish(self, run_dir: Path, timeout_s: float = LONG_S) -> dict[str, Any]:
        """Wait for the run's end; its state."""
        wait_for(lambda: state(run_dir)["state"] == "finished", timeout_s, lambda: str(state(run_dir)))
        return state(run_dir)

    def processes(self, index: int, role: str = "") -> list[int]:
        """Pids that carry this node's mark, and the role's; found without any code of the product."""
        return without_forks(self._carrying(index, role))

    def _carrying(self, index: int, role: str = "") -> list[int]:
        wanted = {f"RAIN_DEPLOY_SERVICE={self.service(index)}"}
        wanted |= {f"RAIN_DEPLOY_ROLE={role}"} if role else set()
        return [pid for pid, environment in environments().items() if wanted <= {*environment.split("\0")}]

    def cut_power(self, index: int) -> None:
        """End all processes of a node at once, so that nothing starts another."""
        cut_power(lambda: self._carrying(index))

    def program(self, index: int, name: str) -> int:
        """Pid of the one process of a node whose command line has these words."""
        found = [pid for pid in self.processes(index) if name in command(pid)]
        assert len(found) == 1, (name, found)
        return found[0]

    def stop_node(self, index: int) -> None:
        """As ``down`` ends the services of a node; its configuration is put back, for ``up``."""
        config = self.node_dir(index) / "node.json"
        written = config.read_bytes()
        script = render("stop.sh.j2", service=self.service(index), node_config=str(config))
        done = subprocess.run(
            ["sh", "-c", f"data() {{ :; }}\n{script}"], capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        config.write_bytes(written)

    def stop(self) -> None:
        for index in range(1, self.count + 1):
            self.stop_node(index)


def state(run_dir: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads((run_dir / "state.json").read_text())
    except FileNotFoundError:
        return {"state": "shipped"}
    return value


def points(run_dir: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """The last row of each task."""
    rows = [json.loads(line) for line in (run_dir / "points.jsonl").read_text().splitlines()]
    return {(row["session"], row["task"]): row for row in rows}


def states(run_dir: Path) -> set[str]:
    """Return the states of the rows that are written while the run goes on, maybe none yet."""
    try:
        *whole, _ = (run_dir / "points.jsonl").read_text().split("\n")
    except FileNotFoundError:
        return set()
    return {json.loads(line)["state"] for line in whole}
