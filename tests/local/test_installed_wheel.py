"""The built wheel, installed elsewhere, does the whole job without the repository."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from uv import find_uv_bin

from tests.local.command_line import CommandLine, LocalCluster, living_in
from tests.local.conftest import FIRST_UP_S, MakeHome
from tests.local.scripts import SQUARES

ROOT = Path(__file__).resolve().parents[2]
UV = find_uv_bin()


def ran(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(make_home: MakeHome, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """The command of a virtual environment that knows nothing of this checkout."""
    place = tmp_path_factory.mktemp("installed")
    build = ("-m", "build", "--wheel", "--no-isolation", "--outdir", place)
    ran(sys.executable, *build, ROOT, cwd=place)
    (wheel,) = place.glob("*.whl")
    ran(UV, "venv", "--python", sys.executable, place / "venv", cwd=place)
    install = (UV, "pip", "install", "--python", place / "venv/bin/python")
    ran(*install, "--require-hashes", "-r", ROOT / "requirements/laptop.txt", cwd=place)
    ran(*install, "--no-deps", wheel, cwd=place)
    return replace(make_home(), program=place / "venv/bin/rain-deploy")


def commands_of(home: Path) -> set[str]:
    """Command lines of all that runs in this home."""
    return {
        Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in living_in(home)
    }


@pytest.mark.slow
def test_it_checks_brings_up_runs_and_takes_down(installed: CommandLine) -> None:
    assert installed("check", "--provider", "local", "--json").result["findings"]
    cluster = LocalCluster(installed, "wheel")
    cluster.well("up", "--provider", "local", "--nodes", "1", timeout_s=FIRST_UP_S)
    used = commands_of(installed.home)
    assert any(str(installed.program.parent) in command for command in used)
    assert not [command for command in used if f"{ROOT}/" in command]
    (installed.cwd / "squares.py").write_text(SQUARES, encoding="utf-8")
    told = cluster.well("run", "squares.py")
    assert told.stdout.splitlines()[:20] == [str(x * x) for x in range(20)]
    assert "  20 points" in told.stdout
    assert "cluster wheel is down" in cluster.well("down").stdout
    assert not living_in(installed.home)
