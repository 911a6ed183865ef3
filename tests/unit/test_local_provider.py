"""Local nodes: what they are made of, what leaks into them (nothing), how they end (wholly)."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rain_deploy.core.cluster import Cluster
from rain_deploy.core.machine import Host, Resource
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.step import Command
from rain_deploy.errors import Unreachable
from rain_deploy.providers.keys import cluster_key
from rain_deploy.providers.local.provider import LocalProvider, installer_environment
from rain_deploy.providers.local.server import VARIABLE, end_processes, environment_of, pids_of
from rain_deploy.transport.ssh import SshTransport
from tests.support.framed import command_of

SPEC = ClusterSpec("default", "local", "test")


def cluster(name: str) -> Cluster:
    return Cluster(id=f"unit-{os.getpid()}-{name}", name=name, provider="local", created_s=0.0)


def create(provider: LocalProvider, of: Cluster, nodes: int) -> tuple[Resource, ...]:
    return tuple(map(provider.create, provider.intents(SPEC, of, nodes)))


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[LocalProvider]:
    provider = LocalProvider(tmp_path)
    yield provider
    for ref in provider.list("owner"):
        provider.delete(ref)


@pytest.fixture
def transport() -> Iterator[SshTransport]:
    transport = SshTransport()
    yield transport
    transport.close()


def test_secrets_are_secret_and_made_once(tmp_path: Path, provider: LocalProvider) -> None:
    ref = create(provider, cluster("a"), 1)[0]
    node = tmp_path / "local/nodes" / ref.cluster_id / "1"
    key = cluster_key(tmp_path, ref.cluster_id)
    for path in (key, node / "host_key", node / "authorized_keys"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(node.stat().st_mode) == 0o700
    before = key.read_bytes()
    assert cluster_key(tmp_path, ref.cluster_id).read_bytes() == before
    assert (node / "authorized_keys").read_text() == key.with_suffix(".pub").read_text()


def test_racing_makers_agree_on_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert (
            len({path.read_bytes() for path in pool.map(lambda _: cluster_key(tmp_path, "c"), range(8))}) == 1
        )
    assert sorted(path.name for path in (tmp_path / "clusters/c").iterdir()) == [
        "id_ed25519",
        "id_ed25519.pub",
    ]


def test_clusters_have_networks_of_their_own(provider: LocalProvider) -> None:
    refs = [create(provider, cluster(name), 2) for name in ("a", "b")]
    networks = [{ref.ref.rpartition(".")[0] for ref in of} for of in refs]
    assert [len(network) for network in networks] == [1, 1]
    assert networks[0] != networks[1]
    assert all(ref.ref.startswith("127.") and ref.ref.endswith(":7022") for of in refs for ref in of)


def test_nothing_of_the_callers_environment_leaks_in(
    provider: LocalProvider, transport: SshTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXOSCALE_API_SECRET", "canary")
    monkeypatch.setenv("PYTHONPATH", "canary")
    of = cluster("a")
    (host,) = provider.hosts(of, create(provider, of, 1))
    printed = transport.run(host, Command(("env",))).stdout.decode()
    names = {line.partition("=")[0] for line in printed.splitlines()}
    assert names <= {"PATH", "LANG", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "RAIN_DEPLOY_LOCAL_NODE", "_"}
    assert f"RAIN_DEPLOY_LOCAL_NODE={of.id}/1\n" in printed
    home = transport.run(host, Command(("sh", "-c", 'test "$PWD" = "$HOME" && cat "$HOME/.bashrc"')))
    assert (home.exit_status, home.stdout) == (0, b"")


def test_the_installer_gets_certificates_indexes_and_caches(tmp_path: Path) -> None:
    (tmp_path / ".cargo").mkdir()
    environ = {
        "PIP_INDEX_URL": "i",
        "SSL_CERT_FILE": "s",
        "https_proxy": "p",
        "NO_PROXY": "n",
        "PATH": "/bin",
        "CURL_CA_BUNDLE": "c",
        "EXOSCALE_API_SECRET": "canary",
        "HOME": "/home/somebody",
    }
    assert dict(installer_environment(environ, tmp_path)) == {
        "PIP_INDEX_URL": "i",
        "SSL_CERT_FILE": "s",
        "https_proxy": "p",
        "NO_PROXY": "n",
        "PATH": "/bin",
        "CURL_CA_BUNDLE": "c",
        "UV_CACHE_DIR": f"{tmp_path}/.cache/uv",
        "CARGO_HOME": f"{tmp_path}/.cargo",
    }


def test_a_server_that_cannot_start_says_why(provider: LocalProvider, tmp_path: Path) -> None:
    of = cluster("a")
    refs = create(provider, of, 1)
    end_processes(f"{of.id}/1")
    (tmp_path / "local/nodes" / of.id / "1/config.json").write_text("{")
    provider.start(refs[0])
    with pytest.raises(Unreachable, match=r"node-1: its SSH server .* has ended") as caught:
        provider.hosts(of, refs)
    assert "JSONDecodeError" in (caught.value.details or "")


def test_orphans_end_with_their_node(provider: LocalProvider, transport: SshTransport) -> None:
    of = cluster("a")
    refs = create(provider, of, 1)
    (host,) = provider.hosts(of, refs)
    # One in a session of its own with another HOME, and one that no longer listens to SIGTERM.
    orphans = "HOME=/ setsid sleep 301 & trap '' TERM; setsid sh -c 'sleep 302; sleep 303' &"
    transport.run(host, Command(("sh", "-c", f"({orphans}) >/dev/null 2>&1 </dev/null")))
    assert len(pids_of(f"{of.id}/1")) >= 3
    provider.delete(refs[0])
    assert pids_of(f"{of.id}/1") == ()


def test_a_node_whose_directory_was_removed_is_still_found_and_ended(
    provider: LocalProvider, tmp_path: Path
) -> None:
    of = cluster("a")
    refs = create(provider, of, 1)
    provider.hosts(of, refs)
    subprocess.run(["rm", "-rf", tmp_path / "local/nodes" / of.id], check=True)
    (found,) = provider.list("owner")
    assert (found.cluster_id, found.name) == (of.id, "node-1")
    provider.delete(found)
    assert provider.list("owner") == ()


def test_another_home_is_not_ours(provider: LocalProvider, tmp_path: Path) -> None:
    create(provider, cluster("a"), 1)
    assert LocalProvider(tmp_path / "other").list("owner") == ()


def test_what_the_cluster_wrote_goes_with_its_last_node(provider: LocalProvider, tmp_path: Path) -> None:
    refs = create(provider, cluster("a"), 2)
    written = tmp_path / "local/clusters" / refs[0].cluster_id
    cache = tmp_path / "local/cache"
    for path in (written, cache):
        path.mkdir(parents=True)
    provider.delete(refs[1])
    assert written.exists()
    provider.delete(refs[0])
    assert (written.exists(), cache.exists()) == (False, True)


def test_eight_nodes_start_quickly_and_at_once(provider: LocalProvider) -> None:
    of = cluster("a")
    assert len(provider.hosts(of, create(provider, of, 8))) == 8


def test_starters_that_race_start_one_server(provider: LocalProvider) -> None:
    of = cluster("a")
    with ThreadPoolExecutor(4) as pool:
        refs = set(pool.map(provider.create, provider.intents(SPEC, of, 1) * 4))
    provider.hosts(of, tuple(refs))
    assert len(refs) == 1
    assert len(pids_of(f"{of.id}/1")) == 1


# The server itself, as the system's own tools see it


@pytest.fixture
def host(provider: LocalProvider) -> Host:
    of = cluster("ssh")
    (host,) = provider.hosts(of, create(provider, of, 1))
    return host


def options(host: Host, tmp_path: Path) -> list[str]:
    known = tmp_path / "known_hosts"
    known.write_text(f"[{host.address}]:{host.port} {host.host_keys[0]}\n")
    settings = (
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={known}",
        "IdentitiesOnly=yes",
        "LogLevel=ERROR",
    )
    return [
        *("-F", "/dev/null", "-i", str(host.identity_files[0])),
        *(word for setting in settings for word in ("-o", setting)),
    ]


def ssh(host: Host, tmp_path: Path, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    login = [*options(host, tmp_path), "-p", str(host.port), f"{host.user}@{host.address}"]
    return subprocess.run(
        ["ssh", *login, *command], input=stdin, capture_output=True, text=True, timeout=30, check=False
    )


def test_a_login_shell_runs_what_it_is_given(host: Host, tmp_path: Path) -> None:
    done = ssh(host, tmp_path, stdin="echo $((6 * 7))\nexit 3\n")
    assert (done.returncode, done.stdout) == (3, "42\n")


def test_a_terminal_is_a_terminal(host: Host, tmp_path: Path) -> None:
    login = [*options(host, tmp_path), "-tt", "-p", str(host.port), f"{host.user}@{host.address}"]
    # The system's ssh sends the size of its own terminal, so it is given one.
    script = f"stty rows 33 cols 77; ssh {shlex.join(login)} 'tty; stty size; test -c /dev/tty; exit 7'"
    done = subprocess.run(
        ["script", "-qec", script, "/dev/null"], capture_output=True, text=True, timeout=30, check=False
    )
    assert "/dev/pts/" in done.stdout
    assert "33 77" in done.stdout
    assert done.returncode == 7


def test_files_are_copied_by_scp(host: Host, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(bytes(range(256)) * 1000)
    where = f"{host.user}@{host.address}"
    for source, target in (("up", f"{where}:there"), (f"{where}:there", "down")):
        copy = ["scp", "-q", *options(host, tmp_path), "-P", str(host.port), source, target]
        subprocess.run(copy, check=True, timeout=30, cwd=tmp_path)
    assert (tmp_path / "down").read_bytes() == (tmp_path / "up").read_bytes()


def test_only_the_clusters_key_opens_it(host: Host, tmp_path: Path) -> None:
    other = cluster_key(tmp_path / "elsewhere", "c")
    words = [str(other) if word == str(host.identity_files[0]) else word for word in options(host, tmp_path)]
    login = [*words, "-p", str(host.port), f"{host.user}@{host.address}", "true"]
    done = subprocess.run(["ssh", *login], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr


def test_a_lost_client_hangs_its_command_up(host: Host, tmp_path: Path, transport: SshTransport) -> None:
    # stderr is a closed pipe by then, into which a shell must not say that its sleep was hung up.
    script = "exec 2>/dev/null; trap 'echo gone > hup; exit' HUP; echo ready; while :; do sleep 0.05; done"
    login = [*options(host, tmp_path), "-p", str(host.port), f"{host.user}@{host.address}", script]
    client = subprocess.Popen(["ssh", *login], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert client.stdout is not None
    with client, client.stdout:
        assert client.stdout.readline() == b"ready\n"
        client.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while transport.run(host, Command(("cat", "hup"))).stdout != b"gone\n":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_every_command_is_noted_as_it_was_received(
    host: Host, tmp_path: Path, transport: SshTransport
) -> None:
    command = Command(("echo", "a b", "$(id)", "é"))
    transport.run(host, command)
    (log,) = (tmp_path / "local/nodes").glob("*/1/commands.jsonl")
    received = [json.loads(line)["command"] for line in log.read_text().splitlines()]
    assert list(map(command_of, received)) == [command.line()]


def test_forwards_lead_to_loopback_only(host: Host, transport: SshTransport) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        outside = probe.getsockname()[0]
    for address, answer in ((outside, b""), ("127.0.0.1", b"hello")):
        with socket.create_server((address, 0)) as listener:
            threading.Thread(target=_greet, args=(listener,), daemon=True).start()
            forward = transport.forward(host, address, listener.getsockname()[1])
            with socket.create_connection(("127.0.0.1", forward.local_port), timeout=10) as connection:
                assert connection.recv(5) == answer


def _greet(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the listener is closed
        while True:
            connection, _ = listener.accept()
            with contextlib.suppress(OSError), connection:
                connection.sendall(b"hello")


def test_a_process_that_is_just_starting_is_known_by_its_environment() -> None:
    """The kernel shows none then."""
    for _ in range(100):
        with subprocess.Popen(["sleep", "60"], env={VARIABLE: "starting/1"}) as started:
            shown = environment_of(started.pid)
            started.kill()
            assert shown == f"{VARIABLE}=starting/1\0".encode()
