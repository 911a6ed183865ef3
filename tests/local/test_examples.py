"""The examples of the repository, as their readers run them."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from tests.local.bare_rain import BareRain
from tests.local.command_line import LocalCluster
from tests.support.results import verify

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples"
TRAINING_S = 1400.0
"""Of 20 trainings on a machine that does other things as well."""
SIZES, DROPOUTS = (32, 64, 128, 256), (0.0, 0.2, 0.4, 0.6, 0.8)


def heatmap_and_20_points(out: Path, nodes: int) -> list[float]:
    """The accuracies, after a look at what both searches bring home from so many nodes."""
    assert verify(out) == ()
    assert [path.name for path in sorted((out / "figures").iterdir())] == ["01.png", "01.svg"]
    with (out / "points.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [(int(row["size"]), float(row["dropout"])) for row in rows] == [
        (size, dropout) for size in SIZES for dropout in DROPOUTS
    ]
    assert {row["node"] for row in rows} == {f"node-{index}" for index in range(1, nodes + 1)}
    return [float(row["value"]) for row in rows]


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.timeout(3000)
def test_digits_prints_what_it_prints_on_bare_rain(
    shared: LocalCluster, bare_rain: BareRain, tmp_path: Path
) -> None:
    (tmp_path / "digits.py").write_bytes((EXAMPLES / "digits.py").read_bytes())
    out = shared.run("digits.py", timeout_s=TRAINING_S)
    accuracies = heatmap_and_20_points(out, nodes=2)
    printed = (out / "stdout.log").read_text()
    assert [line.rpartition(" ")[2] for line in printed.splitlines()] == [f"{a:.3f}" for a in accuracies]
    # Each training starts from the same seed, so a corner of the grid tells as much as all of it.
    script = (EXAMPLES / "digits.py").read_text()
    for grid, corner in (("[32, 64, 128, 256]", "[32, 256]"), ("[0.0, 0.2, 0.4, 0.6, 0.8]", "[0.0, 0.8]")):
        assert script.count(grid) == 1
        script = script.replace(grid, corner)
    (tmp_path / "corner.py").write_text(script)
    bare = bare_rain.run(tmp_path / "corner.py", TRAINING_S).stdout.splitlines()
    assert bare == [line for line in printed.splitlines() if line in bare]
    assert len(bare) == 4


@pytest.mark.smoke
def test_programs_and_their_data_go_with_the_script(shared: LocalCluster, tmp_path: Path) -> None:
    cluster = LocalCluster(shared.line.at(REPOSITORY), shared.name)
    words = ("--files", "examples/execute", "--out", str(tmp_path / "out"), "examples/execute.py")
    out = cluster.run(*words)
    text = (EXAMPLES / "execute" / "text.txt").read_text().lower()
    counted = dict(line.split(maxsplit=1) for line in (out / "stdout.log").read_text().splitlines()[:5])
    assert list(counted) == ["rain", "river", "road", "wheel", "snow"]
    for word, told in counted.items():
        assert int(told.split()[0]) == text.count(word), word
    assert verify(out) == ()


def test_the_configuration_that_explains_every_key_works_as_it_stands(
    shared: LocalCluster, tmp_path: Path
) -> None:
    (tmp_path / "seed.py").write_text("import os; print(os.environ['SEED'])")
    config = ("--config", str(EXAMPLES / "rain-deploy.toml"))
    assert (shared.run(*config, "seed.py") / "stdout.log").read_text() == "1\n"
    before = shared.at_rest()
    shared.well("up", *config, "--cpus-per-node", str(max(1, (os.cpu_count() or 2) // 2)))
    assert shared.processes() == before
