"""Inputs of a run as people give them: named by an argument, made at run time, or missing on the nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.local.command_line import LocalCluster


def test_files_and_modules_that_are_not_sent_are_found_by_what_is_printed(
    shared: LocalCluster, tmp_path: Path
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/a.json").write_text("{}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/1.csv").write_text("one")
    (tmp_path / "train.py").write_text(
        "import sys\nprint(open(sys.argv[2]).read())\nfor n in [1]: print(open(f'data/{n}.csv').read())\n"
    )
    words = ("train.py", "--config", "configs/a.json")
    told = shared("run", *words)
    assert told.exit_code == 41
    assert "found but not sent: data/ (1 file, 3 B); to send it: --files data\n" in told.stderr
    assert "next: data/1.csv exists here but was not sent" in told.stderr
    assert "{}\none\n" in shared.well("run", "--files", "data", *words).stdout


def test_a_module_that_the_nodes_lack_is_reported_before_the_run(
    shared: LocalCluster, tmp_path: Path
) -> None:
    before = shared.well("runs", "--json").result["runs"]
    (tmp_path / "sure.py").write_text("open('ran', 'w')\nimport json, no_such_module\n")
    told = shared("run", "sure.py")
    assert told.exit_code == 10
    assert "sure.py, line 2, imports no_such_module" in told.stderr
    assert f"rain-deploy up -c {shared.name} --with no_such_module" in told.stderr
    assert shared.well("runs", "--json").result["runs"] == before
    (tmp_path / "maybe.py").write_text("def f():\n    import no_such_module\n")
    result = shared.well("run", "--json", "maybe.py").result
    assert result["warnings"] == ["maybe.py, line 2, imports no_such_module, which the nodes do not have"]


def test_a_module_that_is_found_only_here_is_named(shared: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "hidden.py").touch()
    (tmp_path / "late.py").write_text("import importlib\nimportlib.import_module('hid' + 'den')\n")
    told = shared("run", "late.py")
    assert "next: hidden.py exists here but was not sent; run again with --files hidden.py" in told.stderr


@pytest.mark.parametrize("flags", [[], ["--no-companion"], ["--env", "PYTHONPATH=/nowhere"]])
def test_tasks_import_the_modules_next_to_the_script(
    shared: LocalCluster, tmp_path: Path, flags: list[str]
) -> None:
    (tmp_path / "code/parts").mkdir(parents=True)
    (tmp_path / "code/helper.py").write_text("from parts.more import TEN\ndef area(x): return TEN * x\n")
    (tmp_path / "code/parts/__init__.py").touch()
    (tmp_path / "code/parts/more.py").write_text("TEN = 10\n")
    (tmp_path / "code/grid.py").write_text(
        "from rain.client import Client, remote\nfrom helper import area\n"
        "@remote(auto_encode='pickle')\ndef own(ctx, x): return area(x)\n"
        "passed = remote(auto_encode='pickle')(lambda ctx, f, x: f(x))\n"
        "with Client('localhost', 7210).new_session('grid') as session:\n"
        "    tasks = [own(1), own(2), passed(area, 3)]\n"
        "    for task in tasks: task.output.keep()\n"
        "    session.submit(); print(*(task.output.fetch().load() for task in tasks))\n"
    )
    assert "10 20 30\n" in shared.well("run", *flags, "code/grid.py").stdout


def test_the_script_and_its_tasks_have_one_thread_unless_it_is_said_otherwise(
    shared: LocalCluster, tmp_path: Path
) -> None:
    names = ["OMP", "OPENBLAS", "MKL", "TF_NUM_INTRAOP", "TF_NUM_INTEROP"]
    variables = [f"{name}_THREADS" if name.startswith("TF") else f"{name}_NUM_THREADS" for name in names]
    (tmp_path / "threads.py").write_text(
        "import os\nfrom rain.client import Client, remote\n"
        f"def threads(): return ' '.join(os.environ.get(name, '-') for name in {variables})\n"
        "@remote()\ndef of_task(ctx): return threads()\n"
        "with Client('localhost', 7210).new_session('threads') as session:\n"
        "    task = of_task(); task.output.keep(); session.submit()\n"
        "    print(threads(), '/', task.output.fetch().get_str())\n"
    )
    assert shared.well("run", "threads.py").stdout.startswith("1 1 1 1 1 / 1 1 1 1 1\n")
    assert shared.well("run", "--env", "OMP_NUM_THREADS=4", "threads.py").stdout.startswith(
        "4 1 1 1 1 / 4 1 1 1 1\n"
    )
