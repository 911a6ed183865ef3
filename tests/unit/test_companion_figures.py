"""Figures: whatever a script shows or saves lies in ``figures/`` in order, and the script notices nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.companion_python import NodePython

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> NodePython:
    return NodePython.make(tmp_path_factory.mktemp("node"))


@pytest.fixture
def run(python: NodePython, request: pytest.FixtureRequest) -> Path:
    return python.run_dir(request.node.name)


def _figures(run: Path) -> list[str]:
    """Names in figures/, after a look at each: a whole PNG or SVG."""
    files = sorted((run / "figures").glob("*")) if (run / "figures").exists() else []
    for file in files:
        content = file.read_bytes()
        whole = (
            content.startswith(PNG) and b"IEND" in content[-12:]
            if file.suffix == ".png"
            else (b"<svg" in content and content.rstrip().endswith(b"</svg>"))
        )
        assert whole, file
    return [file.name for file in files]


def _numbers(*numbers: int) -> list[str]:
    return [f"{number:02}.{kind}" for number in numbers for kind in ("png", "svg")]


@pytest.mark.parametrize(
    ("starts", "backend"),
    [
        (["import matplotlib; matplotlib.use('TkAgg')"], ""),
        (
            [
                "",
                "matplotlib.use('QtAgg')",
                "plt.switch_backend('WXAgg')",
                "plt.rcParams['backend'] = 'TkAgg'",
            ],
            "GTK3Agg",
        ),
    ],
)
def test_a_script_that_wants_a_screen_gets_its_figures_without_one(
    python: NodePython, run: Path, starts: list[str], backend: str
) -> None:
    script = "".join(
        f"{start}\nimport matplotlib, matplotlib.pyplot as plt\nfrom pylab import show\n"
        f"plt.plot([1, {i}])\nprint(show(), plt.get_fignums())\n"
        for i, start in enumerate(starts)
    )
    done = python.run(script, run, "-Werror", MPLBACKEND=backend)
    assert (done.stdout, done.stderr) == ("None []\n" * len(starts), "")
    assert _figures(run) == _numbers(*range(1, len(starts) + 1))


def test_shown_saved_and_open_figures_come_in_order_and_unchanged_ones_once(
    python: NodePython, run: Path
) -> None:
    done = python.run(
        """
        import io, matplotlib.pyplot as plt
        from matplotlib.figure import Figure
        fig, ax = plt.subplots()
        ax.plot([1, 2])
        fig.savefig("own.pdf", bbox_inches="tight", dpi=300)  # 01
        plt.show()                                            # as it was saved
        target = io.BytesIO()
        ax.set_title("changed")
        fig.savefig(target, format="svg")                     # 02
        print(len(target.getvalue()) > 1000)
        Figure().savefig("plain.png")                         # 03, of no pyplot
        first, second = plt.figure(), plt.figure()
        first.text(0.1, 0.1, "a")
        first.show()                                          # 04
        plt.show(block=False)                                 # 05: second, both stay open
        print(plt.get_fignums(), plt.gcf() is second)
        first.text(0.5, 0.5, "b")                             # 06, at exit
        raise SystemExit(3)
        """,
        run,
        "-Werror",
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "True\n[1, 2] True\n", "")
    assert _figures(run) == _numbers(1, 2, 3, 4, 5, 6)
    assert (run / "files" / "own.pdf").read_bytes().startswith(b"%PDF")
    assert (run / "files" / "plain.png").read_bytes().startswith(PNG)


def test_a_blocking_show_closes_what_it_showed_as_a_user_would(python: NodePython, run: Path) -> None:
    done = python.run(
        """
        import matplotlib.pyplot as plt
        fig = plt.figure()
        fig.canvas.mpl_connect("close_event", lambda event: print("closed"))
        plt.show()
        plt.ion()
        plt.figure()
        plt.show()
        print(plt.get_fignums())
        """,
        run,
    )
    assert done.stdout == "closed\n[1]\n"
    assert _figures(run) == _numbers(1, 2)


def test_frames_of_animations_are_no_figures(python: NodePython, run: Path) -> None:
    done = python.run(
        """
        import matplotlib.pyplot as plt
        from matplotlib.animation import FuncAnimation, PillowWriter
        fig, ax = plt.subplots()
        line, = ax.plot([0, 1])
        for i in range(5):
            line.set_ydata([i, 1])
            plt.pause(0.001)
        FuncAnimation(fig, lambda i: line.set_ydata([1, i]), 5).save("film.gif", PillowWriter())
        """,
        run,
    )
    assert done.returncode == 0, done.stderr
    assert _figures(run) == _numbers(1)


def test_a_script_that_raises_leaves_its_open_figures_and_its_own_traceback(
    python: NodePython, run: Path
) -> None:
    done = python.run("import matplotlib.pyplot as plt\nplt.plot([1])\nraise ValueError('mine')\n", run)
    assert done.returncode == 1
    assert re.fullmatch(
        r"""Traceback \(most recent call last\):
  File "[^"]*script.py", line 3, in <module>
    raise ValueError\('mine'\)
ValueError: mine
""",
        done.stderr,
    )
    assert _figures(run) == _numbers(1)


def test_a_child_process_adds_its_figures_under_numbers_of_their_own(python: NodePython, run: Path) -> None:
    done = python.run(
        """
        import os, subprocess, sys, matplotlib.pyplot as plt
        plt.plot([1])
        plt.savefig("a.png")
        subprocess.run([sys.executable, "-c", "import matplotlib.pyplot as p; p.plot([2, 1]); p.show()"])
        plt.plot([3, 4])
        if not os.fork():
            sys.exit()  # has its parent's open figure and must not keep it
        os.wait()
        plt.show()
        """,
        run,
    )
    assert done.returncode == 0, done.stderr
    assert _figures(run) == _numbers(1, 2, 3)


def test_errors_of_the_script_stay_its_own(python: NodePython, run: Path) -> None:
    done = python.run(
        """
        import matplotlib, matplotlib.pyplot as plt
        from matplotlib.figure import Figure
        for wrong in (lambda: matplotlib.use("no such backend"), lambda: plt.savefig("no/such/place.png"),
                      lambda: Figure().show()):
            try:
                wrong()
            except Exception as error:
                print(type(error).__name__)
        """,
        run,
    )
    assert done.stdout == "ValueError\nFileNotFoundError\nAttributeError\n", done.stderr
    assert not (run / "companion").exists()


def test_figures_that_look_the_same_are_the_same_bytes(python: NodePython, run: Path) -> None:
    python.run("import matplotlib.pyplot as plt\nfor _ in range(2):\n plt.plot([1, 2])\n plt.show()\n", run)
    assert _figures(run) == _numbers(1, 2)
    assert len({path.read_bytes() for path in (run / "figures").iterdir()}) == 2


def test_without_the_variable_matplotlib_is_as_it_is(python: NodePython, run: Path) -> None:
    done = python.run(
        "import matplotlib.pyplot as plt\nprint(plt.show.__module__)\n", run, RAIN_DEPLOY_FIGURES=""
    )
    assert done.stdout == "matplotlib.pyplot\n"
    assert _figures(run) == []
