"""What the companion cannot do as asked costs as little as possible, and the user reads what and why."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rain_deploy.node.files import write_json
from rain_deploy.node.run import load_run
from tests.unit.companion_python import FAULT, NodePython


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> NodePython:
    return NodePython.make(tmp_path_factory.mktemp("node"))


@pytest.fixture
def run(python: NodePython, request: pytest.FixtureRequest) -> Path:
    return python.run_dir(request.node.name)


def figures(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "figures").glob("*"))


def warnings(run: Path) -> tuple[str, ...]:
    """As they stand in the state of a run that has ended."""
    write_json(run / "run.json", {"run": run.name, "sequence": 1, "port": 7230, "script": "script.py"})
    loaded = load_run(run)
    assert loaded
    return loaded.finish("done").warnings


PLAIN = "import matplotlib.pyplot as plt\n"
DRAWN_PLAINER = {
    "LaTeX that is not there": (
        "plt.rcParams['text.usetex'] = True\nplt.plot([1])\nplt.title(r'$x^2$')\nplt.show()",
        "without LaTeX, because drawing it as it is failed: RuntimeError: Failed to process string with tex",
    ),
    "LaTeX in one text": (
        "plt.title('x', usetex=True)\nplt.show()",
        "without LaTeX, because drawing it as it is failed: RuntimeError: Failed to process string with tex",
    ),
    "LaTeX and no formula": (
        "plt.title(r'$\\frac{1}{2$', usetex=True)\nplt.show()",
        "with its formulas as plain text, because drawing it as it is failed: RuntimeError",
    ),
    "a formula that is none": (
        "plt.title(r'$\\frac{1}{2$')\nplt.show()",
        "with its formulas as plain text, because drawing it as it is failed: ValueError: ",
    ),
}


@pytest.mark.parametrize("what", DRAWN_PLAINER)
def test_a_figure_that_cannot_be_drawn_as_it_is_is_drawn_plainer(
    python: NodePython, run: Path, what: str
) -> None:
    text, says = DRAWN_PLAINER[what]
    done = python.run(PLAIN + text, run, PATH="/nowhere")
    assert (done.returncode, done.stderr) == (0, "")
    assert figures(run) == ["01.png", "01.svg"]
    (warning,) = warnings(run)
    assert warning.startswith(f"a figure is kept {says}")


def test_the_scripts_own_texts_stay_as_they_were(python: NodePython, run: Path) -> None:
    done = python.run(
        PLAIN
        + "text = plt.title('x', usetex=True); f = plt.gcf(); f.show()\n"
        + "print(text.get_usetex(), text.get_parse_math(), plt.rcParams['text.usetex'])",
        run,
        PATH="/nowhere",
    )
    assert done.stdout == "True True False\n"


def test_a_figure_that_cannot_be_drawn_at_all_is_named_with_the_reason(python: NodePython, run: Path) -> None:
    text = "class Bad(plt.Line2D):\n    def draw(self, renderer): raise KeyError('of the script')\n"
    done = python.run(PLAIN + text + "plt.gca().add_line(Bad([0], [0]))\nplt.show()\nprint('on')", run)
    assert (done.returncode, done.stdout) == (0, "on\n")
    assert figures(run) == []
    assert warnings(run)[0] == "keeping an open figure failed: KeyError: 'of the script'"


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("figures.py", "    save, show ="),
        ("figures.py", "    path.parent.mkdir"),
        ("figures.py", "import atexit"),
    ],
)
def test_each_fault_of_the_companion_is_a_warning(
    python: NodePython, run: Path, module: str, line: str
) -> None:
    site = python.broken_site(module, line)
    done = python.run(PLAIN + "plt.plot([1])\nplt.show()\nprint('on')", run, RAIN_DEPLOY_COMPANION=site)
    assert (done.returncode, done.stdout) == (0, "on\n")
    assert any(FAULT in warning and " failed: RuntimeError" in warning for warning in warnings(run))


def test_the_same_fault_is_reported_once_and_faults_without_end_are_bounded(
    python: NodePython, run: Path
) -> None:
    python.run(
        "import rain_deploy_companion as c\n"
        "for n in range(200):\n"
        "    with c.FailOpen('doing'): raise ValueError('the same')\n"
        "    with c.FailOpen(f'doing {n}'): raise ValueError('x' * 10**6)\n",
        run,
        PYTHONPATH=str(python.site),
    )
    found = warnings(run)
    assert found[0] == "doing failed: ValueError: the same"
    assert len(found) == len(set(found)) <= 20
    assert sum(map(len, found)) < 8000


def test_a_warning_that_cannot_be_written_is_printed_once(python: NodePython, run: Path) -> None:
    (run / "companion").write_text("")
    text = "import rain_deploy_companion as c\nfor n in range(3):\n    c.warn('the sweep is not protected')\n"
    done = python.run(text, run, PYTHONPATH=str(python.site))
    assert (done.returncode, done.stderr) == (0, "rain-deploy: the sweep is not protected\n")


def test_a_run_directory_that_cannot_be_written_is_one_warning_that_nothing_is_protected(
    python: NodePython, run: Path
) -> None:
    (run / "companion").write_text("")
    text = (
        "from unittest.mock import MagicMock\nfrom rain_deploy_companion.journal import session\n"
        "session.hook_client(MagicMock())\n"
    )
    done = python.run(text, run, PYTHONPATH=str(python.site))
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("rain-deploy: the sweep is not protected: the journal failed (")


def test_a_run_without_a_fault_has_no_warning(python: NodePython, run: Path) -> None:
    python.run(PLAIN + "plt.plot([1]); plt.show()", run)
    assert warnings(run) == ()


WAITS = {
    "waitforbuttonpress": ("print(plt.waitforbuttonpress())", "None\n"),
    "ginput": ("print(plt.ginput(3, timeout=-1))", "[]\n"),
    "ginput with a timeout": ("print(plt.gcf().ginput(1, timeout=600))", "[]\n"),
    "pause for ever": ("plt.pause(0)", ""),
    "a canvas": ("plt.gcf().canvas.start_event_loop()", ""),
    "a manual label": (
        "import sys, io; sys.stdout = io.StringIO(); plt.contour([[1, 2], [3, 4]]).clabel(manual=True)",
        "",
    ),
}


@pytest.mark.parametrize("what", WAITS)
def test_what_waits_for_a_click_ends_at_once_and_says_why(python: NodePython, run: Path, what: str) -> None:
    text, printed = WAITS[what]
    done = python.run(f"{PLAIN}plt.plot([1])\n{text}\n", run)
    assert (done.returncode, done.stdout) == (0, printed), done.stderr
    assert done.stderr.startswith(
        "rain-deploy: the script waits for a click or a key in a figure; nodes have no"
    )
    assert "01.png" in figures(run)
    assert len(warnings(run)) == 1


def test_a_pause_takes_its_time(python: NodePython, run: Path) -> None:
    began = time.monotonic()
    done = python.run(PLAIN + "plt.plot([1])\nplt.pause(1.5)", run)
    assert (done.stderr, warnings(run)) == ("", ())
    assert time.monotonic() - began > 1.5
