"""What machines have cost, and the hour at which a sum is spent."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rain_deploy.core.bill import Meter
from rain_deploy.core.money import close_meters, cost_so_far, limit_of, open_meter, per_hour_now

HOUR_S = 3600.0
RUNNING = Meter("node-1", "a", 0.0, 2.0)
GONE = Meter("node-2", "b", 0.0, 4.0, until_s=HOUR_S / 2)


def test_each_machine_costs_from_its_first_second_to_its_last() -> None:
    assert cost_so_far((RUNNING, GONE), 3 * HOUR_S) == pytest.approx(3 * 2.0 + 0.5 * 4.0)
    assert per_hour_now((RUNNING, GONE)) == 2.0
    assert cost_so_far((RUNNING,), -5.0) == 0.0, "a clock that went back earns nothing"


def test_a_machine_has_one_meter_however_often_it_is_made_again() -> None:
    once = open_meter((), "node-1", "a", 10.0, 1.0)
    assert open_meter(once, "node-1", "a", 20.0, 9.0) == once
    assert len(open_meter(once, "node-1", "b", 20.0, 1.0)) == 2, "another machine in its place"


def test_a_meter_that_rests_is_not_moved_again() -> None:
    closed = close_meters((RUNNING, GONE), {"node-1", "node-2", "node-9"}, HOUR_S)
    assert [meter.until_s for meter in closed] == [HOUR_S, HOUR_S / 2]
    assert close_meters((RUNNING,), (), HOUR_S) == (RUNNING,)


def test_the_earlier_of_time_and_money_is_the_limit() -> None:
    assert limit_of(100.0, ttl_s=50.0) == 150.0
    assert limit_of(100.0, ttl_s=math.inf) is None
    by_cost = limit_of(100.0, ttl_s=math.inf, max_cost=10.0, spent=4.0, per_hour_all=3.0)
    assert by_cost == pytest.approx(100.0 + 2 * HOUR_S)
    assert limit_of(100.0, ttl_s=60.0, max_cost=10.0, spent=4.0, per_hour_all=3.0) == 160.0
    assert limit_of(100.0, ttl_s=60.0, max_cost=10.0, spent=11.0, per_hour_all=3.0) == 100.0


@given(
    max_cost=st.floats(0.01, 1e6),
    spent=st.floats(0, 1e6),
    rate=st.floats(0.001, 1e3),
    ttl_s=st.floats(0, 1e8),
)
def test_machines_that_run_to_their_limit_never_cost_more_than_was_allowed(
    max_cost: float, spent: float, rate: float, ttl_s: float
) -> None:
    limit_s = limit_of(0.0, ttl_s=ttl_s, max_cost=max_cost, spent=spent, per_hour_all=rate)
    assert limit_s is not None
    assert limit_s <= ttl_s
    cost = spent + cost_so_far((Meter("node-1", "a", 0.0, rate),), limit_s)
    assert cost <= max(max_cost, spent) * (1 + 1e-9)
