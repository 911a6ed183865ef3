"""One SSH connection: a socket without stalls, a pinned host key, the host's own login keys, a deadline."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fabric
import paramiko

from rain_deploy.core.machine import Host
from rain_deploy.errors import HostKeyError, Unreachable
from rain_deploy.transport.ssh_exchange import LOST, hang_up

# Without a handler, logging prints paramiko's tracebacks to stderr; whoever wants them adds a handler.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

DEAD_PEER_S = 50
"""Unanswered data or probes for this long end a connection."""
PREFERRED_CIPHER = "aes128-gcm@openssh.com"
MAX_PACKET_BYTES = 256 * 1024
WINDOW_BYTES = 2 * 1024 * 1024
"""Larger makes paramiko slower: its buffers move what is left on every read."""
_RSA = ("rsa-sha2-512", "rsa-sha2-256")

# The user's fabric.yml and ~/.ssh/config must not change where this tool connects to.
_CONFIG = fabric.Config(lazy=True, overrides={"load_ssh_configs": False})


def who(host: Host) -> str:
    """The host as messages call it: our name, and the user's where there is one."""
    return f"{host.name} ({host.label})" if host.label else host.name


class TunedSocket(socket.socket):
    """TCP without Nagle and without delayed acknowledgements; a dead peer is noticed within 60 s.

    Nagle here and delayed acknowledgements there cost 40 ms whenever a server answers in two writes.
    """

    @classmethod
    def connected(cls, address: str, port: int, timeout_s: float) -> TunedSocket:
        """Connect to the first address that answers; raises OSError."""
        plain = socket.create_connection((address, port), timeout=timeout_s)
        tuned = cls(plain.family, plain.type, plain.proto, fileno=plain.detach())
        tuned.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tuned.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", 15),
            ("TCP_KEEPALIVE", 15),  # macOS calls the idle time so
            ("TCP_KEEPINTVL", 10),
            ("TCP_KEEPCNT", 3),
            ("TCP_USER_TIMEOUT", DEAD_PEER_S * 1000),
        ):
            if hasattr(socket, name):
                tuned.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return tuned

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        data = super().recv(bufsize, flags)
        if data and hasattr(socket, "TCP_QUICKACK"):
            # The kernel clears it by itself, so it is set again after every read.
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return data


class TunnelSocket:
    """A channel of a jump host's connection as the socket of the next one.

    It can be closed after that connection was lost; a bare channel would raise, in paramiko's own thread.
    """

    def __init__(self, channel: paramiko.Channel) -> None:
        self.send = channel.send
        self.recv = channel.recv
        self.settimeout = channel.settimeout
        self._channel = channel

    @property
    def _closed(self) -> bool:
        """What paramiko asks its sockets."""
        return bool(self._channel.closed)

    def close(self) -> None:
        hang_up(self._channel)


