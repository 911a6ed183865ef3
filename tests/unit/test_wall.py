"""The wall as values: when it is needed, whom it lets in, what it closes."""

from __future__ import annotations

import dataclasses
import shlex

import pytest

from rain_deploy.core.layout import Layout
from rain_deploy.core.machine import Facts, Host
from rain_deploy.errors import InputError
from rain_deploy.parts.facts import DEBIAN_12
from rain_deploy.parts.wall import cluster_addresses, needs_wall, wall_removal_step, wall_steps

LAYOUT = Layout("/var/lib/rain-deploy", "ab12")
TWO = {"node-1": "10.0.0.1", "node-2": "10.0.0.2"}


def machine(number: int, *, root: bool = True) -> Facts:
    return dataclasses.replace(
        DEBIAN_12,
        uid=0 if root else 1000,
        machine_id=f"m{number}",
        hostname=f"h{number}",
        route_address=f"10.0.0.{number}",
    )


def host(number: int, cluster_address: str | None = None) -> Host:
    return Host(
        name=f"node-{number}",
        address=f"h{number}.example",
        port=22,
        user="root",
        host_keys=(),
        cluster_address=cluster_address,
    )


ROOTS = {"node-1": machine(1), "node-2": machine(2)}
USERS = {"node-1": machine(1), "node-2": machine(2, root=False)}


def test_two_machines_with_root_get_the_wall() -> None:
    assert needs_wall(TWO, ROOTS, ())


def test_without_root_on_all_up_refuses_and_names_both_ways() -> None:
    with pytest.raises(InputError) as caught:
        needs_wall(TWO, USERS, ())
    assert caught.value.node == "node-2"
    assert "node-1" not in caught.value.message
    assert "root" in (caught.value.next_step or "")
    assert "--trust-network 10.0.0.0/30" in (caught.value.next_step or "")


def test_a_trusted_network_that_holds_all_addresses_needs_no_wall() -> None:
    assert not needs_wall(TWO, USERS, ("192.168.0.0/16", "10.0.0.0/24"))
    assert not needs_wall({"node-1": "fd00::1"}, {"node-1": machine(1, root=False)}, ("fd00::/64",))


def test_a_trusted_network_that_misses_one_address_is_no_excuse() -> None:
    assert needs_wall(TWO, ROOTS, ("10.0.0.1/32",))
    with pytest.raises(InputError, match=r"10\.0\.0\.1/32 does not contain 10\.0\.0\.2"):
        needs_wall(TWO, USERS, ("10.0.0.1/32",))


def test_loopback_needs_no_wall() -> None:
    assert not needs_wall({"node-1": "127.0.0.1", "node-2": "127.0.0.2"}, USERS, ())
    assert not needs_wall({"node-1": "::1"}, {"node-1": machine(1, root=False)}, ())


def test_loopback_beside_another_machine_cannot_work() -> None:
    with pytest.raises(InputError, match=r"node-1 has the address 127\.0\.0\.1"):
        needs_wall({"node-1": "127.0.0.1", "node-2": "10.0.0.2"}, ROOTS, ("0.0.0.0/0",))


def test_one_machine_that_is_told_an_open_address_is_not_left_open() -> None:
    assert needs_wall({"node-1": "10.0.0.1"}, {"node-1": machine(1)}, ())
    with pytest.raises(InputError):
        needs_wall({"node-1": "10.0.0.1"}, {"node-1": machine(1, root=False)}, ())


def test_an_address_that_is_none_is_named_with_its_node() -> None:
    with pytest.raises(InputError, match=r"node-2: 'h2\.example'"):
        needs_wall({"node-1": "10.0.0.1", "node-2": "h2.example"}, ROOTS, ())


def test_the_address_is_that_of_the_hosts_file_else_of_the_route() -> None:
    hosts = (host(1, "192.168.5.5"), host(2))
    assert cluster_addresses(hosts, ROOTS, ()) == {"node-1": "192.168.5.5", "node-2": "10.0.0.2"}


def test_one_machine_without_root_or_trusted_network_keeps_to_loopback() -> None:
    same = {"node-1": machine(1, root=False), "node-2": machine(1, root=False)}
    hosts = (host(1), host(2))
    assert set(cluster_addresses(hosts, same, ()).values()) == {"127.0.0.1"}
    assert set(cluster_addresses(hosts, same, ("10.0.0.0/8",)).values()) == {"10.0.0.1"}


def test_copies_of_one_disk_are_two_machines() -> None:
    copies = {name: dataclasses.replace(fact, machine_id="m", hostname="h") for name, fact in USERS.items()}
    assert cluster_addresses((host(1), host(2)), copies, ()) == TWO


def test_the_table_closes_our_ports_as_far_as_there_are_nodes_and_nothing_else() -> None:
    three = {"node-1": "10.0.0.2", "node-2": "10.0.0.1", "node-3": "fd00::2"}
    _nft, step = wall_steps(LAYOUT, three)
    text = (
        "add table inet rain_deploy_ab12\n"
        "delete table inet rain_deploy_ab12\n"
        "table inet rain_deploy_ab12 {\n"
        "\tchain input {\n"
        "\t\ttype filter hook input priority -300; policy accept;\n"
        '\t\tiifname "lo" accept\n'
        "\t\tip saddr { 10.0.0.1, 10.0.0.2 } accept\n"
        "\t\tip6 saddr { fd00::2 } accept\n"
        "\t\ttcp dport { 7210, 7222, 7230-7299, 7301-7303 } drop\n"
        "\t}\n"
        "}\n"
    )
    assert f"printf %s {shlex.quote(text)} | $SUDO nft -f -" in step.act


def test_a_name_in_place_of_an_address_never_reaches_the_filter() -> None:
    with pytest.raises(ValueError, match="an IP address, not"):
        wall_steps(LAYOUT, {"node-1": "10.0.0.1 } accept; ip saddr { 0.0.0.0/0"})


def test_steps_are_the_same_for_the_same_cluster_and_differ_with_it() -> None:
    assert wall_steps(LAYOUT, TWO) == wall_steps(LAYOUT, dict(reversed(TWO.items())))
    assert wall_steps(LAYOUT, TWO) != wall_steps(LAYOUT, {**TWO, "node-3": "10.0.0.3"})


def test_removal_names_one_table_only() -> None:
    step = wall_removal_step("ab12")
    assert "delete table inet rain_deploy_ab12" in step.act
    assert "flush" not in step.act
    strange = wall_removal_step("a; id")
    assert "delete table inet 'rain_deploy_a; id'" in strange.act
    assert "grep -qx 'table inet rain_deploy_a; id'" in strange.check
