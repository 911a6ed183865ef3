"""``run``: an unedited script behaves on the cluster as on the laptop, and what it made comes home."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.local.bare_rain import BareRain
from tests.local.command_line import LocalCluster
from tests.local.conftest import Installation
from tests.local.scripts import SQUARES, WAITS
from tests.support.processes import kill
from tests.support.results import verify

ALL_SORTS = [
    "two words",
    "",
    "'q' \"d\"",
    "$HOME `id` $(id)",
    ";&|",
    "grün 雨",
    "new\nline",
    "--json",
    "-c",
    "--",
]


@pytest.mark.smoke
def test_what_a_script_prints_is_shown_while_it_runs(shared: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(WAITS)
    run = shared.start("run", "waits.py", str(tmp_path / "go"))
    run.wait_for("begun\n")  # the script goes on only now: nothing but the line itself can have brought it
    assert (run.stdout, run.process.poll()) == ("begun\n", None)
    (tmp_path / "go").touch()
    told = run.ended()
    assert (told.exit_code, told.stdout.partition("run ")[0]) == (0, "begun\ngone on\n")


@pytest.mark.smoke
def test_a_script_prints_what_it_prints_on_bare_rain(
    shared: LocalCluster, bare_rain: BareRain, tmp_path: Path
) -> None:
    script = tmp_path / "squares.py"
    script.write_text(SQUARES + "import sys; print('warned', file=sys.stderr)\n")
    bare = bare_rain.run(script)
    assert bare.stdout.splitlines() == [str(x * x) for x in range(20)]
    out = shared.run("squares.py")
    assert ((out / "stdout.log").read_text(), (out / "stderr.log").read_text()) == (bare.stdout, bare.stderr)
    rows = json.loads((out / "points.json").read_text())
    assert [row["parameters"] for row in rows] == [{"x": x} for x in range(20)]
    assert {row["node"] for row in rows} == {"node-1", "node-2"}


def test_results_are_laid_out_as_promised_and_verify(shared: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "makes.py").write_text(
        SQUARES
        + "import matplotlib; matplotlib.use('TkAgg')\n"
        + "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()\n"
        + "import pathlib; pathlib.Path('deep/er').mkdir(parents=True)\n"
        + "pathlib.Path('deep/er/made.txt').write_text('made'); pathlib.Path('top.txt').write_text('top')\n"
    )
    told = shared.well("run", "--json", "makes.py", "a")
    out = Path(told.result["results_dir"])
    assert out == tmp_path / "results" / told.result["run"]
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {
        "stdout.log",
        "stderr.log",
        "points.csv",
        "points.json",
        "points.jsonl",
        "details.jsonl",
        "report.html",
        "figures/01.png",
        "figures/01.svg",
        "files/deep/er/made.txt",
        "files/top.txt",
        "manifest.json",
    }
    assert (told.result["figures"], told.result["points"], told.result["files"]) == (1, 20, 2)
    assert told.stderr.count("361\n") == 1  # with --json the script's output goes there
    assert verify(out) == ()
    described = json.loads((out / "manifest.json").read_text())
    kept = ("script", "args", "exit_code", "outcome", "nodes", "complete")
    assert [described[key] for key in kept] == ["makes.py", ["a"], 0, "done", ["node-1", "node-2"], True]
    (out / "files/top.txt").write_text("other")
    assert verify(out) == ("files/top.txt: its content differs",)


def test_arguments_standard_input_and_variables_are_as_on_the_laptop(
    shared: LocalCluster, tmp_path: Path
) -> None:
    (tmp_path / "tells.py").write_text(
        "import json, os, sys\n"
        "print(json.dumps([sys.argv, sys.stdin.read(), os.environ['A'], os.environ['B'], __name__]))"
    )
    env = ("--env", "A", "--env", "B=one = 1")
    out = shared.run(*env, "tells.py", *ALL_SORTS, env={"A": "mine ö"})
    told = json.loads((out / "stdout.log").read_text())
    assert told == [["tells.py", *ALL_SORTS], "", "mine ö", "one = 1", "__main__"]


def test_variables_reach_the_tasks_too(shared: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(
        SQUARES.replace(
            "return str(x * x)", "import os; return os.environ['A'] + os.environ['OMP_NUM_THREADS']"
        )
    )
    out = shared.run("--env", "A=ö b", "tasks.py")
    assert (out / "stdout.log").read_text() == "ö b1\n" * 20
    out = shared.run("--env", "A=", "--env", "OMP_NUM_THREADS=2", "tasks.py")
    assert (out / "stdout.log").read_text() == "2\n" * 20


def test_modules_and_files_beside_the_script_go_with_it_as_they_are_now(
    shared: LocalCluster, tmp_path: Path
) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "inner.py").write_text("import sibling\nWORD = sibling.WORD\n")
    (tmp_path / "main.py").write_text(
        "from package.inner import WORD\n"
        "text = open('data/text.txt').read()\n"
        "print(WORD, text)\nopen('data/text.txt', 'w').write(text + ', changed')\n"
    )
    (tmp_path / "data").mkdir()
    for word in ("first", "second"):
        (tmp_path / "sibling.py").write_text(f"WORD = {word!r}\n")
        (tmp_path / "data" / "text.txt").write_text(f"text of the {word}")
        out = shared.run("main.py")
        assert (out / "stdout.log").read_text() == f"{word} text of the {word}\n"
        assert (out / "files/data/text.txt").read_text() == f"text of the {word}, changed"
        assert sorted(path.name for path in (out / "files").rglob("*")) == ["data", "text.txt"]
        assert (tmp_path / "data" / "text.txt").read_text() == f"text of the {word}"


def test_other_files_go_with_it_when_they_are_named(shared: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "more" / "deep").mkdir(parents=True)
    (tmp_path / "more" / "deep" / "1.txt").write_text("one")
    (tmp_path / "reads.py").write_text(
        "import pathlib\nfor n in range(1, 2): print(pathlib.Path('more', 'deep', f'{n}.txt').read_text())"
    )
    out = shared.run("--files", "more", "--out", "given place", "reads.py")
    assert out == tmp_path / "given place"
    assert (out / "stdout.log").read_text() == "one\n"
    assert not (tmp_path / "results").exists()


@pytest.mark.smoke
def test_a_script_that_raises_leaves_pythons_own_traceback_and_all_it_had_made(
    shared: LocalCluster, installation: Installation, tmp_path: Path
) -> None:
    script = tmp_path / "raises.py"
    script.write_text("open('made.txt', 'w').write('made')\ndef f():\n    return 1 / 0\nprint('on')\nf()\n")
    here = subprocess.run(
        [installation.env / "bin/python", "raises.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert here.returncode == 1
    (tmp_path / "made.txt").unlink()
    told = shared("run", "--json", "raises.py")
    assert (told.exit_code, told.result["exit_code"], told.result["outcome"]) == (41, 1, "failed")
    out = Path(told.result["results_dir"])
    assert (out / "stderr.log").read_text() == here.stderr.replace(f"{tmp_path}/", "")  # as the user knows it
    assert "ZeroDivisionError: division by zero\n" in told.stderr
    assert (out / "files/made.txt").read_text() == "made"
    assert verify(out) == ()


@pytest.mark.parametrize(
    ("line", "exit_code"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 15)", -15), ("sys.exit('why')", 1)]
)
def test_the_scripts_own_exit_code_is_reported(
    shared: LocalCluster, tmp_path: Path, line: str, exit_code: int
) -> None:
    (tmp_path / "ends.py").write_text(f"import os, sys; print('said'); {line}")
    told = shared("run", "--json", "ends.py")
    assert (told.exit_code, told.result["exit_code"]) == (41, exit_code)
    assert (Path(told.result["results_dir"]) / "stdout.log").read_text() == "said\n"


def test_a_script_that_dies_of_a_task_says_that_a_point_failed(shared: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text(SQUARES.replace("return str(x * x)", "return str(1 / (x - 3))"))
    told = shared("run", "--json", "fails.py")
    assert (told.exit_code, told.result["exit_code"]) == (42, 1)
    assert "division by zero" in (Path(told.result["results_dir"]) / "stderr.log").read_text()


def test_a_run_that_takes_too_long_is_ended(shared: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(WAITS)
    told = shared("run", "--json", "--timeout", "1s", "waits.py", str(tmp_path / "never"))
    assert (told.exit_code, told.result["outcome"]) == (43, "timeout")
    out = Path(told.result["results_dir"])
    assert [path.name for path in (out / "files").iterdir()] == ["early.txt"]
    assert (out / "stdout.log").read_text() == "begun\n"


def test_without_the_companion_rain_is_bare(shared: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text(SQUARES + "import os; print(os.environ.get('RAIN_DEPLOY_COMPANION'))")
    out = shared.run("--no-companion", "bare.py")
    assert (out / "stdout.log").read_text().splitlines()[-2:] == ["361", "None"]


def test_a_run_leaves_no_process_and_no_variables_of_its_own(shared: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text(
        "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)"
    )
    shared.run("--env", "SECRET=s3cret", "leaves.py")
    assert shared.processes(None, "job") == {}
    shared.await_governors(2)
    assert list(shared.directory.rglob("env.json")) == []


def test_without_the_companion_a_script_that_is_killed_has_failed(
    shared: LocalCluster, tmp_path: Path
) -> None:
    (tmp_path / "ends.py").write_text("import os; os.kill(os.getpid(), 9)")
    told = shared("run", "--json", "--no-companion", "ends.py")
    assert (told.exit_code, told.result["exit_code"], told.result["outcome"]) == (41, -9, "failed")


def test_without_the_companion_a_governor_that_is_killed_in_mid_run_ends_it(
    shared: LocalCluster, tmp_path: Path
) -> None:
    (tmp_path / "long.py").write_text(
        SQUARES.replace("time.sleep(0.05)", "time.sleep(60)").replace(
            "session.submit()", "session.submit(); print('on')"
        )
    )
    run = shared.start("run", "--json", "--no-companion", "long.py")
    run.wait_for("on\n")
    kill(*shared.processes(2, "governor"))
    told = run.ended()
    assert (told.exit_code, told.result["outcome"]) == (40, "engine")
    assert "node-2" in told.error["message"]
    shared.await_governors(2)


def test_a_run_goes_on_after_the_loss_of_a_governor_and_says_so(shared: LocalCluster, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = SQUARES.replace("time.sleep(0.05)", f"time.sleep(0 if os.path.exists({str(mark)!r}) else 60)")
    begin = f"import os, sys; print('on'); print(os.path.exists({str(mark)!r})); open('made', 'w').close()\n"
    (tmp_path / "long.py").write_text(begin + script)
    run = shared.start("run", "long.py")
    run.wait_for("False\n")
    mark.touch()
    kill(*shared.processes(2, "governor"))
    told = run.ended()
    assert told.exit_code == 0, told
    assert (
        told.stderr.count("node-2 was lost (the connection to its governor closed); attempt 2 starts\n") == 1
    )
    assert told.stderr.count("attempt 2 prints something else; its stdout starts again\n") == 1
    out = next((tmp_path / "results").iterdir())
    assert told.stdout.startswith("on\nFalse\n" + (out / "stdout.log").read_text())
    assert (out / "attempts/1/stdout.log").read_text() == "on\nFalse\n"
    assert {path.name for path in (out / "attempts/1/files").iterdir()} == {"made"}
    assert json.loads((out / "manifest.json").read_text())["attempts"] == 2
    assert verify(out) == ()