class PinnedKeys:
    """The only judge of host keys: what is not pinned is refused before any login is tried."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.verified = False

    def missing_host_key(self, _client: object, _hostname: str, key: Any) -> None:
        """Called by paramiko with the key that the server proved to own; raises HostKeyError."""
        offered = f"{key.get_name()} {key.get_base64()}"
        if offered not in self._host.host_keys:
            raise changed(self._host, f"it offers {fingerprint(offered)}")
        self.verified = True


def fingerprint(key: str) -> str:
    """``keytype base64`` as OpenSSH shows it."""
    kind, _, body = key.partition(" ")
    digest = hashlib.sha256(base64.b64decode(body)).digest()
    return f"{kind} SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def unknown(host: Host) -> HostKeyError:
    """Nothing is pinned for the host."""
    port = "" if host.port == 22 else f"-p {host.port} "  # noqa: PLR2004 - SSH's port
    login = f"ssh {host.label or f'{port}{host.user}@{host.address}'}"
    message = f"{who(host)}: its host key is not known here; run `{login}` once, check it and accept it"
    return HostKeyError(message, node=host.name, next_step=login)


def changed(host: Host, seen: str) -> HostKeyError:
    """The server is not the one that was pinned."""
    expected = ", ".join(fingerprint(key) for key in host.host_keys)
    return HostKeyError(
        f"{who(host)}: the host key at {host.address} port {host.port} has changed: {seen}, "
        f"expected was {expected}; it is another machine, or somebody is in between",
        node=host.name,
    )


def host_key_algorithms(host: Host) -> tuple[str, ...]:
    """What the server is asked to prove: the types of the pinned keys only, in their order."""
    kinds = dict.fromkeys(key.partition(" ")[0] for key in host.host_keys)
    names = (name for kind in kinds for name in (_RSA if kind == "ssh-rsa" else (kind,)))
    return tuple(name for name in names if name in _SUPPORTED)


_SUPPORTED = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", *_RSA)


@contextmanager
def closing_after(seconds: float, close: Any) -> Iterator[threading.Timer]:
    """Call ``close`` from another thread when the block takes longer: a stuck library call ends then."""
    watchdog = threading.Timer(seconds, close)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield watchdog
    finally:
        watchdog.cancel()


Tunnel = Callable[[str, int], paramiko.Channel]
"""Opens a TCP connection from a jump host to an address and port."""


def connect(host: Host, through: Tunnel | None, timeout_s: float) -> fabric.Connection:
    """Log in to ``host``, by way of a jump host when ``through`` is given.

    Raises HostKeyError, Unreachable (no answer within ``timeout_s`` seconds, login refused).
    """
    algorithms = host_key_algorithms(host)
    if not algorithms:
        raise unknown(host)
    pinned = PinnedKeys(host)
    connection = _prepare(host, algorithms, timeout_s)
    connection.client.set_missing_host_key_policy(pinned)
    late = threading.Event()

    def expire() -> None:
        late.set()
        connection.client.close()

    try:
        connection.connect_kwargs["sock"] = (
            TunnelSocket(through(host.address, host.port))
            if through
            else TunedSocket.connected(host.address, host.port, timeout_s)
        )
        with closing_after(timeout_s, expire):
            connection.open()
    except BaseException as error:
        connection.client.close()
        if not isinstance(error, (*LOST, ValueError)):
            raise
        raise _explain(host, error, timed_out=late.is_set(), verified=pinned.verified) from error
    if not pinned.verified:
        connection.client.close()
        raise unknown(host)
    if through is not None:
        connection.transport.set_keepalive(15)  # the socket's own probes end at the jump host
    return connection


def _prepare(host: Host, algorithms: tuple[str, ...], timeout_s: float) -> fabric.Connection:
    def make_transport(sock: Any, **options: Any) -> paramiko.Transport:
        transport = paramiko.Transport(
            sock, default_window_size=WINDOW_BYTES, default_max_packet_size=MAX_PACKET_BYTES, **options
        )
        security = transport.get_security_options()
        ciphers = tuple(security.ciphers)
        security.ciphers = tuple(sorted(ciphers, key=lambda name: name != PREFERRED_CIPHER))
        security.key_types = algorithms
        return transport

    kwargs = {
        "allow_agent": host.use_agent,
        "look_for_keys": False,
        "key_filename": [str(path) for path in host.identity_files if os.access(path, os.R_OK)],
        "timeout": timeout_s,
        "banner_timeout": timeout_s,
        "auth_timeout": timeout_s,
        "channel_timeout": timeout_s,
        "transport_factory": make_transport,
    }
    return fabric.Connection(
        host.address, user=host.user, port=host.port, config=_CONFIG, gateway=False, connect_kwargs=kwargs
    )


def _explain(
    host: Host, error: BaseException, *, timed_out: bool, verified: bool
) -> HostKeyError | Unreachable:
    """What went wrong, in the order in which a login proceeds."""
    where = f"{who(host)}: {host.address} port {host.port}"
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer) and "host key" in str(error):
        return changed(host, "it has no key of a pinned type")
    if timed_out:
        return Unreachable(f"{where}: the SSH login did not finish in time", node=host.name)
    if verified:
        files = ", ".join(map(str, host.identity_files)) or "no key file"
        agent = " and the agent" if host.use_agent else ""
        return Unreachable(
            f"{where} refused the login of {host.user} with {files}{agent} ({error})", node=host.name
        )
    reason = str(error) or "the connection was closed"
    return Unreachable(f"{where} was not reached: {reason}", node=host.name)
