"""What the SSH transport promises, against an asyncssh server and a real OpenSSH server."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paramiko import Transport

from rain_deploy.core.machine import Host, Jump
from rain_deploy.core.step import Command
from rain_deploy.errors import HostKeyError, InputError, Unreachable
from rain_deploy.providers.keys import public_key
from rain_deploy.transport.connection import fingerprint
from rain_deploy.transport.ssh import SshTransport
from tests.contract.servers import ADDRESS, Endpoint, Relay

NASTY = (
    "",
    " ",
    "a b",
    "'",
    '"',
    ";",
    "$(touch /pwned)",
    "`id`",
    "\n",
    "\\",
    "-rf",
    "--",
    "*",
    "~",
    "é✓",
    "$HOME",
)
ARGUMENTS = st.lists(
    st.sampled_from(NASTY) | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
    max_size=16,
)
ECHO_ARGUMENTS = ("sh", "-c", 'for each; do printf "%s\\0" "$each"; done', "sh")
BIG = 20 * 1024 * 1024
ROOM_S = 12.0
"""More than a busy machine needs, less than a login may take."""


def behind(endpoint: Endpoint, relay: Relay) -> Host:
    """The endpoint's host, reached through ``relay``."""
    return dataclasses.replace(endpoint.host, address=ADDRESS, port=relay.port)


def sh(script: str, *, stdin: bytes | None = None, deadline_s: float | None = 30.0) -> Command:
    return Command(("sh", "-c", script), stdin=stdin, deadline_s=deadline_s)


# Arguments, streams, statuses


def test_argument_vectors_arrive_unchanged(endpoint: Endpoint) -> None:
    with contextlib.closing(SshTransport()) as transport:

        @settings(max_examples=25, deadline=None, database=None)
        @given(ARGUMENTS)
        def check(arguments: list[str]) -> None:
            result = transport.run(endpoint.host, Command((*ECHO_ARGUMENTS, *arguments)))
            assert result.stdout == b"".join(argument.encode() + b"\0" for argument in arguments)

        check()


def test_a_nul_byte_is_refused_before_anything_is_sent(
    endpoint: Endpoint, relay: Relay, transport: SshTransport
) -> None:
    with pytest.raises(InputError, match="NUL"):
        transport.run(behind(endpoint, relay), Command(("echo", "a\0b")))
    assert relay.accepted == 0


def test_every_exit_status_is_a_result(endpoint: Endpoint, transport: SshTransport) -> None:
    statuses = range(256) if endpoint.kind == "local" else (0, 1, 2, 100, 126, 127, 128, 137, 254, 255)
    for status in statuses:
        assert transport.run(endpoint.host, sh(f"exit {status}")).exit_status == status


def test_a_killed_command_is_an_error(endpoint: Endpoint, transport: SshTransport) -> None:
    with pytest.raises(Unreachable, match="no exit status"):
        transport.run(endpoint.host, sh("kill -9 0"))


def test_streams_stay_apart(endpoint: Endpoint, transport: SshTransport) -> None:
    result = transport.run(endpoint.host, sh("echo out; echo err >&2"))
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")


def test_without_stdin_a_reader_sees_its_end(endpoint: Endpoint, transport: SshTransport) -> None:
    assert transport.run(endpoint.host, sh("cat; echo done")).stdout == b"done\n"


def test_megabytes_flow_all_ways_at_once(endpoint: Endpoint, transport: SshTransport) -> None:
    data = os.urandom(BIG)
    result = transport.run(endpoint.host, sh("tee /dev/stderr", stdin=data))
    assert result.stdout == data
    assert result.stderr == data


def test_a_command_need_not_read_its_stdin(endpoint: Endpoint, transport: SshTransport) -> None:
    result = transport.run(endpoint.host, sh("head -c 3; exit 5", stdin=b"abc" + bytes(BIG)))
    assert (result.exit_status, result.stdout) == (5, b"abc")
    assert transport.run(endpoint.host, sh("echo more")).stdout == b"more\n"


