"""A run lands on a node whole, once, its secrets kept; its step runs here as on a node."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.core.layout import Layout
from rain_deploy.core.run import RunRecord, Shipment, ShippedFile
from rain_deploy.core.spec import RunSpec
from rain_deploy.core.step import PayloadFile, Stage
from rain_deploy.parts.services import ship_stage
from rain_deploy.parts.shell import stage_command

ODD = "odd\nna me\\caf\udce9.txt"


def run_record(run: str = "r1") -> RunRecord:
    return RunRecord(run, "c1", "default", 3, 7233, "a.py", ("-x", "ü"), "0" * 64, 1.0, Path("/unused"))


def stage(base: Path, body: bytes = b"print(1)\n", run: str = "r1") -> Stage:
    files = (
        PayloadFile("src/a.py", body),
        PayloadFile("src/tool", b"#!/bin/sh\n", 0o755),
        PayloadFile(ODD, b"odd"),
        PayloadFile("-rf", b""),
    )
    shipment = Shipment(
        root=Path("/home/u"),
        cwd="src",
        script="src/a.py",
        files=tuple(ShippedFile(f.path, Path("/unused"), len(f.data), "0" * 64, f.mode) for f in files),
        directories=("out/deep", "-odd"),
    )
    spec = RunSpec(Path("a.py"), env=(("TOKEN", "s3cret"),), timeout_s=9.5, min_nodes=2, companion=False)
    layout = Layout(str(base), "c1")
    return ship_stage(layout, run_record(run), spec, shipment, files, live=("r0",), env_digest="e1")


def start(stage: Stage, base: Path) -> subprocess.Popen[bytes]:
    command = stage_command(stage, str(base))
    process = subprocess.Popen(
        command.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert command.stdin is not None
    process.stdin.write(command.stdin)
    process.stdin.flush()
    return process


def shipped(stage: Stage, base: Path) -> str:
    """The last outcome that the stage reports."""
    process = start(stage, base)
    out, err = process.communicate(timeout=60)
    outcome = out.decode().split("\x1e")[-1].split()[-1]
    assert (process.returncode == 0) == (outcome != "failed"), err
    return outcome


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "base dir"


def run_dir(base: Path, run: str = "r1") -> Path:
    return base / "clusters/c1/runs" / run


def leftovers(base: Path) -> list[Path]:
    return list((base / "tmp").iterdir())


def test_the_run_directory_holds_what_was_shipped(base: Path) -> None:
    assert shipped(stage(base), base) == "done"
    place = run_dir(base)
    files = {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()}
    assert files.keys() == {
        *("run.json", "shipped.json", "env.json"),
        *("files/src/a.py", "files/src/tool", f"files/{ODD}", "files/-rf"),
    }
    assert files["files/src/a.py"] == b"print(1)\n"
    assert (place / "files/out/deep").is_dir()
    assert (place / "files/-odd").is_dir()
    assert json.loads(files["run.json"]) == {
        "run": "r1",
        "sequence": 3,
        "port": 7233,
        "script": "src/a.py",
        "cwd": "src",
        "args": ["-x", "ü"],
        "timeout_s": 9.5,
        "min_nodes": 2,
        "companion": False,
        "then_off": False,
        "fresh": False,
        "fail_fast": False,
        "restarts": 0,
        "cap": None,
        "live": ["r0"],
        "nodes": [],
        "imports": [],
        "packages": f"{base}/cache/envs/e1/lib/python3.11/site-packages",
    }
    assert json.loads(files["env.json"]) == {"TOKEN": "s3cret"}
    assert set(json.loads(files["shipped.json"])) == {"src/a.py", "src/tool", ODD, "-rf"}
    assert leftovers(base) == []


def test_a_node_can_tell_when_the_run_came(base: Path) -> None:
    """Its time limit's program counts the minutes of --then-off from there."""
    before_s = int(time.time())
    shipped(stage(base), base)
    assert before_s <= (run_dir(base) / "run.json").stat().st_mtime <= time.time() + 1


def test_nobody_else_reads_it(base: Path) -> None:
    shipped(stage(base), base)
    modes = {
        name: stat.S_IMODE((run_dir(base) / name).stat().st_mode)
        for name in ("", "env.json", "files/src/tool")
    }
    assert modes[""] == 0o700
    assert modes["env.json"] == 0o600
    assert modes["files/src/tool"] & 0o100


def test_secrets_stand_in_no_command_line(base: Path) -> None:
    assert all("s3cret" not in word for word in stage_command(stage(base), str(base)).argv)


def test_a_second_time_changes_nothing(base: Path) -> None:
    shipped(stage(base), base)
    before = run_dir(base).stat().st_ino
    assert shipped(stage(base), base) == "unchanged"
    assert run_dir(base).stat().st_ino == before


def test_the_same_run_with_other_content_is_a_failure_and_changes_nothing(base: Path) -> None:
    shipped(stage(base), base)
    before = sorted(run_dir(base).rglob("*"))
    assert shipped(stage(base, b"print(2)\n"), base) == "failed"
    assert (run_dir(base) / "files/src/a.py").read_bytes() == b"print(1)\n"
    assert sorted(run_dir(base).rglob("*")) == before
    assert leftovers(base) == []


def test_content_damaged_on_its_way_is_a_failure(base: Path) -> None:
    right = stage(base)
    payload = tuple(
        replace(file, data=b"prinT(1)\n") if file.path == "run/files/src/a.py" else file
        for file in right.payload
    )
    assert shipped(replace(right, payload=payload), base) == "failed"


def test_nodes_of_one_machine_may_ship_at_once(base: Path) -> None:
    for attempt in range(4):
        run = f"r{attempt}"
        both = [start(stage(base, run=run), base) for _ in range(3)]
        errors = [process.communicate(timeout=60)[1] for process in both]
        assert [process.returncode for process in both] == [0, 0, 0], errors
        assert json.loads((run_dir(base, run) / "run.json").read_text())["run"] == run
        assert sorted(os.listdir(run_dir(base, run))) == ["env.json", "files", "run.json", "shipped.json"]  # noqa: PTH208
    assert leftovers(base) == []
