"""``rehearse``: what its result says, and the versions that it compares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.node.wire import NeededModule, RehearsedKind
from rain_deploy.options.spec import rehearsal_spec
from rain_deploy.verbs.rehearsal.versions import version_gaps
from tests.unit.fake_application import REHEARSED, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text("")
    return World(tmp_path / "home")


def test_it_says_what_was_tried_and_what_was_not(world: World) -> None:
    world.verbs.rehearsed = replace(REHEARSED, findings=("job.py, line 3 reads x.csv",))
    result = world.invoke("rehearse", "job.py")
    assert result.exit_code == 0
    assert (
        result.stdout
        == """\
rehearsed job.py: 22 tasks, 21 s
TASKS OF  COUNT  TRIED    TOOK  FOUND
load          1  load    1.2 s
train        20  lr=0.1   12 s  all: about 4 min 00 s on one CPU
best          1                 needs results of tasks that were not run
a task's process used at most 812 MiB of memory
job.py, line 31, fetches the result of 'lr=0.2', which was not run
lines 32 to 40 of job.py were not tried
warning: job.py, line 3 reads x.csv
the plan was made twice: all keys are the same, so a second run finds these results again
what a task reads from the network or the clock is kept with its result
"""
    )


def test_it_does_not_promise_that_results_are_found_again_if_they_are_not(world: World) -> None:
    unstable = "job.py, line 9: the argument seed of train differs from run to run (20 tasks)"
    world.verbs.rehearsed = replace(REHEARSED, findings=(unstable,))
    assert "all keys are the same" not in world.invoke("rehearse", "job.py").stdout
    world.verbs.rehearsed = replace(REHEARSED, compared=False)
    assert "all keys are the same" not in world.invoke("rehearse", "job.py").stdout


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"outcome": "failed", "exit_code": 1}, 41, "the rehearsal of job.py failed: exit code 1"),
        (
            {"kinds": (RehearsedKind(name="train", count=2, tried="a=1", error="ValueError: no"),)},
            42,
            "the rehearsal of job.py failed: task a=1 raised ValueError: no",
        ),
        ({"outcome": "engine", "details": "it died"}, 40, "the rehearsal of job.py failed: it died"),
    ],
)
def test_a_rehearsal_that_fails_has_the_exit_code_of_a_run(
    world: World, change: dict[str, object], code: int, message: str
) -> None:
    world.verbs.rehearsed = replace(REHEARSED, **change)  # type: ignore[arg-type]
    result = world.invoke("rehearse", "job.py")
    assert (result.exit_code, message in result.stderr) == (code, True)


def test_its_node_has_the_packages_of_the_cluster_and_nothing_that_costs_or_changes_this_machine() -> None:
    settings = {"nodes": 8, "instance_type": "cpu.huge", "apt": ("gcc",), "packages": ("torch",), "ttl": 9.0}
    spec = rehearsal_spec("a-name-of-thirty-two-letters-too", settings)
    assert (spec.name, spec.provider, spec.nodes) == ("a-name-of-thirty-two-l-rehearsal", "local", 1)
    assert spec.journal == "none"
    assert (spec.environment.packages, spec.environment.apt, spec.ttl_s) == (("torch",), (), None)


def test_versions_that_differ_in_the_first_two_numbers_are_named() -> None:
    lock = "numpy==0.1.5 \\\n    --hash=sha256:ab\npytest==0.1 # a comment\n"
    modules = tuple(
        NeededModule(name=name, where=f"job.py, line {line}", sure=True)
        for line, name in enumerate(("numpy", "no_such_module", "click"), 1)
    )
    (gap,) = version_gaps(modules, lock)
    assert gap.startswith("job.py, line 1, imports numpy: version ")
    assert gap.endswith(" here, 0.1.5 on the nodes")