def test_sinks_get_bytes_as_they_come_on_the_calling_thread(
    endpoint: Endpoint, transport: SshTransport, tmp_path: Path
) -> None:
    seen: list[tuple[bytes, int]] = []
    go = tmp_path / "go"

    def note(data: bytes) -> None:
        seen.append((data, threading.get_ident()))
        go.touch()

    script = sh(f"echo 1; until test -e '{go}'; do sleep 0.05; done; echo 2 >&2")
    result = transport.run(endpoint.host, script, on_stdout=note, on_stderr=note)
    assert (result.stdout, result.stderr) == (b"", b"")
    assert seen == [(b"1\n", threading.get_ident()), (b"2\n", threading.get_ident())]


def test_little_output_of_a_background_command_is_on_its_way_before_that_of_others(
    endpoint: Endpoint, relay: Relay, transport: SshTransport
) -> None:
    host, goes_on, begun = behind(endpoint, relay), threading.Event(), threading.Event()

    def sink(_: bytes) -> None:
        begun.set()
        goes_on.wait(30)

    background = dataclasses.replace(sh(f"head -c {BIG} /dev/zero"), background=True)
    thread = threading.Thread(target=transport.run, args=(host, background), kwargs={"on_stdout": sink})
    thread.start()
    try:
        assert begun.wait(30)
        assert transport.run(host, sh("echo more")).stdout == b"more\n"
        assert relay.carried_bytes < 1_000_000
    finally:
        goes_on.set()
        thread.join(30)
    assert relay.carried_bytes > BIG


# Deadlines and losses


def test_a_passed_deadline_ends_the_command_and_not_the_connection(
    endpoint: Endpoint, relay: Relay, transport: SshTransport
) -> None:
    host = behind(endpoint, relay)
    transport.run(host, sh("true"))
    started = time.monotonic()
    with pytest.raises(Unreachable, match=r"did not end within 0\.5 s"):
        transport.run(host, sh("echo early; sleep 60", deadline_s=0.5))
    assert time.monotonic() - started < ROOM_S
    assert transport.run(host, sh("true")).exit_status == 0
    assert relay.accepted == 1


def test_output_without_end_does_not_outlast_the_deadline(
    endpoint: Endpoint, transport: SshTransport
) -> None:
    with pytest.raises(Unreachable, match="did not end"):
        transport.run(endpoint.host, sh("yes", deadline_s=0.5), on_stdout=lambda _: None)


@pytest.mark.parametrize("script", ["cat", "echo $$; cat >/dev/null"])
def test_a_connection_that_freezes_does_not_outlast_the_deadline(
    endpoint: Endpoint, relay: Relay, transport: SshTransport, script: str
) -> None:
    host = behind(endpoint, relay)
    transport.run(host, sh("true"))
    if script == "cat":
        relay.freeze()  # before the command; in the other case once it runs
    started = time.monotonic()
    with pytest.raises(Unreachable, match=r"did not end within 1 s"):
        transport.run(
            host, sh(script, stdin=bytes(5 * BIG), deadline_s=1), on_stdout=lambda _: relay.freeze()
        )
    assert time.monotonic() - started < ROOM_S


