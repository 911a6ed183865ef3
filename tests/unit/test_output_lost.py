"""Output that cannot be written: a full disk or a reader that went away.  The work is never lost with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")

CHILD = """
import os, pathlib, sys
from rain_deploy.cli.main import main
from rain_deploy.core.events import Notice, RunChanged, ScriptOutput
from rain_deploy.errors import ScriptFailed
from tests.unit.fake_application import World
world = World(pathlib.Path(sys.argv.pop(1)))
world.verbs.events = (Notice("sending"), RunChanged("r1", "running"), ScriptOutput("stdout", b"hello\\n"),
                      ScriptOutput("stdout", b"again\\n"))
if os.environ.get("FAILS"):
    world.verbs.error = ScriptFailed("the script failed")
try:
    main(world.application())
finally:
    print(*[name for name, _ in world.verbs.calls], file=open(os.environ["CALLS"], "w"))
"""


def command(tmp_path: Path, *words: str, fails: str = "", **streams: object) -> tuple[int, str, str]:
    """Run it with these streams; return its exit code, what came to stderr, and the verbs called."""
    calls = tmp_path / "calls"
    (tmp_path / "job.py").touch()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, f"{tmp_path}/home", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CALLS": str(calls), "FAILS": fails},
        text=True,
        check=False,
        timeout=60,
        **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams),  # type: ignore[call-overload]
    )
    return done.returncode, done.stderr or "", calls.read_text().strip()


@pytest.mark.parametrize(
    "words",
    ["run job.py", "run -q job.py", "list", "list --json", "logs", "exec -- true", "points --csv", "--help"],
)
def test_a_full_disk_is_an_error_with_its_name_and_the_work_is_done(tmp_path: Path, words: str) -> None:
    with FULL.open("w") as full:
        code, err, calls = command(tmp_path, *words.split(), stdout=full)
    assert code == 12, err
    assert "error[RD12]: standard output cannot be written: No space left on device; what the" in err
    assert "bug" not in err
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert bool(calls) == (words != "--help")


def test_a_run_goes_on_and_says_once_that_its_output_is_not_shown(tmp_path: Path) -> None:
    with FULL.open("w") as full:
        _, err, _ = command(tmp_path, "run", "job.py", stdout=full)
    assert err.count("the rest of what the script prints is in the results only") == 1


@pytest.mark.parametrize(
    ("words", "status"), [("run job.py", 41), ("run --json job.py", 41), ("no --json", 2)]
)
def test_an_error_of_the_command_itself_comes_first(tmp_path: Path, words: str, status: int) -> None:
    with FULL.open("w") as full:
        code, err, _ = command(tmp_path, *words.split(), fails="yes", stdout=full)
    assert code == status, err
    assert f"error[RD{status}]: " in err


@pytest.mark.parametrize("words", ["up --provider local --nodes 2", "run job.py", "down", "list --json"])
def test_progress_that_cannot_be_written_stops_nothing(tmp_path: Path, words: str) -> None:
    with FULL.open("w") as full:
        code, _, _ = command(tmp_path, *words.split(), stderr=full)
    assert code == 0


@pytest.mark.parametrize("words", ["runs", "list --json", "run job.py", "logs"])
def test_a_reader_that_goes_away_is_no_bug(tmp_path: Path, words: str) -> None:
    read, write = os.pipe()
    os.close(read)
    code, err, _ = command(tmp_path, *words.split(), stdout=write)
    os.close(write)
    assert code == 141
    assert "error" not in err


def test_progress_whose_reader_goes_away_stops_nothing(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    code, _, calls = command(tmp_path, "up", "--provider", "local", "--nodes", "2", stderr=write)
    os.close(write)
    assert (code, calls) == (0, "up")
