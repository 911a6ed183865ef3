"""What every provider promises."""

from __future__ import annotations

from rain_deploy.core.step import Command
from rain_deploy.transport.ssh import SshTransport
from tests.contract.provider_cases import ProviderCase, machines


def test_preflight_speaks_in_sentences_and_changes_nothing(case: ProviderCase) -> None:
    before = case.provider.list("owner")
    assert all(isinstance(sentence, str) for sentence in case.provider.preflight(case.spec))
    assert case.provider.list("owner") == before


def test_intents_are_stable_and_grow_at_the_end(case: ProviderCase) -> None:
    three = case.provider.intents(case.spec, case.cluster, 3)
    assert case.provider.intents(case.spec, case.cluster, 3) == three
    assert set(case.provider.intents(case.spec, case.cluster, 2)) <= set(three)


def test_hosts_come_in_order_and_run_commands(case: ProviderCase, transport: SshTransport) -> None:
    hosts = case.hosts(case.up(2)[::-1])
    assert [host.name for host in hosts] == ["node-1", "node-2"]
    assert len({(host.address, host.port) for host in hosts}) == 2
    for host in hosts:
        assert transport.run(host, Command(("echo", host.name))).stdout == f"{host.name}\n".encode()


def test_created_twice_is_one_machine(case: ProviderCase, transport: SshTransport) -> None:
    first = case.up(1)
    (host,) = case.hosts(first)
    transport.run(host, Command(("touch", "here")))
    assert case.up(1) == first
    assert case.provider.hosts(case.cluster, first) == (host,)
    # The connection of before is still good: the server was not touched.
    assert transport.run(host, Command(("rm", "here"))).exit_status == 0
    if case.provider.traits.owned:
        assert case.provider.list("owner") == first


def test_a_crashed_machine_comes_back_as_it_was(case: ProviderCase, transport: SshTransport) -> None:
    refs = case.up(1)
    (host,) = case.hosts(refs)
    (machine,) = machines(refs)
    transport.run(host, Command(("touch", "kept")))
    for revive in (lambda: case.up(1), lambda: case.provider.start(machine)):
        case.crash(machine)
        revive()
        assert case.hosts(refs) == (host,)
        assert transport.run(host, Command(("test", "-e", "kept"))).exit_status == 0
    transport.run(host, Command(("rm", "kept")))


def test_started_while_it_runs_is_success(case: ProviderCase) -> None:
    refs = case.up(1)
    case.provider.start(machines(refs)[0])
    assert len(case.provider.hosts(case.cluster, refs)) == 1


def test_deleted_leaves_nothing_and_twice_is_success(case: ProviderCase, transport: SshTransport) -> None:
    refs = case.up(2)
    hosts = case.hosts(refs)
    if case.provider.traits.owned:
        transport.run(hosts[1], Command(("sh", "-c", "setsid sleep 300 >/dev/null 2>&1 &")))
    for _ in range(2):
        case.down(refs)
    assert case.provider.list("owner") == ()
    if case.provider.traits.owned:
        assert [case.left(host) for host in hosts] == [(), ()]


def test_deleting_one_node_leaves_the_other(case: ProviderCase, transport: SshTransport) -> None:
    refs = case.up(2)
    first, _ = case.hosts(refs)
    case.provider.delete(machines(refs)[1])
    assert transport.run(first, Command(("true",))).exit_status == 0
    if case.provider.traits.owned:
        assert case.provider.list("owner") == refs[:-1]
