"""zones, types and check where machines cost money: read, priced, and nothing is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.core.machine import Machines
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import ApiError, InputError
from rain_deploy.verbs.check import check
from rain_deploy.verbs.list import types, zones
from tests.unit.fake_cloud import World

SPEC = ClusterSpec("one", "exoscale", "test", nodes=2)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


def test_the_accounts_own_zone_is_reported(world: World) -> None:
    assert [(zone.name, zone.default) for zone in zones(world.ctx, SPEC).zones] == [
        ("here", True),
        ("there", False),
    ]


def test_types_are_of_the_zone_that_is_named_else_of_the_accounts_own(world: World) -> None:
    told = types(world.ctx, SPEC)
    assert (told.zone, told.source, [kind.name for kind in told.types]) == ("here", "a table", ["small"])
    assert types(world.ctx, replace(SPEC, machines=Machines(zone="there"))).zone == "there"


def test_what_costs_nothing_has_neither_zones_nor_types(world: World) -> None:
    world.cloud.priced = False
    for ask in (zones, types):
        with pytest.raises(InputError, match="neither zones nor instance types"):
            ask(world.ctx, SPEC)


def test_check_tells_price_quota_and_hour_and_asks_no_machine(world: World) -> None:
    result = check(world.ctx, SPEC)
    told = "\n".join(line.text for line in result.findings)
    assert result.problem is None
    assert "2 x small" in told
    assert "2.00 CHF per hour" in told
    assert "quota left: no limit" in told
    assert "powers itself off at" in told
    assert (world.cloud.held, world.nodes.asked) == ({}, [])
    assert world.store.clusters() == ()


def test_check_tells_what_up_would_refuse(world: World) -> None:
    world.cloud.silent = True
    result = check(world.ctx, SPEC)
    assert [(line.state, line.text) for line in result.findings] == [("refused", "the API does not answer")]
    assert isinstance(result.problem, ApiError)
