"""Prices: the table with its date, and what the user's config file says instead."""

from __future__ import annotations

import pytest

from rain_deploy.providers.exoscale.catalog import prices
from tests.support.values import cluster_spec


def test_a_machine_costs_its_type_and_its_disk() -> None:
    running, _ = prices(cluster_spec()).hourly("standard.medium", 20) or (0, 0)
    assert running == pytest.approx(0.04666 + 20 * 0.00014)


def test_a_stopped_machine_still_costs_its_disk() -> None:
    _, stopped = prices(cluster_spec()).hourly("standard.medium", 50) or (0, 0)
    assert stopped == pytest.approx(0.007)


def test_the_table_says_how_old_it_is_and_that_nobody_checked() -> None:
    source = prices(cluster_spec()).source("standard.medium")
    assert "2025-08-22" in source
    assert "unverified for today" in source


def test_an_own_price_is_used_and_its_source_told() -> None:
    table = prices(cluster_spec(prices=(("gpu3.small", 0.9),)))
    assert table.hourly("gpu3.small", 100) == pytest.approx((0.9 + 0.014, 0.014))
    assert table.source("gpu3.small").endswith("gpu3.small from the config file")
    assert "config file" not in table.source("standard.medium")
    both = prices(cluster_spec(prices=(("gpu3.small", 0.9), ("disk", 0.001))))
    assert both.source("gpu3.small") == "the config file"


def test_a_type_without_a_price_has_none() -> None:
    assert prices(cluster_spec()).hourly("gpu3.small", 100) is None


def test_the_table_s_figures_are_for_three_currencies_and_for_no_other() -> None:
    assert prices(cluster_spec()).currency == "CHF"
    assert prices(cluster_spec(currency="EUR")).hourly("standard.medium", 20) is not None
    foreign = prices(cluster_spec(currency="JPY", prices=(("standard.medium", 7.0),)))
    assert foreign.table == {"standard.medium": 7.0}
    assert foreign.hourly("standard.medium", 20) is None  # nobody knows what a disk costs in it
