"""The plan of machines that cost: it only reads, and what it names is what `up` then makes."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.account import CLUSTER, Account, Home
from tests.faults.conftest import cloud, me
from tests.support.values import changed

__all__ = ["cloud", "me"]

MADE_BY = {
    "register-ssh-key": "ssh-key",
    "create-security-group": "security-group",
    "create-anti-affinity-group": "anti-affinity-group",
    "create-instance": "instance",
}


def plan(home: Home, *words: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(home.well("up", "--dry-run", "--json", *words).out)["result"]
    return value


def made(cloud: Account) -> list[str]:
    """Kinds with the node's name where it is one, in the order of making."""
    requests = [request for request in cloud.lab.log if request.operation in MADE_BY]
    names = [request.json.get("labels", {}).get("rain-deploy-node", "") for request in requests]
    return [
        f"{MADE_BY[request.operation]} {name}".strip() for request, name in zip(requests, names, strict=True)
    ]


def without_names(creates: list[str]) -> list[str]:
    return [create if create.startswith("instance ") else create.partition(" ")[0] for create in creates]


@pytest.mark.parametrize("words", [("--nodes", "4"), ("--nodes", "9", "--anti-affinity"), ()])
def test_the_plan_only_reads_and_names_all_that_is_then_made(
    me: Home, cloud: Account, words: tuple[str, ...]
) -> None:
    planned = plan(me, *words)
    assert {request.method for request in cloud.lab.log} == {"GET"}
    assert cloud.ours() == []
    me.well("up", *words)
    assert sorted(without_names(planned["creates"])) == sorted(made(cloud))
    me.goes_down()


def test_the_plan_of_more_nodes_names_only_those_that_are_missing(me: Home, cloud: Account) -> None:
    me.well("up", "--nodes", "2")
    before = len(made(cloud))
    assert plan(me)["creates"] == []
    planned = plan(me, "--nodes", "3")
    assert planned["creates"] == ["instance node-3"]
    me.well("up", "--nodes", "3")
    assert made(cloud)[before:] == planned["creates"]
    me.goes_down()


def test_the_plan_says_price_limit_and_what_opens(me: Home) -> None:
    planned = plan(me, "--nodes", "4")
    told = "\n".join(planned["offer"])
    for word in ("standard.medium", "Debian 12", "per hour", "per day", "2025-08-22", "powers itself off at"):
        assert word in told
    assert planned["quote"]["per_hour"] * 4 == pytest.approx(4 * (0.04666 + 20 * 0.00014))
    assert "SSH" in told
    assert "to nobody else" in told


# ---- `up` prints the plan that it executes


def new(_: Home, __: Account) -> tuple[str, ...]:
    return ("--nodes", "3")


def grown(me: Home, _: Account) -> tuple[str, ...]:
    me.well("up", "--nodes", "2")
    return ("--nodes", "3")


def one_missing(me: Home, cloud: Account) -> tuple[str, ...]:
    me.well("up", "--nodes", "3")
    cloud.delete_by_console(everything=False)
    return ()


def limit_passed(me: Home, _: Account) -> tuple[str, ...]:
    me.well("up", "--nodes", "2")
    past_s = time.time() - 60
    me.store.update_cluster(CLUSTER, lambda now: changed(now, limit_s=past_s, ttl_limit_s=past_s))
    return ()


def without_hours(sentences: list[str]) -> list[str]:
    """The hours of two commands may be a minute apart."""
    return [re.sub(r"\b[0-9]{2}:[0-9]{2}\b", "HH:MM", sentence) for sentence in sentences]


@pytest.mark.parametrize(("before", "creates"), [(new, 5), (grown, 1), (one_missing, 1), (limit_passed, 0)])
def test_up_prints_the_plan_that_it_executes(
    before: Callable[[Home, Account], tuple[str, ...]], creates: int, me: Home, cloud: Account
) -> None:
    words = before(me, cloud)
    cloud.lab.log.clear()
    planned = plan(me, *words)
    assert made(cloud) == []
    done = me.well("up", *words)
    printed = without_hours([line.strip() for line in done.err.splitlines()])
    offered = without_hours(planned["offer"])
    assert offered, "each of these must be agreed to"
    assert [line for line in printed if line in offered] == offered
    assert len(planned["creates"]) == creates
    assert sorted(without_names(planned["creates"])) == sorted(made(cloud))
    assert plan(me)["creates"] == plan(me)["offer"] == [], "now it is as it was planned"
    me.goes_down()
