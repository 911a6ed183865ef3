"""``explain`` on real Rain: why a point failed, was not run again, or was computed again."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from tests.local.command_line import LocalCluster

SCRIPT = """\
from rain.client import Client, remote
from rain.common.errors import TaskException

@remote()
def work(ctx, x, seed):
    if x == 2:
        raise ValueError("x is bad")
    return str(x * FACTOR)

with Client("localhost", 7210).new_session("sweep") as session:
    points = [work(x, seed=7, name=f"explained x={x}") for x in range(3)]
    for point in points:
        point.output.keep()
    session.submit()
    for point in points:
        try:
            print(point.output.fetch().get_str())
        except TaskException:
            print("failed")
"""


def run(cluster: LocalCluster, factor: float) -> list[dict[str, str]]:
    """The rows of points.csv."""
    (cluster.line.cwd / "explained.py").write_text(SCRIPT.replace("FACTOR", str(factor)))
    ended = cluster("run", "--json", "explained.py")
    assert ended.exit_code == 42, ended
    with (Path(ended.document["result"]["results_dir"]) / "points.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def explained(cluster: LocalCluster, point: str) -> dict[str, Any]:
    result: dict[str, Any] = cluster.well("explain", "--json", point).result
    return result


def test_a_point_is_explained_by_what_happened_to_it(shared: LocalCluster) -> None:
    first = run(shared, 1.5)
    assert [(row["state"], row["cached"]) for row in first] == [
        *[("finished", "False")] * 2,
        ("failed", "False"),
    ]
    failed = explained(shared, "x=2")
    assert (failed["number"], failed["arguments"]) == (3, {"x": 2, "seed": 7})
    assert failed["error"].rstrip().endswith("ValueError: x is bad")
    assert "line 7, in work" in failed["error"]
    assert explained(shared, "1")["why"] == ["it was executed: no result of it was stored before"]

    again = run(shared, 1.5)
    assert [row["cached"] for row in again] == ["True", "True", "False"]
    assert [row["value"] for row in again] == [row["value"] for row in first] == ["0.0", "1.5", ""]
    assert explained(shared, "1")["why"] == ["its result was in the journal: nothing was executed"]

    run(shared, 2.5)
    (why,) = explained(shared, "1")["why"]
    assert why.startswith("it was executed: the result that is kept from run ")
    assert why.endswith(" has another function")
