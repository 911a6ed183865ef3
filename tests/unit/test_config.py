"""rain-deploy.toml, environment and flags become one spec, and every mistake is named with its key."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.core.machine import Machines
from rain_deploy.core.spec import ClusterSpec, RunSpec
from rain_deploy.errors import InputError, UsageError
from rain_deploy.options.kinds import HOSTS, duration_s
from rain_deploy.options.spec import (
    KEYS,
    Settings,
    checked,
    choose_provider,
    cluster_spec,
    load,
    merged,
    refuse_rented,
    run_spec,
)
from rain_deploy.options.table import OPTIONS

EXAMPLE = Path(__file__).parents[2] / "examples" / "rain-deploy.toml"
LOCAL = ("local", "named")


def toml(directory: Path, text: str) -> Path:
    path = directory / "rain-deploy.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_nothing_is_said(tmp_path: Path) -> None:
    assert load(None, tmp_path) == {}


def test_the_file_beside_the_user_is_found_and_its_paths_are_its_own(tmp_path: Path) -> None:
    toml(tmp_path, 'nodes = 3\nrequirements = "r.txt"\nwith = ["scipy<2", "./a.whl"]\ntimeout = "2h"')
    said = load(None, tmp_path)
    assert said == {
        "nodes": 3,
        "requirements": tmp_path / "r.txt",
        "packages": ("scipy<2", tmp_path / "a.whl"),
        "timeout": 7200,
    }


def test_the_example_loads_and_explains_every_key(tmp_path: Path) -> None:
    assert load(EXAMPLE, tmp_path)["nodes"] == 2
    everything = re.sub(r'(?m)^# (?=\[\w+\]|[\w".]+ = )', "", EXAMPLE.read_text(encoding="utf-8"))
    said = load(toml(tmp_path, everything), tmp_path)
    assert set(said) == {option.name for option in KEYS.values()}
    assert not {option.flags[-1] for option in KEYS.values() if option.flags} - {
        *re.findall(r"--[a-z-]+", everything)
    }


def test_every_setting_fills_a_field_or_is_used_by_the_command_line() -> None:
    specs = {"cluster": ClusterSpec("c", *LOCAL), "run": RunSpec(Path("s"))}
    for option in OPTIONS.values():
        for target in option.to.split():
            value: Any = specs
            for name in target.split("."):
                value = value[name] if isinstance(value, dict) else getattr(value, name)
    unfilled = {option.name for option in OPTIONS.values() if not option.to and "*" not in option.verbs}
    assert unfilled == {"provider", "dry_run"}


def test_keywords_of_python_make_the_same_specs(tmp_path: Path) -> None:
    given = checked({"nodes": 2, "ttl": "none", "packages": ["a"], "allow_ip": "10.0.0.1"}, tmp_path)
    spec = cluster_spec("c", LOCAL, given)
    assert (spec.nodes, spec.ttl_s, spec.environment.packages) == (2, math.inf, ("a",))
    assert spec.allow_ip == ("10.0.0.1/32",)
    keywords = checked({"companion": False, "env": {"A": "1"}}, tmp_path)
    run = run_spec(tmp_path / "s.py", ("-x",), keywords, {}, {})
    assert (run.args, run.companion, run.wait, run.env) == (("-x",), False, True, (("A", "1"),))
    with pytest.raises(InputError, match="nodes: expected a whole number from 1 to 1000, got 0"):
        checked({"nodes": 0}, tmp_path)


def test_another_run_is_the_same_and_names_no_secret(tmp_path: Path) -> None:
    keywords = {"files": ["data"], "env": {"A": "1", "B": "2"}, "timeout": "2h", "max_cost": 12.5}
    keywords |= dict.fromkeys(("fail_fast", "replace_lost", "fresh", "detach"), True) | {"companion": False}
    file = checked({"files": ["of_the_file"]}, tmp_path)
    run = run_spec(tmp_path / "s.py", (), checked(keywords, tmp_path), file, {"A": "1", "B": "3"})
    again = f"--files {tmp_path}/data --env A --env B=… --timeout 7200s --max-cost 12.5"
    assert " ".join(run.again) == f"{again} --fail-fast --replace-lost --no-companion"


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("node", "nodes"),
        ("engine.sha", "engine.sha256"),
        ("trust_networks", "trust_network"),
        ("with_", "with"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_valid_one(tmp_path: Path, key: str, nearest: str) -> None:
    path = toml(tmp_path, f"{key} = 1")
    with pytest.raises(
        InputError, match=re.escape(f"{path}: unknown key {key!r}; did you mean {nearest!r}?")
    ):
        load(path, tmp_path)


def test_an_unknown_key_like_no_other_is_refused_with_all_valid_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown key 'xyzzy'; valid keys: allow_ip, anti_affinity, apt, "):
        load(toml(tmp_path, "xyzzy = 1"), tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nodes = 0", "nodes: expected a whole number from 1 to 1000, got 0"),
        ("nodes = 1000000", "nodes: expected a whole number from 1 to 1000, got 1000000"),
        ("nodes = true", "nodes: expected a whole number from 1 to 1000, got True"),
        ('nodes = "2"', "nodes: expected a whole number from 1 to 1000, got '2'"),
        ('provider = "aws"', "provider: expected one of exoscale, hosts, local, got 'aws'"),
        ("provider = 1", "provider: expected a text in quotes, got 1"),
        ('apt = "graphviz"', "apt: expected a list of texts"),
        ('with = ["--index-url=x"]', "with: expected package names or wheel files, not '--index-url=x'"),
        ('timeout = "soon"', "timeout: expected a duration above zero"),
        ("timeout = true", "timeout: expected a duration above zero"),
        ('trust_network = ["10.0.0.1/8"]', "trust_network: expected a network such as"),
        ('trust_network = ["10.0.0.0/33"]', "trust_network: expected a network such as"),
        ('trust_network = ["example.org"]', "trust_network: expected a network such as"),
        ('trust_network = ["10.0.0"]', "trust_network: expected a network such as"),
        ('trust_network = ""', "trust_network: expected a network such as"),
        ('trust_network = [""]', "trust_network: expected a list of texts"),
        ('hosts = ["a", "a"]', "hosts: expected at least one host, and none twice"),
        ('hosts = ["a adress=1.2.3.4"]', "hosts: expected host entries such as"),
        ('hosts = ["a address=1.2.3"]', "hosts: expected an IP address, not '1.2.3'"),
        ("engine.sha256 = 'AB'", "engine.sha256: expected 64 hexadecimal digits"),
        ("env = { A = 1 }", "env: expected a table of texts"),
        ("env = 1", "env: expected a table of texts"),
        ("engine = 1", "unknown key 'engine'"),
        ('ttl = "soon"', 'ttl: expected a duration above zero such as 90, "30s", "60m" or "12h", or "none"'),
        ('idle = "none"', "idle: expected a duration above zero"),
        ("ttl = 5", "ttl: expected a duration of at least 10 minutes; 5 is in seconds, write 5h for hours"),
        ('idle = "30s"', "idle: expected a duration of at least 10 minutes"),
        ("max_cost = -1", "max_cost: expected an amount of money above zero such as 12.50, got -1"),
        ("max_cost = true", "max_cost: expected an amount of money above zero"),
        ("max_cost = inf", "max_cost: expected an amount of money above zero"),
        ("disk_size = 9", "disk_size: expected a whole number from 10 to 51200, got 9"),
        ('zone = "Genève"', "zone: expected a zone such as"),
        ("anti_affinity = 1", "anti_affinity: expected true or false, got 1"),
        ('allow_ip = "me"', "allow_ip: expected a network such as"),
        ("prices = 1", "prices: expected a table of prices per hour"),
        ("prices = { medium = 1 }", "prices: expected a table of prices per hour"),
        ('prices = { "standard.medium" = -1 }', "prices: expected a table of prices per hour"),
        ('prices = { disk = "1" }', "prices: expected a table of prices per hour"),
        ('prices = { currency = "francs" }', "prices: expected a table of prices per hour"),
        ("ssh_port = 70000", "ssh_port: expected a whole number from 1 to 65535"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_and_what_is_expected(
    tmp_path: Path, line: str, said: str
) -> None:
    path = toml(tmp_path, line)
    with pytest.raises(InputError) as caught:
        load(path, tmp_path)
    assert caught.value.message.startswith(f"{path}: {said}")


def test_what_is_not_toml_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not valid TOML: .*line 2"):
        load(toml(tmp_path, "nodes = 1\nnodes two"), tmp_path)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.write_bytes(b"\xff"), lambda _: None])
def test_a_named_config_that_cannot_be_read_is_refused(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "other.toml"
    make(path)
    with pytest.raises(InputError, match=re.escape(f"config file {path}")):
        load(path, tmp_path)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(90, 90), ("90", 90), ("30s", 30), ("60m", 3600), ("12h", 43200), ("1.5 h", 5400), ("2d", 172800)],
)
def test_durations(given: object, seconds: float) -> None:
    assert duration_s(given) == seconds


@pytest.mark.parametrize("given", ["", "0", "0h", "-5", "h", "1h30", "1w", True, None])
def test_what_is_no_duration(given: object) -> None:
    with pytest.raises(ValueError, match="a duration above zero"):
        duration_s(given)


def test_hosts_come_as_a_list_or_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "lab").write_text(
        "# mine\nada@a:2222 address=10.0.0.1\n\nlab3 # the slow one\n", encoding="utf-8"
    )
    read = HOSTS.check
    assert read("lab", tmp_path) == (("ada@a:2222", "10.0.0.1"), ("lab3", ""))
    assert read("ada@a, lab3,", tmp_path) == (("ada@a", ""), ("lab3", ""))
    assert read("lab9", tmp_path) == (("lab9", ""),)
    with pytest.raises(InputError, match=r"hosts file .*/no/such cannot be read"):
        read("no/such", tmp_path)


def test_a_flag_comes_before_the_file_and_lists_of_things_to_add_add_up() -> None:
    file = {
        "nodes": 2,
        "provider": "hosts",
        "packages": ("a",),
        "env": (("K", "1"), ("L", "1")),
        "files": (Path("/f"),),
    }
    flags = {"nodes": 4, "packages": ("b",), "env": (("K", "2"),), "files": (Path("/g"),)}
    assert merged(flags, file) == {
        "nodes": 4,
        "provider": "hosts",
        "packages": ("a", "b"),
        "env": (("K", "2"), ("L", "1")),
        "files": (Path("/f"), Path("/g")),
    }


def test_hosts_of_a_flag_do_not_keep_addresses_of_the_file() -> None:
    file = {"hosts": (("a", "10.0.0.1"),)}
    assert (
        cluster_spec("c", ("hosts", ""), merged({"hosts": (("b", ""),)}, file)).machines.host_addresses == ()
    )
    assert cluster_spec("c", ("hosts", ""), merged({}, file)).machines.host_addresses == (("a", "10.0.0.1"),)


FOUND = "in the environment"


@pytest.mark.parametrize(
    ("flags", "file", "living", "credentials", "chosen"),
    [
        ({"provider": "local"}, {"provider": "hosts"}, "hosts", FOUND, "local"),
        ({"provider": "exoscale"}, {"provider": "hosts"}, "hosts", None, "exoscale"),
        ({}, {"provider": "hosts"}, "local", FOUND, "hosts"),
        ({"hosts": (("a", ""),)}, {}, None, FOUND, "hosts"),
        ({}, {}, "hosts", FOUND, "hosts"),
        ({}, {}, None, FOUND, "exoscale"),
        ({}, {}, None, None, "local"),
    ],
)
def test_which_provider(
    flags: Settings, file: Settings, living: str | None, credentials: str | None, chosen: str
) -> None:
    provider, reason = choose_provider(
        flags, file, recorded=living, credentials=lambda: credentials, must_be_named=False
    )
    assert (provider, bool(reason)) == (chosen, True)


@pytest.mark.parametrize("credentials", [FOUND, None])
def test_credentials_alone_name_no_provider_where_nobody_can_object(credentials: str | None) -> None:
    with pytest.raises(UsageError, match="no provider given"):
        choose_provider({}, {}, recorded=None, credentials=lambda: credentials, must_be_named=True)


def test_hosts_for_another_provider_are_refused() -> None:
    with pytest.raises(InputError):
        choose_provider(
            {"provider": "local", "hosts": (("a", ""),)},
            {},
            recorded=None,
            credentials=lambda: None,
            must_be_named=True,
        )


def test_prices_are_refused_where_nothing_is_rented() -> None:
    with pytest.raises(InputError, match=r"^prices: only for machines that rain-deploy rents"):
        refuse_rented("local", {"prices": (("disk", 0.1),)})


def test_a_lost_node_is_replaced_only_where_machines_are_created() -> None:
    for provider in ("local", "hosts"):
        with pytest.raises(UsageError, match=rf"^--replace-lost: .*machines of provider {provider}, so"):
            refuse_rented(provider, {"replace_lost": True})
    refuse_rented("exoscale", {"replace_lost": True})
    refuse_rented("local", {"replace_lost": False})


def test_a_list_of_hosts_says_how_many_nodes() -> None:
    spec = cluster_spec("c", ("hosts", "named"), {"hosts": (("a", ""), ("b", ""))})
    assert (spec.nodes, spec.machines.hosts, spec.machines.ssh_port) == (2, ("a", "b"), 22)


def test_a_spec_says_what_all_sources_say(tmp_path: Path) -> None:
    (tmp_path / "r.txt").touch()
    settings = {
        "nodes": 2,
        "requirements": tmp_path / "r.txt",
        "packages": ("a",),
        "ssh_port": 2222,
        "owner": "ada",
        "upgrade": True,
    }
    spec = cluster_spec("c", LOCAL, settings)
    assert (spec.name, spec.provider, spec.provider_reason, spec.nodes) == ("c", *LOCAL, 2)
    assert (spec.machines.ssh_port, spec.owner, spec.environment.upgrade) == (2222, "ada", True)
    assert (spec.environment.requirements, spec.environment.packages) == (tmp_path / "r.txt", ("a",))


def test_a_spec_says_what_is_rented_and_for_how_long(tmp_path: Path) -> None:
    text = """
        zone = "ch-gva-2"
        instance_type = "cpu.huge"
        disk_size = 50
        template = "Linux Debian 12 (Bookworm) 64-bit"
        allow_ip = "203.0.113.7"
        anti_affinity = true
        ttl = "none"
        idle = "60m"
        max_cost = 12.5
        keep_partial = true
        [prices]
        standard.medium = 0.05
        "cpu.huge" = 1
        disk = 0
        currency = "EUR"
    """
    spec = cluster_spec("c", ("exoscale", ""), load(toml(tmp_path, text), tmp_path))
    assert spec.keep_partial
    assert spec.machines == Machines(
        zone="ch-gva-2",
        instance_type="cpu.huge",
        disk_size_gib=50,
        template="Linux Debian 12 (Bookworm) 64-bit",
        anti_affinity=True,
        idle_s=3600,
    )
    assert spec.allow_ip == ("203.0.113.7/32",)
    assert (spec.ttl_s, spec.max_cost) == (math.inf, 12.5)
    assert dict(spec.prices) == {"standard.medium": 0.05, "cpu.huge": 1, "disk": 0}
    assert spec.currency == "EUR"


def test_who_says_nothing_of_machines_leaves_all_to_the_cluster_that_lives() -> None:
    spec = cluster_spec("c", LOCAL, {})
    assert (spec.machines, spec.ttl_s, spec.max_cost, spec.keep_partial) == (Machines(), None, None, False)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"nodes": 2, "min_nodes": 3}, "min_nodes is 3, but nodes is 2"),
        ({"nodes": 3, "hosts": (("a", ""), ("b", ""))}, "3 nodes need 3 hosts, but 2 are listed"),
        ({"engine_url": "https://a/b"}, "engine.url and engine.sha256 belong together"),
        ({"requirements": Path("/")}, "requirements file / cannot be read: Is a directory"),
        ({"setup": Path("/no/such")}, "setup script /no/such cannot be read: No such file"),
        ({"host_key": Path("/no/such")}, "host key file /no/such cannot be read"),
        ({"packages": (Path("/no/such.whl"),)}, "wheel /no/such.whl does not exist"),
    ],
)
def test_a_spec_that_cannot_be_met_is_refused(settings: Settings, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        cluster_spec("c", ("hosts", "named"), settings)


def test_requirements_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_bytes("scipy # é".encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8: line 1"):
        cluster_spec("c", LOCAL, {"requirements": tmp_path / "r.txt"})
