"""The forecast of a sweep, against simulated sweeps whose end is known."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from statistics import median

import pytest

from rain_deploy.core.text import HOUR_S
from rain_deploy.results.forecast import Durations, Sweep, forecast, others, used_cpus

Draw = Callable[[random.Random], float]
CPUS, NODES, PER_HOUR = 16, 4, 0.8
DRAWS: dict[str, Draw] = {
    "equal": lambda _: 60.0,
    "uniform": lambda chance: chance.uniform(30.0, 90.0),
    "skewed": lambda chance: chance.lognormvariate(4.0, 0.5),  # the longest takes ten times the shortest
    "exponential": lambda chance: chance.expovariate(1 / 60.0),
}


def ran(durations: list[float], cpus: int) -> list[tuple[float, float]]:
    """Return when each point starts and ends, if each CPU takes the next one when it is free."""
    free = [0.0] * cpus
    spans = []
    for seconds in durations:
        start_s = heapq.heapreplace(free, free[0] + seconds)
        spans.append((start_s, start_s + seconds))
    return spans


def at(spans: list[tuple[float, float]], now_s: float) -> Sweep:
    """Return what is known of these points at a moment."""
    known = Durations()
    for start_s, end_s in spans:
        if end_s <= now_s:
            known.add(end_s - start_s)
    ages = tuple(now_s - start_s for start_s, end_s in spans if start_s <= now_s < end_s)
    waiting = sum(start_s > now_s for start_s, _ in spans)
    return Sweep(known.means(), ages, waiting, CPUS, NODES, PER_HOUR)


@pytest.mark.parametrize("kind", DRAWS)
def test_after_a_quarter_of_the_points_time_and_cost_are_about_right(kind: str) -> None:
    """Time left within 15 %, cost at the end within 10 %: in the middle of 40 sweeps of 1,000 points."""
    times, costs = [], []
    for seed in range(40):
        chance = random.Random(seed)  # noqa: S311
        spans = ran([DRAWS[kind](chance) for _ in range(1000)], CPUS)
        end_s, now_s = max(end for _, end in spans), sorted(end for _, end in spans)[250]
        left = forecast(at(spans, now_s))
        assert left
        times.append(abs(left.seconds - (end_s - now_s)) / (end_s - now_s))
        whole = now_s / HOUR_S * PER_HOUR + left.cost
        costs.append(abs(whole - end_s / HOUR_S * PER_HOUR) / (end_s / HOUR_S * PER_HOUR))
    assert median(times) < 0.15
    assert median(costs) < 0.10
    assert sum(error < 0.15 for error in times) >= 36
    assert sum(error < 0.10 for error in costs) >= 36


def test_points_that_all_take_the_same_are_forecast_to_the_second() -> None:
    spans = ran([10.0] * 20, 4)
    sweep = Sweep(at(spans, 10.5).durations, (0.5,) * 4, 12, 4.0, 2)
    found = forecast(sweep)
    assert found
    assert found.seconds == pytest.approx(39.5, abs=0.5)
    by_nodes = {one.nodes: one.seconds for one in others(sweep)}
    assert set(by_nodes) == {1, 4, 8}
    assert by_nodes[1] == pytest.approx(79.0, abs=10)
    assert by_nodes[4] == pytest.approx(19.5, abs=1)


def test_what_runs_longer_than_all_others_is_waited_for() -> None:
    """Two points are left: one of them has run for 100 s, although all others took 1 s."""
    found = forecast(Sweep([(1.0, 20)], (100.0, 0.0), 0, 4.0))
    assert found
    assert found.seconds >= 0.5
    skewed = forecast(Sweep([(1.0, 10), (200.0, 2)], (100.0,), 0, 4.0))
    assert skewed
    assert skewed.seconds == pytest.approx(100.0)


def test_without_a_finished_point_or_with_nothing_left_there_is_no_forecast() -> None:
    assert forecast(Sweep([], (1.0,), 5, 4.0)) is None
    assert forecast(Sweep([(1.0, 5)], (), 0, 4.0)) is None


def test_a_duration_that_is_taken_out_leaves_nothing() -> None:
    known = Durations()
    for seconds in (0.0, 1.0, 1.01, 3600.0):
        known.add(seconds)
    assert len(known) == 4
    for seconds in (0.0, 1.0, 1.01, 3600.0):
        known.add(seconds, -1)
    assert known.means() == []


def test_a_forecast_costs_the_same_for_any_number_of_points() -> None:
    known = Durations()
    chance = random.Random(1)  # noqa: S311
    for _ in range(20_000):
        known.add(chance.lognormvariate(3, 1))
    assert len(known.means()) < 400


def test_tasks_that_ask_for_two_cpus_run_half_as_many_at_a_time() -> None:
    assert used_cpus(busy_s=200.0, span_s=100.0, mean_s=10.0, cpus=4) == 2.0
    assert used_cpus(busy_s=20.0, span_s=10.0, mean_s=10.0, cpus=4) == 4.0, "too early to know"
    assert used_cpus(busy_s=0.0, span_s=100.0, mean_s=1.0, cpus=4) == 1.0
