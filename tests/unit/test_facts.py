"""Facts of a host: the question as a real shell answers it, and what follows from a base that it tells."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.cluster.machines import choose_base
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.layout import ROOT_BASE
from rain_deploy.core.machine import Facts, Host
from rain_deploy.parts.facts import DEBIAN_12, facts_command, parse_facts

HOST = Host("node-1", "127.0.0.1", 22, "me", ())
CLUSTER = Cluster("ab12", "default", "hosts", 0.0)


def ask(**variables: str) -> Facts:
    answered = subprocess.run(
        facts_command(HOST, "ab12").argv,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return parse_facts(HOST, answered.stdout)


def test_the_base_of_its_environment_is_told_and_searched_for_what_is_there(tmp_path: Path) -> None:
    base = tmp_path / "the base"
    engine = base / "cache/engine/00/rain"
    engine.parent.mkdir(parents=True)
    engine.touch()
    facts = ask(RAIN_DEPLOY_BASE=str(base))
    assert facts.base == str(base)
    assert str(engine) in facts.have
    assert ask().base == ""


def test_no_variable_makes_a_host_one_of_our_machines(tmp_path: Path) -> None:
    for name in ("mark", "one-time-host-key"):
        (tmp_path / name).touch()
    facts = ask(RAIN_DEPLOY_MACHINE=str(tmp_path))
    assert (facts.marked, facts.one_time_host_key) == (False, False)


@pytest.mark.parametrize(
    ("told", "chosen"), [(("/b", "/b"), "/b"), (("/b", "/c"), ROOT_BASE), (("/b", ""), ROOT_BASE)]
)
def test_the_base_that_all_tell_is_taken(told: tuple[str, str], chosen: str) -> None:
    hosts = tuple(replace(HOST, name=f"node-{n}") for n in (1, 2))
    facts = {host.name: replace(DEBIAN_12, base=base) for host, base in zip(hosts, told, strict=True)}
    assert choose_base(CLUSTER, hosts, facts) == chosen
    own = (replace(hosts[0], base="/provider"), hosts[1])
    assert choose_base(CLUSTER, own, facts) == "/provider"
    assert choose_base(replace(CLUSTER, base="/recorded"), hosts, facts) == "/recorded"
