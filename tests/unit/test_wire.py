"""What laptop and nodes say to each other is read as it was written, or refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.node.wire import (
    ClusterConfig,
    EndLine,
    ListedRun,
    Member,
    NodeConfig,
    NodeStatus,
    Outcome,
    OutputLine,
    PointLine,
    PointRow,
    RunDescription,
    RunState,
    RunStatus,
    StateLine,
    WireError,
    extended,
    from_json,
    parse,
    read_line,
    to_json,
)

STATUS = RunStatus(
    state=RunState.FINISHED,
    outcome=Outcome.FAILED,
    exit_code=-9,
    started_s=1.5,
    nodes=("node-1", "node-2"),
    versions={"rain": "0.4.0"},
)
CONFIG = NodeConfig(
    node_dir=Path("/b/c/nodes/1"),
    cluster_dir=Path("/b/c"),
    name="node-1",
    service="c/1",
    env=Path("/e"),
    engine=Path("/e/rain"),
    code=Path("/code"),
    address="10.0.0.1",
    governor_port=7301,
    server_address="10.0.0.1",
    idle_port=7210,
    http_port=7222,
    cpus=2,
    server=True,
)
MESSAGES = [
    CONFIG,
    ClusterConfig(nodes=(Member(name="node-1", address="a", governor_port=7301),)),
    RunDescription(run="r", sequence=1, port=7230, script="s.py", args=("\udcff", "ü"), timeout_s=1.0),
    STATUS,
    extended(STATUS, ListedRun, run="r"),
    NodeStatus(services={"keeper": 1, "supervisor": None}, runs=(extended(STATUS, ListedRun, run="r"),)),
    PointRow(task=1, parameters={"a": 1, "b": 1.5, "c": True, "d": "x", "e": None}, value=0.5),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda one: type(one).__name__)
def test_what_is_written_is_read(message: object) -> None:
    assert from_json(type(message), parse(json.dumps(to_json(message)))) == message


@pytest.mark.parametrize(
    "line", [EndLine(), OutputLine(t="err", d="\udcff"), extended(STATUS, StateLine, ahead=2)]
)
def test_a_line_is_read_as_its_kind(line: OutputLine | StateLine | EndLine) -> None:
    assert read_line(json.dumps(to_json(line)).encode()) == line


def test_a_row_is_sent_with_its_length() -> None:
    line = PointLine(row=PointRow(task=3), bytes=40)
    assert read_line(json.dumps(to_json(line)).encode()) == line


def test_a_newer_version_may_say_more() -> None:
    assert from_json(RunStatus, {**to_json(STATUS), "mood": "good"}) == STATUS
    assert from_json(RunStatus, {"state": "finished", "outcome": "melted"}).outcome == "melted"
    assert read_line(b'{"t": "weather", "degrees": 7}') is None


def test_an_older_version_may_say_less() -> None:
    assert from_json(RunStatus, {"state": "running"}) == RunStatus(state=RunState.RUNNING)
    older = {"state": "queued", "outcome": "", "ahead": 1}  # the answer of `queue`, without a kind
    assert read_line(json.dumps(older).encode()) == StateLine(state=RunState.QUEUED, ahead=1)


NO_STATUS: list[tuple[object, str]] = [
    ([], "RunStatus: not an object"),
    ({"state": "asleep"}, "RunStatus.state: 'asleep' is not a valid RunState"),
    ({"state": ["finished"]}, r"RunStatus.state is \['finished'\], not RunState"),
    ({"exit_code": True}, "RunStatus.exit_code is True, not int"),
    ({"exit_code": 1.0}, "RunStatus.exit_code is 1.0, not int"),
    ({"started_s": "1"}, "RunStatus.started_s is '1', not float"),
    ({"started_s": int("9" * 400)}, "RunStatus.started_s: int too large"),
    ({"nodes": "node-1"}, "RunStatus.nodes is 'node-1', not tuple"),
    ({"nodes": [1]}, "RunStatus.nodes is 1, not str"),
    ({"versions": {"rain": {}}}, "RunStatus.versions.rain is {}, not str"),
]


@pytest.mark.parametrize(("value", "why"), NO_STATUS)
def test_what_is_of_another_shape_is_refused(value: Any, why: str) -> None:
    with pytest.raises(WireError, match=why):
        from_json(RunStatus, value)


def test_what_must_be_there_is_named() -> None:
    with pytest.raises(WireError, match="RunDescription: sequence is absent"):
        from_json(RunDescription, {"run": "r"})


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000, b"3", b'{"t": "out"}'])
def test_what_is_no_line_is_refused(text: bytes) -> None:
    with pytest.raises(WireError):
        read_line(text)


def test_a_run_is_active_from_the_line_to_its_end() -> None:
    active = [state for state in RunState if replace(STATUS, state=state).waits_or_runs]
    assert active == [RunState.QUEUED, RunState.STARTING, RunState.RUNNING]
