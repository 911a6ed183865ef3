"""The command line as a user types it, in a process of its own, and what it leaves on this machine.

The process is forked by one that has imported all, unless the test is about how it starts.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema

from tests.support.fork_server import Forked, fork_server
from tests.support.framed import command_of
from tests.support.processes import command, cut_power, environments, start_time, without_forks
from tests.support.waiting import LONG_S, wait_for

PROGRAM = Path(sys.executable).with_name("rain-deploy")
SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "json-schema.json"
ROLES = ("ssh", "keeper", "supervisor", "server", "governor", "job")
"""What runs in nodes and goes on when a command has ended; ``ssh`` is the node's SSH server."""


@dataclass(frozen=True, slots=True)
class Told:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout, valid by the schema in docs/, with the command's exit code."""
        value: dict[str, Any] = json.loads(self.stdout)
        schema().validate(value)
        assert value["exit_code"] == self.exit_code
        return value

    @property
    def result(self) -> dict[str, Any]:
        """``result`` of the document; the command ended well, or its result says why not."""
        value = self.document["result"]
        assert isinstance(value, dict), self
        return value

    @property
    def error(self) -> dict[str, Any]:
        """``error`` of the document."""
        value = self.document["error"]
        assert isinstance(value, dict), self
        return value


@functools.cache
def schema() -> jsonschema.Draft202012Validator:
    """The schema in docs/, which itself is checked once."""
    value = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(value)
    return jsonschema.Draft202012Validator(value)


STARTED: list[Running] = []
"""What a test has started: whatever still runs at its end is killed."""


class Running:
    """A command that runs: its output as far as it has come."""

    def __init__(self, argv: list[str], cwd: Path, env: dict[str, str], *, forked: bool) -> None:
        ends = {name: os.pipe() for name in ("stdout", "stderr")}
        streams = {name: write for name, (_, write) in ends.items()}
        self.process: Forked | subprocess.Popen[bytes]
        if forked:
            main = "rain_deploy.cli.main:main"
            self.process = fork_server().start(main, argv, cwd=cwd, env=env, **streams)
        else:
            self.process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=streams["stdout"],
                stderr=streams["stderr"],
                start_new_session=True,
            )
        for stream in streams.values():
            os.close(stream)
        self._read = {name: bytearray() for name in ends}
        STARTED.append(self)
        self._threads = [
            threading.Thread(target=self._collect, args=(name, read), daemon=True)
            for name, (read, _) in ends.items()
        ]
        for thread in self._threads:
            thread.start()

    def _collect(self, name: str, stream: int) -> None:
        while chunk := os.read(stream, 65536):
            self._read[name] += chunk
        os.close(stream)

    @property
    def stdout(self) -> str:
        return self._read["stdout"].decode()

    @property
    def stderr(self) -> str:
        return self._read["stderr"].decode()

    def wait_for(self, words: str, timeout_s: float = LONG_S) -> None:
        """Until it has printed ``words`` on one of the two streams."""

        def printed() -> bool:
            assert words in self.stdout + self.stderr or self.process.poll() is None, (words, self.ended())
            return words in self.stdout + self.stderr

        wait_for(printed, timeout_s, lambda: f"{words!r} in {self.stdout!r} {self.stderr!r}")

    def interrupt(self) -> None:
        """Ctrl-C, as a terminal does it: to the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL to the whole process group."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.ended()

    def ended(self, timeout_s: float = LONG_S) -> Told:
        """Wait for its end."""
        try:
            exit_code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"did not end: {self.stdout!r} {self.stderr!r}") from error
        for thread in self._threads:
            thread.join()
        return Told(exit_code, self.stdout, self.stderr)


@dataclass(frozen=True)
class CommandLine:
    """rain-deploy with a home and in a directory."""

    home: Path
    cwd: Path
    env: tuple[tuple[str, str], ...] = ()
    prefix: tuple[str, ...] = ()
    """What starts it, in another network for one."""
    program: Path = PROGRAM

    def at(self, cwd: Path) -> CommandLine:
        """The same, typed in another directory."""
        return dataclasses.replace(self, cwd=cwd)

    def start(self, *words: str, env: dict[str, str] | None = None) -> Running:
        """Start it and go on."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAIN_DEPLOY_")}
        variables = {**kept, "RAIN_DEPLOY_HOME": str(self.home), **dict(self.env), **(env or {})}
        argv = [*self.prefix, str(self.program), *words]
        # A fork is a Python that has started: what is told to it at its start comes too late.
        same = python_variables(variables) == python_variables(os.environ)
        forked = same and not self.prefix and self.program == PROGRAM
        return Running(argv, self.cwd, variables, forked=forked)

    def __call__(self, *words: str, env: dict[str, str] | None = None, timeout_s: float = LONG_S) -> Told:
        """Run it to its end, whatever that is."""
        return self.start(*words, env=env).ended(timeout_s)

    def well(self, *words: str, env: dict[str, str] | None = None, timeout_s: float = LONG_S) -> Told:
        """Run it to its end, which is exit code 0."""
        told = self(*words, env=env, timeout_s=timeout_s)
        assert told.exit_code == 0, told
        return told

    def clusters(self) -> list[dict[str, Any]]:
        """Lines of ``list``."""
        lines: list[dict[str, Any]] = self.well("list", "--json").result["clusters"]
        return lines


