"""The command line of machines that cost money: who pays, for what, until when, and what is left over."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path

import pytest

from rain_deploy.cli.show import text
from rain_deploy.core.machine import Machines
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.text import hour
from rain_deploy.errors import ApiError
from tests.unit.fake_application import QUOTE, UP, World

CLOUD_FLAGS = {
    "--zone": "ch-gva-2",
    "--instance-type": "cpu.huge",
    "--disk-size": "50",
    "--template": "Debian",
    "--ttl": "90m",
    "--idle": "60m",
    "--max-cost": "12.5",
    "--allow-ip": "203.0.113.7",
}
MACHINES = Machines(
    zone="ch-gva-2",
    instance_type="cpu.huge",
    disk_size_gib=50,
    template="Debian",
    anti_affinity=True,
    idle_s=3600,
)
ASKED = (MACHINES, ("203.0.113.7/32",), 5400, 12.5, True)


def asked(spec: ClusterSpec) -> tuple[object, ...]:
    return (spec.machines, spec.allow_ip, spec.ttl_s, spec.max_cost, spec.keep_partial)


VERBS = {"up": (), "check": (), "sweep": ("job.py",)}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").touch()
    return World(tmp_path / "home")


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_rented_is_set_by_flags(world: World, verb: str) -> None:
    words = [word for pair in CLOUD_FLAGS.items() for word in pair]
    words += ["--anti-affinity", "--keep-partial", *VERBS[verb]]
    result = world.invoke(verb, "--provider", "exoscale", *words)
    assert (result.exit_code, result.stderr.splitlines()[0]) == (
        0,
        "provider exoscale: named on the command line or in the environment",
    )
    spec = world.last()[0]
    assert (spec.provider, asked(spec)) == ("exoscale", ASKED)


def test_what_is_rented_is_set_by_the_environment(world: World) -> None:
    flags = {flag.removeprefix("--").upper().replace("-", "_"): value for flag, value in CLOUD_FLAGS.items()}
    switches = {"PROVIDER": "exoscale", "ANTI_AFFINITY": "1", "KEEP_PARTIAL": "1"}
    world.environ = {f"RAIN_DEPLOY_{name}": value for name, value in (flags | switches).items()}
    world.invoke("up")
    assert asked(world.last()[0]) == ASKED


def test_a_flag_comes_before_the_file_and_switches_of_the_file_stay(world: World, tmp_path: Path) -> None:
    (tmp_path / "rain-deploy.toml").write_text(
        'provider = "exoscale"\nzone = "ch-dk-2"\nttl = "2h"\nallow_ip = ["192.0.2.1"]\nanti_affinity = true',
        encoding="utf-8",
    )
    world.invoke("up", "--zone", "ch-gva-2", "--allow-ip", "203.0.113.7", "--allow-ip", "2001:db8::/64")
    spec = world.last()[0]
    assert (spec.machines.zone, spec.ttl_s, spec.machines.anti_affinity) == ("ch-gva-2", 7200, True)
    assert spec.allow_ip == ("203.0.113.7/32", "2001:db8::/64")


def test_no_time_limit_is_a_word(world: World) -> None:
    world.invoke("up", "--provider", "exoscale", "--ttl", "none")
    assert world.last()[0].ttl_s == math.inf


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("provider", ["local", "hosts"])
@pytest.mark.parametrize("flag", [*CLOUD_FLAGS, "--anti-affinity"])
def test_machines_that_are_not_rented_are_never_powered_off_and_refuse_what_would(
    world: World, verb: str, provider: str, flag: str
) -> None:
    words = [flag, CLOUD_FLAGS[flag]] if flag in CLOUD_FLAGS else [flag]
    hosts = ["--hosts", "me@a"] if provider == "hosts" else []
    result = world.invoke(verb, "--provider", provider, *hosts, *words, *VERBS[verb])
    assert (result.exit_code, world.verbs.calls) == (10, [])
    assert f"error[RD10]: {flag}: only for machines that rain-deploy rents; those of provider {provider}" in (
        result.stderr
    )
    assert "never powered off" in result.stderr


def test_a_file_about_rented_machines_serves_this_machine_too(world: World, tmp_path: Path) -> None:
    (tmp_path / "rain-deploy.toml").write_text('ttl = "12h"\nzone = "ch-gva-2"', encoding="utf-8")
    assert world.invoke("up", "--provider", "local").exit_code == 0


def test_ssh_for_the_whole_world_is_told_aloud(world: World) -> None:
    words = ("up", "--provider", "exoscale", "--allow-ip", "0.0.0.0/0", "--allow-ip", "::/0")
    result = world.invoke(*words)
    assert result.stderr.splitlines() == [
        "provider exoscale: named on the command line or in the environment",
        "SSH will be open to EVERY ADDRESS: 0.0.0.0/0 and ::/0",
    ]
    assert "EVERY" not in world.invoke(*words[:3], "--allow-ip", "10.0.0.0/8").stderr


def test_credentials_choose_the_provider_where_somebody_can_object(world: World) -> None:
    world.credentials = "EXOSCALE_API_KEY is set"
    world.interactive = True
    said = "provider exoscale: no provider given, and its credentials were found: EXOSCALE_API_KEY is set\n"
    assert world.invoke("up").stderr == said
    assert world.last()[0].provider == "exoscale"
    world.verbs.calls.clear()
    for words in (("up", "--yes"), ("sweep", "--yes", "job.py")):
        assert world.invoke(*words).exit_code == 2
    world.interactive = False
    result = world.invoke("up")
    assert (result.exit_code, world.verbs.calls) == (2, [])
    assert "next: add --provider local, or --provider exoscale\n" in result.stderr


def test_check_and_a_dry_run_need_nobody_to_object(world: World) -> None:
    world.credentials = "found"
    assert (world.invoke("check").exit_code, world.last()[0].provider) == (0, "exoscale")
    assert (world.invoke("up", "--dry-run").exit_code, world.last()[0].provider) == (0, "exoscale")


def test_up_says_what_is_paid_and_until_when(world: World) -> None:
    limit_s = time.time() + 43_000
    world.verbs.up_result = dataclasses.replace(UP, provider="exoscale", quote=QUOTE, limit_s=limit_s)
    shown = world.invoke("up", "--provider", "exoscale").stdout
    assert (
        f"\n0.0989 CHF per hour, 0.0056 CHF while powered off; time limit {hour(limit_s, time.time())}\n"
        in shown
    )
    world.verbs.up_result = dataclasses.replace(UP, quote=QUOTE)
    shown = world.invoke("up", "--provider", "exoscale").stdout
    assert "while powered off; no time limit: it costs until you delete it\n" in shown


def test_status_and_list_say_the_cost_so_far_and_the_hour(world: World) -> None:
    world.verbs.cost, world.verbs.limit_s = 1.234, time.time() + 3700
    said = hour(world.verbs.limit_s, time.time())
    shown = world.invoke("status").stdout.splitlines()[1]
    assert shown == f"cost so far 1.23 CHF; 0.0989 CHF per hour; time limit {said}"
    head, line = world.invoke("list").stdout.splitlines()
    assert " ".join(head.split()) == "CLUSTER PROVIDER NODES CREATED COST TIME LIMIT RUN"
    assert ("2 running" in line, f"1.23 CHF  {text.moment(world.verbs.limit_s)}" in line) == (True, True)


@pytest.mark.parametrize("words", [("run", "job.py"), ("run", "-d", "job.py"), ("attach",)])
def test_run_says_the_hour(world: World, words: tuple[str, ...]) -> None:
    limit_s = time.time() + 3700
    world.verbs.run_result = dataclasses.replace(world.verbs.run_result, limit_s=limit_s)
    assert f"cluster default: {text.limit(limit_s)}\n" in world.invoke(*words).stdout


@pytest.mark.parametrize("words", [("down",), ("sweep", "--provider", "exoscale", "job.py")])
def test_the_end_tells_what_it_cost(world: World, words: tuple[str, ...]) -> None:
    world.verbs.cost = 0.75
    last = world.invoke(*words).stdout.splitlines()[-1]
    assert last == "cluster default is down, 1.5 s; it cost 0.75 CHF"


def test_an_error_says_what_goes_on_costing(world: World) -> None:
    world.living("exoscale", limit_s=time.time() + 3700)
    world.verbs.error = ApiError("no answer")
    shown = world.invoke("status").stderr
    assert "still running: cluster default: node-1, node-2 (0.0989 CHF per hour; time limit " in shown
    assert "); remove it with: rain-deploy down\n" in shown


def test_then_off_is_for_rented_machines(world: World) -> None:
    world.living("exoscale")
    assert (world.invoke("run", "--then-off", "job.py").exit_code, world.last()[1].then_off) == (0, True)
    world.living("local")
    world.verbs.calls.clear()
    result = world.invoke("run", "--then-off", "job.py")
    assert (result.exit_code, world.verbs.calls) == (10, [])
    assert "--then-off: only for machines that rain-deploy rents" in result.stderr
    assert world.invoke("run", "job.py").exit_code == 0


def test_types_are_a_table_with_prices_and_their_source(world: World, tmp_path: Path) -> None:
    (tmp_path / "rain-deploy.toml").write_text("[prices]\nstandard.medium = 0.05", encoding="utf-8")
    result = world.invoke("types", "--zone", "de-fra-1")
    assert result.stdout.splitlines() == [
        "TYPE             CPUS   MEMORY  GPUS    PER HOUR    PER DAY  NOTE",
        "standard.medium     2    4 GiB        0.0467 CHF   1.12 CHF",
        "standard.micro      1  0.5 GiB                 ?          ?",
        "gpu3.small         12   56 GiB     1    1.30 CHF  31.20 CHF  not for this account here",
        "zone de-fra-1; prices without disk: prices of 2025-08-22",
    ]
    (spec,) = world.last()
    assert (spec.provider, spec.machines.zone, spec.prices) == (
        "exoscale",
        "de-fra-1",
        (("standard.medium", 0.05),),
    )


def test_zones_show_which_is_the_account_s_own(world: World) -> None:
    assert world.invoke("zones").stdout == "ZONE      NOTE\nch-dk-2\nch-gva-2  default\n"


def test_gc_is_a_dry_run_and_says_how_it_is_none(world: World) -> None:
    result = world.invoke("gc")
    assert result.stdout.splitlines() == [
        "CLUSTER  ID    OWNER  STATE   ACTION     WHY",
        "mine     ab12  ada    in use  kept       it lives",
        "old      cd34  ada    left    to delete  not in state",
        "far      ef56  ada    left    kept       of another machine",
        "to delete: instance node-1 of old (cd34)",
        "to delete: security-group group of old (cd34)",
        "to remove it: rain-deploy gc --delete -c far",
        "dry run; nothing was deleted; to delete: rain-deploy gc --delete",
    ]
    assert world.last()[1:] == (None, False)
    named = world.invoke("gc", "-c", "old").stdout.splitlines()[-1]
    assert named == "dry run; nothing was deleted; to delete: rain-deploy gc --delete -c old"


def test_gc_knows_whether_a_cluster_was_named(world: World) -> None:
    for words, named in (
        ((), None),
        (("-c", "far"), "far"),
        (("-c", "default"), "default"),
    ):
        world.invoke("gc", "--delete", *words)
        assert world.last()[1:] == (named, True)
    world.environ = {"RAIN_DEPLOY_CLUSTER": "far"}
    world.invoke("gc")
    assert world.last()[1:] == ("far", False)


def test_gc_owner_is_that_of_the_file(world: World, tmp_path: Path) -> None:
    (tmp_path / "rain-deploy.toml").write_text('owner = "ada"', encoding="utf-8")
    world.invoke("gc")
    assert world.last()[0].owner == "ada"


def test_gc_of_what_could_not_be_deleted_ends_with_60(world: World) -> None:
    stuck = dataclasses.replace(world.verbs.found[1], action="not deleted", reason="in use")
    world.verbs.found = (stuck,)
    result = world.invoke("gc", "--delete")
    assert (result.exit_code, "not deleted: instance node-1 of old (cd34)\n" in result.stdout) == (60, True)
    assert "dry run" not in result.stdout


def test_gc_of_an_empty_account(world: World) -> None:
    world.verbs.found = ()
    assert world.invoke("gc").stdout == "the account holds nothing of rain-deploy\n"
    of_one = "the account holds nothing of rain-deploy for cluster mine\n"
    assert world.invoke("gc", "-c", "mine").stdout == of_one
    world.verbs.found = World(world.home).verbs.found[:1]
    assert world.invoke("gc").stdout.endswith("dry run; there is nothing to delete\n")


def test_scale_says_what_came(world: World) -> None:
    world.living("exoscale")
    result = world.invoke("scale", "2")
    assert result.stdout.splitlines()[:2] == [
        "cluster default has 2 nodes now, 1 before, 12 s",
        "added: node-2",
    ]
    spec, nodes = world.last()
    assert (spec.provider, spec.nodes, nodes) == ("exoscale", 2, 2)
    last = result.stdout.splitlines()[-1]
    assert last == "costs 0.0989 CHF per hour; no time limit: it costs until you delete it"
    assert world.invoke("scale", "1").stdout.splitlines()[0] == "cluster default has 1 node as before"


def test_scale_is_of_the_provider_that_the_cluster_has(world: World, tmp_path: Path) -> None:
    (tmp_path / "rain-deploy.toml").write_text('provider = "local"\nnodes = 1', encoding="utf-8")
    world.living("exoscale")
    world.invoke("scale", "2")
    assert (world.last()[0].provider, world.last()[0].nodes) == ("exoscale", 2)


def test_extend_says_the_new_hour(world: World) -> None:
    result = world.invoke("extend", "90m", "-c", "mine")
    assert world.last() == ("mine", 5400)
    first, *rest = result.stdout.splitlines()
    assert first.startswith("cluster mine: time limit ")
    assert first.endswith(("(in 1 h 30 min)", "(in 1 h 29 min)"))
    assert rest == ["costs 0.0989 CHF per hour", "updated node-1, node-2"]
    assert "no time limit: it costs until" in world.invoke("extend", "none").stdout
    assert world.last() == ("default", None)
