"""The real executor and the fake one do the same with the same stages, and report the same."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.core.cluster import Cluster, Node, Traits
from rain_deploy.core.events import Event, StageEnded, StageStarted, StepDone
from rain_deploy.core.machine import Host
from rain_deploy.core.spec import EngineSpec, ResolvedEnvironment
from rain_deploy.core.step import Command, CommandResult, Stage, Step, joined
from rain_deploy.errors import HostKeyError, Unreachable
from rain_deploy.fleet.fanout import Executor, SshExecutor
from rain_deploy.parts.facts import DEBIAN_12
from rain_deploy.parts.machine import limit_stage
from rain_deploy.parts.part import Shared
from rain_deploy.parts.services import remove_stage, start_stage, stop_stage
from rain_deploy.parts.software import Code, Engine
from rain_deploy.transport.base import Chunk
from rain_deploy.transport.local import LocalTransport
from tests.support.fake_executor import FakeExecutor, Machine

RAIN = b"an engine"
SHA256 = hashlib.sha256(RAIN).hexdigest()
HOST = Host("node-1", "127.3.0.1", 22, "me", ())
TRAITS = Traits(owned=False, installs_packages=False, needs_wall=False, shared_machine=False)
NODE_CODE = """\
#!/bin/sh
[ "$4" = ensure ] || exit 0
for service in governor ${6:+supervisor}; do
  grep -qsx "$service" "$5/services" || { echo "$service" | tee -a "$5/services"; }
done
"""
"""In the place of the nodes' Python: remembers beside node.json what it has started."""


class Lost(LocalTransport):
    """A way to hosts of which node-2 is not there, or is another."""

    def __init__(self, error: type[Unreachable | HostKeyError]) -> None:
        self._error = error

    def connect(self, host: Host) -> None:
        if host.name == "node-2":
            raise self._error("no")

    def run(
        self, host: Host, command: Command, *, on_stdout: Chunk | None = None, on_stderr: Chunk | None = None
    ) -> CommandResult:
        self.connect(host)
        return super().run(host, command, on_stdout=on_stdout, on_stderr=on_stderr)


def cluster(base: Path) -> Cluster:
    facts = replace(DEBIAN_12, python=f"{base}/cache/envs/env/bin/python")
    node = Node("node-1", HOST, facts, "127.3.0.1", 7301, 2)
    return Cluster(
        "ab12",
        "one",
        "hosts",
        0.0,
        (node,),
        base=str(base),
        env_digest="env",
        engine_sha256=SHA256,
        code_digest="c",
    )


def life(base: Path, machine: Path) -> Iterator[Stage]:
    """What happens to a node from its first ``up`` to ``down``, everything of it twice."""
    made = cluster(base)
    node = made.server
    shared = Shared(made, TRAITS, ResolvedEnvironment(""), EngineSpec(), binary=RAIN)
    install = joined(part.stage(node) for part in (Code(shared), Engine(shared)))
    limit = limit_stage(1_800_000_000.0)
    limit = replace(limit, variables=(*limit.variables, ("RAIN_DEPLOY_MACHINE", str(machine))))
    busy = replace(made, nodes=(replace(node, cpus=3),))
    start = start_stage(made, node, probe=True)
    for stage in (install, limit, start, start_stage(busy, busy.server, probe=False)):
        yield from (stage, stage)
    yield stop_stage(made, node)
    yield from (remove_stage(made, wall=False), start)


def real(base: Path) -> Executor:
    python = base / "cache/envs/env/bin/python"
    python.parent.mkdir(parents=True)
    base.chmod(0o700)
    python.write_text(NODE_CODE)
    python.chmod(0o755)
    return SshExecutor(LocalTransport())


def fake(_base: Path) -> Executor:
    machine = Machine(limit="none")
    return FakeExecutor(lambda _host: contextlib.nullcontext(machine))


def played(place: Path, make: Callable[[Path], Executor]) -> list[Any]:
    """What an executor reports and says of a node's life."""
    machine, base = place / "machine", place / "base"
    machine.mkdir(parents=True)
    (machine / "limit").write_text("none\n")
    executor, told = make(base), list[Any]()
    for stage in life(base, machine):
        events: list[Event] = []
        report = executor.run({HOST: stage}, str(base), events.append).require()[HOST.name]
        told.append((stage.name, report.changed, report.values("started")))
        told += [(type(e), e.stage, getattr(e, "outcome", "")) for e in events if isinstance(e, SAID)]
    return told


SAID = (StageStarted, StepDone, StageEnded)


def test_both_report_the_same_of_a_nodes_life(tmp_path: Path) -> None:
    told = played(tmp_path / "real", real)
    assert told == played(tmp_path / "fake", fake)
    reports = [line for line in told if isinstance(line[0], str)]
    assert reports[:4] == [
        ("install", ("node code", "engine"), ()),
        ("install", (), ()),
        ("limit", ("time limit",), ()),
        ("limit", (), ()),
    ]
    name, changed, started = reports[4]
    assert (name, changed[:2], started) == (
        "start",
        ("node.json", "cluster.json"),
        ("governor", "supervisor"),
    )


@pytest.mark.parametrize("error", [Unreachable, HostKeyError])
def test_both_tell_a_host_that_is_not_there_from_one_that_is_another(
    tmp_path: Path, error: type[Unreachable | HostKeyError]
) -> None:
    transport = Lost(error)

    @contextlib.contextmanager
    def reach(host: Host) -> Iterator[Machine]:
        transport.connect(host)
        yield Machine()

    stage = Stage("boot", (Step("wait", act=":"),))
    stages = {HOST: stage, replace(HOST, name="node-2"): stage}
    for executor in (SshExecutor(transport), FakeExecutor(reach)):
        if error is HostKeyError:
            with pytest.raises(HostKeyError):
                executor.run(stages, str(tmp_path / "base"), lambda _: None)
            continue
        outcomes = executor.run(stages, str(tmp_path / "base"), lambda _: None)
        assert (list(outcomes.values), list(outcomes.errors)) == (["node-1"], ["node-2"])
        assert outcomes.errors["node-2"].node == "node-2"
