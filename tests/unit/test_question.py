"""The question before money is spent ends with the total and the hour."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rain_deploy.cluster.plan import plan_up
from rain_deploy.core.cluster import Bill
from rain_deploy.core.text import HOUR_S, clock
from tests.support.values import QUOTE
from tests.unit.test_plan import NOW_S, PROVIDER, Situation, seen_by, situation


def limited(here: Situation, limit_s: float) -> Situation:
    bill = Bill(QUOTE, account="k", ttl_limit_s=limit_s)
    return replace(here, cluster=replace(here.cluster, bill=bill))


@pytest.mark.parametrize(
    ("record", "nodes", "settings", "hours", "asked"),
    [
        ("none", 2, {}, 12, "Create 2 machines, 2.00 CHF/hour in all: at most 24.00 CHF until {}?"),
        ("none", 1, {"ttl_s": HOUR_S}, 1, "Create 1 machine, 1.00 CHF/hour in all: at most 1.00 CHF"),
        ("none", 2, {"max_cost": 6.0}, 3, "Create 2 machines, 2.00 CHF/hour in all: at most 6.00 CHF"),
        (
            "none",
            2,
            {"ttl_s": float("inf")},
            0,
            "Create 2 machines, 2.00 CHF/hour in all: WITHOUT a time",
        ),
        ("whole", 3, {}, 4, "Create 1 machine, 3.00 CHF/hour in all: at most 12.00 CHF until {}?"),
    ],
)
def test_the_question_ends_with_the_most_that_is_spent(
    record: str, nodes: int, settings: dict[str, Any], hours: float, asked: str
) -> None:
    here = situation(record, "running" if record == "whole" else "nothing", 2)
    if record == "whole":
        here = limited(here, NOW_S + hours * HOUR_S)
    seen = seen_by(here, nodes)
    plan = plan_up(PROVIDER, replace(seen, spec=replace(seen.spec, **settings)))
    assert plan.question.startswith(asked.format(clock(NOW_S + hours * HOUR_S, NOW_S)))
    assert len(plan.question) <= 80 - len(" [y/N]:")
