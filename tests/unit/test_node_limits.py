"""What ends a run early: its timeout, its cost cap, the time limit of its machine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rain_deploy.node.files import write_json
from rain_deploy.node.lives import Lives
from rain_deploy.node.run import Run
from rain_deploy.node.service.limits import PULLED_S, Limits
from rain_deploy.node.wire import CostCap, RunDescription

CAP = CostCap(seconds=100.0, words="--max-cost 2.00 CHF")


def limits(
    tmp_path: Path, ran_s: float | None, *, timeout_s: float | None = None, cap: CostCap | None = None
) -> Limits:
    about = RunDescription(run="r1", sequence=1, port=1, script="s.py", timeout_s=timeout_s, cap=cap)
    begun_s = None if ran_s is None else time.clock_gettime(time.CLOCK_BOOTTIME) - ran_s
    write_json(tmp_path / "lives.json", Lives(begun_s=begun_s))
    return Limits(Run(tmp_path, about), machine=tmp_path)


def test_a_run_without_limits_goes_on(tmp_path: Path) -> None:
    assert limits(tmp_path, 1e6).reached() is None


@pytest.mark.parametrize(("ran_s", "over"), [(None, False), (99.0, False), (101.0, True)])
def test_a_run_ends_when_it_has_cost_what_it_may(tmp_path: Path, ran_s: float | None, over: bool) -> None:
    reached = limits(tmp_path, ran_s, cap=CAP).reached()
    assert reached == (("limit", "--max-cost 2.00 CHF is reached") if over else None)


def test_the_timeout_has_words_of_its_own(tmp_path: Path) -> None:
    reached = limits(tmp_path, 101.0, timeout_s=100.0, cap=CAP).reached()
    assert reached == ("timeout", "the script did not end within 100 s")


@pytest.mark.parametrize(
    ("left_s", "over"),
    [
        (PULLED_S + 10, False),
        (PULLED_S - 10, True),
        (-1.0, True),
        (-1e9, False),  # the machine was started after its limit, for its results
    ],
)
def test_a_run_ends_before_its_machine_does(tmp_path: Path, left_s: float, over: bool) -> None:
    it = limits(tmp_path, 1.0)
    (tmp_path / "limit").write_text(f"{time.time() + left_s:.0f}\n")
    reached = it.reached()
    assert (reached and reached[0]) == ("limit" if over else None)


def test_a_limit_that_is_moved_is_read_again(tmp_path: Path) -> None:
    it = limits(tmp_path, 1.0)
    (tmp_path / "limit").write_text(f"{time.time() + 10:.0f}\n")
    assert it.reached()
    for moved in ("none\n", "", f"{time.time() + 3600:.0f}\n"):
        (tmp_path / "limit").write_text(moved)
        it.looked_s = None
        assert it.reached() is None
