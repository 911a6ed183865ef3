"""Fail-open, for figures: wherever the companion breaks, the script says and leaves what it would without."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.unit.companion_python import FAULT, NodePython

SCRIPT = """\
import matplotlib.pyplot as plt
fig, ax = plt.subplots()
fig.savefig("own.svg", metadata={"Date": None})
plt.show()
plt.figure()
print("done")
raise SystemExit(7)
"""

BREAKS = {
    "at the hook of an import": ("__init__.py", "                        _hook_after_loading("),
    "at the import of figures": ("figures.py", "FILE_BACKENDS ="),
    "at hooking Figure": ("figures.py", "    save, show = "),
    "at hooking pyplot": ("figures.py", "    switch, pause = "),
    "at listing figures": ("figures.py", "        managers = "),
    "at drawing": ("figures.py", "    target = io"),
    "at writing": ("figures.py", "    path.parent.mkdir"),
    "at noting a fault": ("__init__.py", "    import traceback"),
}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> NodePython:
    return NodePython.make(tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="module")
def unbroken(python: NodePython) -> tuple[subprocess.CompletedProcess[str], bytes]:
    run = python.run_dir("unbroken")
    done = python.run(SCRIPT, run)
    assert not (run / "companion").exists()
    return done, (run / "files" / "own.svg").read_bytes()


@pytest.mark.parametrize("break_", BREAKS)
def test_a_fault_changes_nothing_for_the_script_and_is_noted(
    python: NodePython, unbroken: tuple[subprocess.CompletedProcess[str], bytes], break_: str
) -> None:
    whole, saved = unbroken
    run = python.run_dir(break_)
    module, line = BREAKS[break_]
    sabotage = {"RAIN_DEPLOY_COMPANION": python.broken_site(module, line), "MPLBACKEND": "agg"}
    if break_ == "at noting a fault":
        (run / "figures").write_text("a file where a directory should be")
    done = python.run(SCRIPT, run, **sabotage)
    assert (done.returncode, done.stdout, done.stderr) == (7, "done\n", "")
    assert (whole.returncode, whole.stdout, whole.stderr) == (7, "done\n", "")
    assert len((run / "files" / "own.svg").read_bytes()) == len(saved)
    noted = run / "companion" / "faults.log"
    assert (FAULT in noted.read_text()) if break_ != "at noting a fault" else not noted.exists()


def test_a_run_directory_that_cannot_be_written_changes_nothing(python: NodePython, tmp_path: Path) -> None:
    run = python.run_dir("unwritable")
    (run / "figures").write_text("")
    (run / "companion").write_text("")
    done = python.run(SCRIPT, run)
    assert (done.returncode, done.stdout, done.stderr) == (7, "done\n", "")