@dataclass(frozen=True)
class LocalCluster:
    """A cluster of local nodes that ``up`` made."""

    line: CommandLine
    name: str

    @property
    def id(self) -> str:
        return _id(self.line.home, self.name)

    def __call__(self, verb: str, *words: str, **how: Any) -> Told:
        """A verb on this cluster."""
        return self.line(verb, "-c", self.name, *words, **how)

    def well(self, verb: str, *words: str, **how: Any) -> Told:
        """A verb on this cluster that ends with exit code 0."""
        return self.line.well(verb, "-c", self.name, *words, **how)

    def start(self, verb: str, *words: str, **how: Any) -> Running:
        """A verb on this cluster, in the background."""
        return self.line.start(verb, "-c", self.name, *words, **how)

    def run(self, *words: str, **how: Any) -> Path:
        """A run that ends well; its results directory."""
        return Path(self.well("run", "--json", *words, **how).result["results_dir"])

    def governors(self) -> int | None:
        """Registered with Rain now."""
        value: int | None = self.well("status", "--json").result["governors"]
        return value

    def await_governors(self, count: int) -> None:
        wait_for(lambda: self.governors() == count, describe=lambda: f"{count} governors")

    def at_rest(self) -> dict[int, str]:
        """Return its processes once every governor waits for the next run: after a run they start anew."""
        self.await_governors(len(self.well("status", "--json").result["nodes"]))
        return self.processes()

    @property
    def directory(self) -> Path:
        """Of the cluster's own files."""
        return self.line.home / "local" / "clusters" / self.id

    def processes(self, node: int | None = None, *roles: str) -> dict[int, str]:
        """Pid and start time of the processes of the cluster, of one node, of some roles (default: all)."""
        wanted = f"\0RAIN_DEPLOY_LOCAL_NODE={self.id}/" + (f"{node}\0" if node else "")
        found = {pid: role(pid, env) for pid, env in environments().items() if wanted in env}
        return {
            pid: start
            for pid in without_forks(found)
            if found[pid] in (roles or ROLES) and (start := start_time(pid))
        }

    def cut_power(self, node: int) -> None:
        """End all processes of a node at once, so that nothing starts another."""
        wanted = f"\0RAIN_DEPLOY_LOCAL_NODE={self.id}/{node}\0"
        cut_power(lambda: [pid for pid, env in environments().items() if wanted in env and start_time(pid)])

    def commands(self, node: int) -> list[str]:
        """Every command that the node's SSH server has received."""
        return [command_of(line["command"]) for line in self._noted(node, "commands.jsonl")]

    def logins(self, node: int) -> int:
        """How often somebody has logged in there."""
        return len(self._noted(node, "logins.jsonl"))

    def _noted(self, node: int, name: str) -> list[dict[str, Any]]:
        path = self.line.home / "local" / "nodes" / self.id / str(node) / name
        return [json.loads(line) for line in path.read_text().splitlines()]


@functools.cache
def _id(home: Path, name: str) -> str:
    """Of the cluster of that name; no test makes a second one in the same home."""
    return str(next(one["id"] for one in CommandLine(home, home).clusters() if one["name"] == name))


def python_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Those that Python itself reads when it starts."""
    read = ("PYTHON", "LC_", "LANG")
    return {name: value for name, value in environment.items() if name.startswith(read)}


def role(pid: int, environment: str) -> str:
    """Of a process in a node; empty for what a command of ours runs there for a moment."""
    _, _, rest = environment.partition("\0RAIN_DEPLOY_ROLE=")
    if rest:
        return rest.partition("\0")[0]
    return "ssh" if "local/node.py" in command(pid) else ""


def living_in(home: Path) -> dict[int, str]:
    """What runs in this home: pid and environment."""
    return {pid: env for pid, env in environments().items() if f"{home}/" in env and start_time(pid)}


def listening(prefix: str) -> Iterator[str]:
    """Open TCP ports of this machine on addresses that begin with ``prefix``, as ``127.1.2.3:7210``."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        number, port = local.split(":")
        address = ".".join(str(byte) for byte in reversed(bytes.fromhex(number)))
        if state == "0A" and address.startswith(prefix):
            yield f"{address}:{int(port, 16)}"
