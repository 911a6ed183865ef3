"""What machines have cost, and the hour at which a sum is spent."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rain_deploy.core.cluster import Bill, Meter
from rain_deploy.core.machine import Machines
from tests.support.values import QUOTE

HOUR_S = 3600.0
RUNNING = Meter("node-1", "a", 0.0, 2.0)
GONE = Meter("node-2", "b", 0.0, 4.0, until_s=HOUR_S / 2)


def test_each_machine_costs_from_its_first_second_to_its_last() -> None:
    bill = Bill(QUOTE, meters=(RUNNING, GONE))
    assert bill.cost(3 * HOUR_S) == pytest.approx(3 * 2.0 + 0.5 * 4.0)
    assert bill.per_hour == 2.0
    assert Bill(QUOTE, meters=(RUNNING,)).cost(-5.0) == 0.0, "a clock that went back earns nothing"


def test_a_machine_has_one_meter_however_often_it_is_made_again() -> None:
    once = Bill(QUOTE).opened("node-1", "a", 10.0, 11.0)
    assert once.meters == (Meter("node-1", "a", 10.0, QUOTE.per_hour),)
    assert once.opened("node-1", "a", 20.0, 21.0) == once
    another = once.opened("node-1", "b", 15.0, 30.0)
    assert another.meters == (
        Meter("node-1", "a", 10.0, QUOTE.per_hour, until_s=30.0),
        Meter("node-1", "b", 30.0, QUOTE.per_hour),
    ), "another machine in its place: the intent that was recorded is that of the first"


def test_a_meter_that_has_ended_is_not_moved_again() -> None:
    bill = Bill(QUOTE, meters=(RUNNING, GONE))
    closed = bill.closed({"node-1", "node-2", "node-9"}, HOUR_S)
    assert [meter.until_s for meter in closed.meters] == [HOUR_S, HOUR_S / 2]
    assert bill.closed((), HOUR_S) == bill


def limit_of(ttl_s: float | None, max_cost: float | None = None, spent: float = 0.0) -> float | None:
    """At second 100, with machines that cost 3.0 an hour."""
    paid = (Meter("node-9", "z", 0.0, HOUR_S * spent, until_s=1.0),)
    limit_s = None if ttl_s is None else 100.0 + ttl_s
    bill = Bill(QUOTE, meters=paid, max_cost=max_cost, ttl_limit_s=limit_s)
    return bill.limit_at(100.0, per_hour=3.0)


def test_the_earlier_of_time_and_money_is_the_limit() -> None:
    assert limit_of(50.0) == 150.0
    assert limit_of(None) is None
    assert limit_of(None, max_cost=10.0, spent=4.0) == pytest.approx(100.0 + 2 * HOUR_S)
    assert limit_of(60.0, max_cost=10.0, spent=4.0) == 160.0
    assert limit_of(60.0, max_cost=10.0, spent=11.0) == 100.0


@given(max_cost=st.floats(0.01, 1e6), rate=st.floats(0.001, 1e3), ttl_s=st.floats(0, 1e8))
def test_machines_that_run_to_their_limit_never_cost_more_than_was_allowed(
    max_cost: float, rate: float, ttl_s: float
) -> None:
    bill = Bill(QUOTE, meters=(Meter("node-1", "a", 0.0, rate),), max_cost=max_cost, ttl_limit_s=ttl_s)
    limit_s = bill.limit_at(0.0)
    assert limit_s is not None
    assert limit_s <= ttl_s
    assert bill.cost(limit_s) <= max_cost * (1 + 1e-9)


def test_a_limit_has_passed_from_its_second_on() -> None:
    bill = replace(Bill(QUOTE), limit_s=10.0)
    assert (bill.passed(9.9), bill.passed(10.0), Bill(QUOTE).passed(10.0)) == (False, True, False)


def test_a_quote_says_the_size_of_a_machine_and_fills_in_what_was_left_open() -> None:
    assert QUOTE.size == "1 CPU, 1 GiB, 20 GiB of disk"
    filled = QUOTE.settings(Machines(zone="elsewhere", anti_affinity=True, ssh_port=2222))
    assert filled == Machines("zone", "small", 20, "Debian", anti_affinity=True, ssh_port=2222)