def test_a_connection_lost_under_a_command_is_an_error_and_runs_nothing_again(
    endpoint: Endpoint, relay: Relay, transport: SshTransport, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    with pytest.raises(Unreachable, match="connection was lost"):
        transport.run(
            behind(endpoint, relay),
            sh(f"echo ran >> {marks}; echo started; sleep 10"),
            on_stdout=lambda _: relay.cut(),
        )
    assert marks.read_text() == "ran\n"
    assert relay.accepted == 1


def test_a_dead_connection_is_opened_anew_before_the_next_command(
    endpoint: Endpoint, relay: Relay, transport: SshTransport, tmp_path: Path
) -> None:
    host, marks = behind(endpoint, relay), tmp_path / "marks"
    for _ in range(3):
        transport.run(host, sh(f"echo ran >> {marks}"))
        relay.cut()
    assert marks.read_text() == "ran\n" * 3
    assert relay.accepted == 3


def test_a_closed_port_is_unreachable(transport: SshTransport, tmp_path: Path) -> None:
    with socket.create_server((ADDRESS, 0)) as probe:
        port = probe.getsockname()[1]
    host = Host("node-7", ADDRESS, port, "nobody", (public_key(tmp_path / "key"),), label="oak")
    with pytest.raises(Unreachable, match=r"node-7 \(oak\).*Connection refused") as caught:
        transport.run(host, sh("true"))
    assert caught.value.node == "node-7"


@pytest.mark.parametrize("words", [b"", b"welcome\r\n", b"SSH-2.0-drip\r\n"])
def test_a_server_that_never_gets_to_the_login_is_left(words: bytes, tmp_path: Path) -> None:
    with _server_saying(words) as port, contextlib.closing(SshTransport(connect_s=0.7)) as transport:
        host = Host("node-1", ADDRESS, port, "nobody", (public_key(tmp_path / "key"),))
        started = time.monotonic()
        with pytest.raises(Unreachable):
            transport.run(host, sh("true"))
        assert time.monotonic() - started < ROOM_S


@contextlib.contextmanager
def _server_saying(words: bytes) -> Iterator[int]:
    """A server that says ``words`` slowly and then nothing more."""
    with socket.create_server((ADDRESS, 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    for byte in words:
                        connection.sendall(bytes((byte,)))
                        time.sleep(0.01)
                    while connection.recv(4096):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        thread.join(timeout=10)


# Host keys and logins


def test_an_unknown_host_key_is_refused_without_a_connection(
    endpoint: Endpoint, relay: Relay, transport: SshTransport, tmp_path: Path
) -> None:
    host = dataclasses.replace(behind(endpoint, relay), host_keys=(), label="oak")
    with pytest.raises(HostKeyError, match="run `ssh oak` once") as caught:
        transport.run(host, sh(f"touch {tmp_path}/ran"))
    assert (caught.value.exit_code, caught.value.next_step) == (31, "ssh oak")
    assert relay.accepted == 0
    assert not (tmp_path / "ran").exists()


def test_a_changed_host_key_is_refused_before_the_login(
    endpoint: Endpoint, transport: SshTransport, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pinned = public_key(tmp_path / "other")
    # A login that cannot succeed either: that the key is what is refused shows which came first.
    host = dataclasses.replace(
        endpoint.host, host_keys=(pinned,), identity_files=(tmp_path / "other",), user="nobody"
    )
    for attempt in (
        lambda: transport.run(host, sh(f"touch {tmp_path}/ran")),
        lambda: transport.forward(host, "127.0.0.1", 1),
    ):
        with pytest.raises(HostKeyError) as caught:
            attempt()
        assert fingerprint(pinned) in caught.value.message
        assert fingerprint(endpoint.host.host_keys[0]) in caught.value.message
    assert not (tmp_path / "ran").exists()
    assert capfd.readouterr().err == ""


def test_with_the_right_login_a_changed_host_key_is_still_refused(
    endpoint: Endpoint, transport: SshTransport, tmp_path: Path
) -> None:
    host = dataclasses.replace(endpoint.host, host_keys=(public_key(tmp_path / "other"),))
    with pytest.raises(HostKeyError):
        transport.run(host, sh(f"touch {tmp_path}/ran"))
    assert not (tmp_path / "ran").exists()


def test_one_pinned_key_of_several_is_enough(
    endpoint: Endpoint, transport: SshTransport, tmp_path: Path
) -> None:
    keys = (public_key(tmp_path / "other"), *endpoint.host.host_keys)
    host = dataclasses.replace(endpoint.host, host_keys=keys)
    assert transport.run(host, sh("true")).exit_status == 0


def test_a_server_without_a_key_of_a_pinned_type_has_changed(
    endpoint: Endpoint, transport: SshTransport
) -> None:
    if endpoint.kind == "openssh":
        pytest.skip("has a key of every type")
    pinned = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY="
    with pytest.raises(HostKeyError, match="no key of a pinned type"):
        transport.run(dataclasses.replace(endpoint.host, host_keys=(pinned,)), sh("true"))


def test_a_server_with_several_keys_proves_the_pinned_one(
    endpoint: Endpoint, transport: SshTransport
) -> None:
    for key in endpoint.host_keys:
        host = dataclasses.replace(endpoint.host, host_keys=(key,))
        assert transport.run(host, sh("true")).exit_status == 0


def test_a_refused_login_says_who_tried_with_what(
    endpoint: Endpoint, transport: SshTransport, tmp_path: Path
) -> None:
    public_key(tmp_path / "stranger")
    (tmp_path / "garbage").write_text("no key")
    for name in ("stranger", "garbage", "missing"):
        host = dataclasses.replace(endpoint.host, identity_files=(tmp_path / name,))
        with pytest.raises(Unreachable, match=f"refused the login of {host.user} with {tmp_path / name}"):
            transport.run(host, sh("true"))


# Connections


def test_threads_share_one_connection(endpoint: Endpoint, relay: Relay, transport: SshTransport) -> None:
    host = behind(endpoint, relay)

    def ask(number: int) -> bytes:
        return transport.run(host, sh("cat", stdin=str(number).encode())).stdout

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(32))) == [str(number).encode() for number in range(32)]
    assert relay.accepted == 1


def test_more_threads_than_a_server_allows_sessions_wait(
    endpoint: Endpoint, relay: Relay, transport: SshTransport
) -> None:
    host = behind(endpoint, relay)
    with ThreadPoolExecutor(15) as pool:
        results = list(pool.map(lambda _: transport.run(host, sh("sleep 0.3")).exit_status, range(15)))
    assert results == [0] * 15
    assert relay.accepted == 1


def test_eight_hosts_have_eight_connections(
    endpoint: Endpoint, relays: Callable[[], Relay], transport: SshTransport
) -> None:
    eight = [relays() for _ in range(8)]
    hosts = [behind(endpoint, relay) for relay in eight] * 2
    with ThreadPoolExecutor(16) as pool:
        assert [
            result.exit_status for result in pool.map(lambda host: transport.run(host, sh("true")), hosts)
        ]
    assert [relay.accepted for relay in eight] == [1] * 8


def test_closed_twice_and_used_again_it_connects_again(
    endpoint: Endpoint, relay: Relay, transport: SshTransport
) -> None:
    for _ in range(2):
        transport.run(behind(endpoint, relay), sh("true"))
        transport.close()
        transport.close()
    assert relay.accepted == 2


# Jump hosts


def jumping(endpoint: Endpoint, relay: Relay, *, host_keys: tuple[str, ...] | None = None) -> Host:
    """The endpoint, reached by a jump over itself through ``relay``."""
    host = endpoint.host
    keys = host.host_keys if host_keys is None else host_keys
    jump = Jump(ADDRESS, relay.port, host.user, host.identity_files, keys)
    return dataclasses.replace(host, jumps=(jump,))


def test_hosts_behind_a_jump_host_share_its_connection(
    endpoint: Endpoint, relay: Relay, transport: SshTransport
) -> None:
    hosts = [dataclasses.replace(jumping(endpoint, relay), name=f"node-{index}") for index in (1, 2)]
    for host in hosts:
        assert transport.run(host, sh("cat", stdin=b"through")).stdout == b"through"
    assert relay.accepted == 1
    relay.cut()
    assert transport.run(hosts[0], sh("echo back")).stdout == b"back\n"
    assert relay.accepted == 2


def test_two_jumps_in_a_row(endpoint: Endpoint, relay: Relay, transport: SshTransport) -> None:
    direct = Jump(
        endpoint.host.address,
        endpoint.host.port,
        endpoint.host.user,
        endpoint.host.identity_files,
        endpoint.host.host_keys,
    )
    host = jumping(endpoint, relay)
    host = dataclasses.replace(host, jumps=(*host.jumps, direct))
    assert transport.run(host, sh("echo there")).stdout == b"there\n"


def test_a_jump_host_that_does_not_lead_there_is_named(
    endpoint: Endpoint, relay: Relay, transport: SshTransport
) -> None:
    with socket.create_server((ADDRESS, 0)) as probe:
        port = probe.getsockname()[1]
    host = dataclasses.replace(jumping(endpoint, relay), address=ADDRESS, port=port)
    started = time.monotonic()
    with pytest.raises(Unreachable, match=f"jump host {ADDRESS} cannot connect to {ADDRESS} port {port}"):
        transport.run(host, sh("true"))
    assert time.monotonic() - started < ROOM_S
    assert transport.run(jumping(endpoint, relay), sh("echo there")).stdout == b"there\n"
    assert relay.accepted == 1


def test_host_keys_hold_at_every_hop(
    endpoint: Endpoint, relay: Relay, transport: SshTransport, tmp_path: Path
) -> None:
    other = (public_key(tmp_path / "other"),)
    for host in (
        jumping(endpoint, relay, host_keys=()),
        jumping(endpoint, relay, host_keys=other),
        dataclasses.replace(jumping(endpoint, relay), host_keys=()),
        dataclasses.replace(jumping(endpoint, relay), host_keys=other),
    ):
        with pytest.raises(HostKeyError):
            transport.run(host, sh(f"touch {tmp_path}/ran"))
    assert not (tmp_path / "ran").exists()


# Forwards


def _everything(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


@contextlib.contextmanager
def _echo_server() -> Iterator[int]:
    """Sends back what it got, once the other side has said all."""
    with socket.create_server((ADDRESS, 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(_everything(connection))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=10)


def test_a_forward_carries_bytes_and_ends(endpoint: Endpoint, transport: SshTransport) -> None:
    data = os.urandom(2 * 1024 * 1024)
    with _echo_server() as port:
        transport.run(endpoint.host, sh("true"))
        threads = set(threading.enumerate())
        forward = transport.forward(endpoint.host, ADDRESS, port)
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", forward.local_port), timeout=10) as connection:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                assert _everything(connection) == data
        idle = socket.create_connection(("127.0.0.1", forward.local_port), timeout=10)
        forward.close()
        with idle, pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", forward.local_port), timeout=10)
        left = set(threading.enumerate()) - threads
        assert [one for one in left if not isinstance(one, Transport)] == []  # it may have connected anew


def test_a_forward_closes_while_connections_are_being_opened(
    endpoint: Endpoint, transport: SshTransport
) -> None:
    with _echo_server() as port:
        for _ in range(5):
            forward = transport.forward(endpoint.host, ADDRESS, port)
            waiting = [socket.create_connection(("127.0.0.1", forward.local_port)) for _ in range(3)]
            forward.close()
            for each in waiting:
                each.close()


def test_a_forward_to_a_closed_port_ends_the_connection(endpoint: Endpoint, transport: SshTransport) -> None:
    with socket.create_server((ADDRESS, 0)) as probe:
        port = probe.getsockname()[1]
    forward = transport.forward(endpoint.host, ADDRESS, port)
    with socket.create_connection(("127.0.0.1", forward.local_port), timeout=10) as connection:
        assert connection.recv(1) == b""


def test_a_forward_takes_the_port_it_is_given_or_says_that_it_is_taken(
    endpoint: Endpoint, transport: SshTransport
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port}"):
            transport.forward(endpoint.host, ADDRESS, 1, local_port=port)
    assert transport.forward(endpoint.host, ADDRESS, 1, local_port=port).local_port == port
