"""What is changed between two runs is computed again, and nothing else: on real Rain, by real runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.local.command_line import LocalCluster

SWEEP = """\
import os, random
import of_tasks
from rain.client import Client, remote
from pathlib import Path

DATA = Path(__file__).parent / "of_tasks.csv"

def executed(name):
    with open(os.environ["MARKS"], "a") as file:
        file.write(name + "\\n")

def scaled(x):
    return x * 2

@remote(auto_encode="pickle")
def point(ctx, x):
    executed(f"x={x}")
    return [scaled(x), of_tasks.VERSION, DATA.read_text(), os.environ["LEVEL"]]

@remote(auto_encode="pickle")
def draw(ctx, bound=1):
    executed("draw" if bound == 1 else "chance")
    return random.random() * bound

with Client("localhost", 7210).new_session("sweep") as session:
    points = [point(x, name=f"x={x}") for x in range(2)]
    draws = [draw() for _ in range(5)]
    chance = draw(random.random())
    for task in (*points, *draws, chance):
        task.output.keep()
    session.submit()
    print([task.output.fetch().load() for task in points])
    print([task.output.fetch().load() for task in draws])
    chance.output.fetch()
"""
POINTS, DRAWS, CHANCE = ["x=0", "x=1"], ["draw"] * 5, ["chance"]


class Sweep:
    """The files of the sweep, and what a run of it printed and executed."""

    def __init__(self, cluster: LocalCluster, place: Path) -> None:
        self._cluster, self._marks = cluster, place / "marks"
        self.here = cluster.line.cwd
        self.script = self.here / "changes.py"
        self.script.write_text(SWEEP)
        (self.here / "of_tasks.py").write_text("VERSION = 1\n")
        (self.here / "of_tasks.csv").write_text("one")

    def edit(self, before: str, after: str) -> None:
        text = self.script.read_text()
        assert text.count(before) == 1
        self.script.write_text(text.replace(before, after))

    def run(self, level: str = "low") -> tuple[list[str], list[str]]:
        """Return the lines that the script printed, and the tasks that were executed."""
        self._marks.write_text("")
        options = ("--env", f"MARKS={self._marks}", "--env", f"LEVEL={level}")
        ended = self._cluster.well("run", "--json", *options, self.script.name)
        self.changed = re.findall(r"(.+) changed: results that were kept before do not fit", ended.stderr)
        results = Path(ended.result["results_dir"])
        return (results / "stdout.log").read_text().splitlines(), sorted(self._marks.read_text().split())


@pytest.fixture
def sweep(shared: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return Sweep(shared, tmp_path_factory.mktemp("marks"))


def test_only_what_is_changed_is_computed_again_and_nothing_stale_is_used(sweep: Sweep) -> None:
    first, ran = sweep.run()
    assert ran == sorted(POINTS + DRAWS + CHANCE)
    assert len(set(first[1].split(", "))) == 5

    sweep.edit("def scaled(x):", "# a comment\n\ndef scaled(x):")
    assert sweep.run() == (first, CHANCE)

    sweep.edit("return x * 2", "return x * 3")
    scaled, ran = sweep.run()
    assert (scaled[1], ran) == (first[1], sorted(POINTS + CHANCE))
    assert "[3, 1, 'one', 'low']" in scaled[0]

    sweep.edit("range(2)", "range(3)")
    assert (sweep.run()[1], sweep.changed) == (sorted(["x=2", *CHANCE]), [])

    (sweep.here / "of_tasks.py").write_text("VERSION = 2\n")
    helper, ran = sweep.run()
    assert "[3, 2, 'one', 'low']" in helper[0]
    assert (len(ran), sweep.changed) == (9, ["of_tasks.py"])

    (sweep.here / "of_tasks.csv").write_text("two")
    assert "[3, 2, 'two', 'low']" in sweep.run()[0][0]
    assert sweep.changed == ["of_tasks.csv"]
    assert "[3, 2, 'two', 'high']" in sweep.run("high")[0][0]
    assert sweep.changed == ["--env"]

    sweep.script = sweep.script.rename(sweep.here / "renamed.py")
    assert len(sweep.run("high")[1]) == 9
