"""Packages of earlier commands that a new resolution drops are named: it replaces, it does not add."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

from rain_deploy.cluster.seen import look
from rain_deploy.core.events import Notice
from rain_deploy.core.spec import ClusterSpec, EnvironmentSpec
from rain_deploy.providers.base import Provider
from tests.unit.test_flow_run import World, world

__all__ = ["world"]


def test_packages_that_are_no_longer_asked_for_are_named(world: World) -> None:
    ctx = replace(world.ctx, provider_for=lambda _name: cast("Provider", SimpleNamespace(cloud=None)))

    def dropped(*packages: str) -> list[str]:
        spec = ClusterSpec("one", "hosts", "", environment=EnvironmentSpec(packages=packages))
        world.seen.clear()
        look(ctx, spec, preflight=False)
        said = [event.text for event in world.seen if isinstance(event, Notice)]
        return [text for text in said if text.startswith("no longer installed")]

    assert dropped("toml", "iniconfig") == []
    (sentence,) = dropped("iniconfig")
    assert sentence.startswith("no longer installed: toml; to keep them, repeat the --with")
    assert dropped("iniconfig") == []
    assert dropped("iniconfig", "toml") == []
    assert dropped() == []
