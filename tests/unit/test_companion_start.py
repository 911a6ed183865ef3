"""compat and companion at the start of a Python: what Rain needs is there, and it costs next to nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.companion_python import COMPANION, NodePython

RAIN = {
    "__init__.py": "import collections, time\nBASES = collections.Mapping, collections.MutableSequence\n"
    "CLOCK = time.clock\n",
    "client/__init__.py": "from .client import Client\nfrom .program import Program\n",
    "client/client.py": "class Client:\n def __init__(self, address, port):\n  self.to = address, port\n",
    "client/program.py": "class Program: pass\n",
}
"""What compat relies on of Rain 0.4.0: the names that it uses, and the order of its client's imports."""

ASK = """\
import sys
from rain.client import Client
print(Client("localhost", 7210).to, Client("127.0.0.1", port="7210").to, Client("localhost", 7211).to,
      Client("10.0.0.1", 7210).to)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> NodePython:
    made = NodePython.make(tmp_path_factory.mktemp("node"))
    for name, text in RAIN.items():
        path = made.packages / "rain" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return made


def _imported_at_start(python: NodePython, run: Path | None, *options: str) -> set[str]:
    return set(python.run("import sys\nprint(*sys.modules)", run, *options).stdout.split())


def test_nothing_but_sys_os_and_ours_is_imported_at_start(python: NodePython) -> None:
    bare = _imported_at_start(python, None, "-S") | {"os", "stat", "posixpath", "genericpath", "site"}
    bare |= {"_sitebuiltins", "_stat", "_collections_abc", "os.path", "sitecustomize"}
    assert _imported_at_start(python, None) - bare == {"rain_deploy_compat"}
    ours = {"rain_deploy_compat", "rain_deploy_companion"}
    assert _imported_at_start(python, python.run_dir("start")) - bare == ours


def test_compat_stays_under_forty_lines() -> None:
    assert len((COMPANION / "compat" / "rain_deploy_compat.py").read_text().splitlines()) < 40


def test_the_names_that_python_removed_are_there_once_rain_is_imported(python: NodePython) -> None:
    done = python.run("""
        import collections, collections.abc, time
        print(hasattr(collections, "Mapping"), hasattr(time, "clock"))
        import rain
        print(rain.BASES == (collections.abc.Mapping, collections.abc.MutableSequence),
              rain.CLOCK is time.process_time)""")
    assert done.stdout == "False False\nTrue True\n", done.stderr


def test_localhost_7210_is_the_clusters_server_and_other_addresses_stay(python: NodePython) -> None:
    done = python.run(ASK, RAIN_DEPLOY_SERVER="10.1.2.3:7231")
    assert done.stdout == "('10.1.2.3', '7231') ('10.1.2.3', '7231') ('localhost', 7211) ('10.0.0.1', 7210)\n"


def test_without_a_server_the_client_is_rains_own(python: NodePython) -> None:
    assert python.run(ASK).stdout.startswith("('localhost', 7210) ('127.0.0.1', '7210') ")


def test_the_companions_directory_is_not_left_on_the_path(python: NodePython) -> None:
    done = python.run("import sys; print(sys.path)", python.run_dir("path"))
    assert str(python.site) not in done.stdout
    assert "lib/python3" in done.stdout


@pytest.mark.parametrize("fault", ["", "syntax error here"])
def test_a_missing_or_broken_companion_is_as_none(python: NodePython, tmp_path: Path, fault: str) -> None:
    if fault:
        (tmp_path / "rain_deploy_companion.py").write_text(fault)
    done = python.run(ASK, RAIN_DEPLOY_COMPANION=str(tmp_path), RAIN_DEPLOY_SCRIPT="1")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_that_is_not_the_script_gets_no_hooks(python: NodePython) -> None:
    done = python.run(
        "import sys; print([type(finder).__name__ for finder in sys.meta_path])",
        python.run_dir("executor"),
        RAIN_DEPLOY_SCRIPT="",
    )
    assert "RainFinder" in done.stdout
    assert "ImportHooks" not in done.stdout
