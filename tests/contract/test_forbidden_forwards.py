"""A tunnel is open only where the SSH server lets one forward: its settings and the key's options decide."""

from __future__ import annotations

import contextlib
import getpass
import socket
from pathlib import Path

import pytest

from rain_deploy.core.machine import Host
from rain_deploy.core.step import Command
from rain_deploy.errors import Unreachable
from rain_deploy.providers.keys import public_key
from rain_deploy.transport.ssh import SshTransport
from tests.contract.servers import ADDRESS
from tests.support.sshd import SSHD, OpenSshd

pytestmark = pytest.mark.skipif(not SSHD.exists(), reason=f"no {SSHD}: install openssh-server")


@pytest.mark.parametrize(
    ("setting", "option", "allowed"),
    [
        ("AllowTcpForwarding no", "", False),
        ("AllowTcpForwarding remote", "", False),
        ("DisableForwarding yes", "", False),
        ("PermitOpen 127.0.0.1:1", "", False),
        ("AllowTcpForwarding yes", "no-port-forwarding ", False),
        ("AllowTcpForwarding yes", "restrict ", False),
        ("AllowTcpForwarding yes", 'permitopen="192.0.2.1:7" ', False),
        ("AllowTcpForwarding yes", "", True),
    ],
)
@pytest.mark.parametrize("listening", [True, False])
def test_a_forward_is_refused_where_it_is_forbidden(
    tmp_path: Path, transport: SshTransport, *, setting: str, option: str, allowed: bool, listening: bool
) -> None:
    key, host_key = tmp_path / "id_ed25519", tmp_path / "host_ed25519"
    public, pinned = option + public_key(key), public_key(host_key)
    server = OpenSshd(tmp_path, ADDRESS, public, [host_key], {"HOME": tmp_path}, setting)
    host = Host("node-1", ADDRESS, server.port, getpass.getuser(), (pinned,), identity_files=(key,))
    with contextlib.closing(server), socket.socket() as far:
        far.bind((ADDRESS, 0))
        port = far.getsockname()[1]
        if listening:
            far.listen()
        if allowed:
            forward = transport.forward(host, ADDRESS, port)
            assert forward.local_port
            forward.close()
        else:
            words = f"its SSH server does not let {host.user} forward to {ADDRESS} port {port}"
            with pytest.raises(Unreachable, match=words) as caught:
                transport.forward(host, ADDRESS, port)
            assert "AllowTcpForwarding" in (caught.value.next_step or "")
        assert transport.run(host, Command(("echo", "still here"))).stdout == b"still here\n"
        transport.close()
