"""Opens an SSH connection with fabric: pinned host keys, the host's login keys, a deadline, no stalls."""

import base64
import hashlib
import logging
import socket
import threading
from typing import Any

import fabric
import paramiko

from rain_deploy.core.machine import Host
from rain_deploy.errors import HostKeyError, Unreachable
from rain_deploy.transport.channel import LOST, closing_after, hang_up
from rain_deploy.transport.frame import ssh_words
from rain_deploy.transport.keys import Keys

# Without a handler, logging prints paramiko's tracebacks to stderr.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

PREFERRED_CIPHER = "aes128-gcm@openssh.com"
MAX_PACKET_BYTES = 256 * 1024
WINDOW_BYTES = 2 * 1024 * 1024
"""A larger window makes paramiko slower: its buffers move what is left on every read."""
_RSA = ("rsa-sha2-512", "rsa-sha2-256")
_KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", *_RSA)


def open_connection(host: Host, gateway: fabric.Connection | None, timeout_s: float) -> fabric.Connection:
    """Log in to ``host``, through its jump host ``gateway`` if it has one.

    Raises HostKeyError, Unreachable (no answer within ``timeout_s``, login refused), and one of LOST if
    the jump host does not lead to ``host``.
    """
    login = _Login(host, gateway, timeout_s)
    connection = login.connection
    try:
        if gateway is None:
            connection.connect_kwargs["sock"] = TunedSocket.connected(host.address, host.port, timeout_s)
        with closing_after(timeout_s, login.expire):
            connection.open()
    except BaseException as error:
        connection.client.close()
        if not isinstance(error, (*LOST, ValueError)) or (gateway is not None and not login.started):
            raise
        raise login.explain(error) from error
    if not login.verified:
        connection.client.close()
        raise _unknown_key(host)
    if gateway is not None:
        connection.transport.set_keepalive(15)  # the socket's own probes end at the jump host
    return connection


class _Login:
    """One attempt to log in.  It is paramiko's policy for host keys too, and accepts only the pinned ones."""

    def __init__(self, host: Host, gateway: fabric.Connection | None, timeout_s: float) -> None:
        self._host = host
        kinds = dict.fromkeys(key.partition(" ")[0] for key in host.host_keys)
        names = (name for kind in kinds for name in (_RSA if kind == "ssh-rsa" else (kind,)))
        # The server has to prove that it owns one of the pinned keys, so only their algorithms are offered.
        self._algorithms = tuple(name for name in names if name in _KEY_TYPES)
        if not self._algorithms:
            raise _unknown_key(host)
        self._late = threading.Event()
        self.started = self.verified = False
        timeouts = ("timeout", "banner_timeout", "auth_timeout", "channel_timeout")
        self.connection = fabric.Connection(
            host.address,
            user=host.user,
            port=host.port,
            # The user's fabric.yml and ~/.ssh/config must not change where this tool connects to.
            # Settings of its own: a connection empties and fills them, and others open at the same time.
            config=fabric.Config(lazy=True, overrides={"load_ssh_configs": False}),
            gateway=False if gateway is None else gateway,
            connect_kwargs={
                "auth_strategy": Keys(host),
                "transport_factory": self._transport,
                **dict.fromkeys(timeouts, timeout_s),
            },
        )
        self.connection.client.set_missing_host_key_policy(self)

    def _transport(self, sock: Any, **options: Any) -> paramiko.Transport:
        """Return paramiko's side of the connection over ``sock``, which is open."""
        self.started = True
        if self._late.is_set():
            raise TimeoutError
        sock = TunnelSocket(sock) if isinstance(sock, paramiko.Channel) else sock
        transport = paramiko.Transport(sock, WINDOW_BYTES, MAX_PACKET_BYTES, **options)
        security = transport.get_security_options()
        security.ciphers = tuple(sorted(security.ciphers, key=lambda name: name != PREFERRED_CIPHER))
        security.key_types = self._algorithms
        return transport

    def missing_host_key(self, _client: object, _hostname: str, key: Any) -> None:
        """Judge the key that the server proved to own, before any login.  Raises HostKeyError."""
        offered = f"{key.get_name()} {key.get_base64()}"
        if offered not in self._host.host_keys:
            raise _changed_key(self._host, f"it offers {fingerprint(offered)}")
        self.verified = True

    def expire(self) -> None:
        """End the attempt, from another thread."""
        self._late.set()
        self.connection.client.close()

    def explain(self, error: BaseException) -> HostKeyError | Unreachable:
        """Return the error for the user, by how far the login came."""
        host = self._host
        where = f"{host.title}: {host.address} port {host.port}"
        if isinstance(error, paramiko.ssh_exception.IncompatiblePeer) and "host key" in str(error):
            return _changed_key(host, "it has no key of a pinned type")
        if self._late.is_set():
            return Unreachable(f"{where}: the SSH login did not finish in time", node=host.name)
        if self.verified:
            files = ", ".join(map(str, host.identity_files)) or "no key file"
            agent = " and the agent" if host.use_agent and not host.identities_only else ""
            problem = f"refused the login of {host.user} with {files}{agent} ({error})"
        else:
            problem = f"was not reached: {str(error) or 'the connection was closed'}"
        return Unreachable(f"{where} {problem}", node=host.name)


class TunedSocket(socket.socket):
    """TCP without Nagle's algorithm and without delayed acknowledgements; notices a dead peer within 60 s.

    Nagle here and delayed acknowledgements there cost 40 ms whenever a server answers in two writes.
    """

    @classmethod
    def connected(cls, address: str, port: int, timeout_s: float) -> "TunedSocket":
        """Connect to the first address that answers (paramiko itself gives up earlier).  Raises OSError."""
        plain = socket.create_connection((address, port), timeout=timeout_s)
        tuned = cls(plain.family, plain.type, plain.proto, fileno=plain.detach())
        tuned.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_NODELAY", 1),
            ("TCP_KEEPIDLE", 15),
            ("TCP_KEEPALIVE", 15),  # the name of TCP_KEEPIDLE on macOS
            ("TCP_KEEPINTVL", 10),
            ("TCP_KEEPCNT", 3),
            ("TCP_USER_TIMEOUT", 50_000),  # milliseconds
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
    """A jump host's channel as a socket; closed after a loss, a bare one raises in paramiko's thread."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def close(self) -> None:
        hang_up(self._channel)


def fingerprint(key: str) -> str:
    """Return the fingerprint of ``keytype base64`` as OpenSSH shows it."""
    kind, _, body = key.partition(" ")
    digest = hashlib.sha256(base64.b64decode(body)).digest()
    return f"{kind} SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def _unknown_key(host: Host) -> HostKeyError:
    login = ssh_words(host)
    message = f"{host.title}: its host key is not known here; run `{login}` once, check it and accept it"
    return HostKeyError(message, node=host.name, next_step=login)


def _changed_key(host: Host, problem: str) -> HostKeyError:
    expected = ", ".join(fingerprint(key) for key in host.host_keys)
    return HostKeyError(
        f"{host.title}: the host key at {host.address} port {host.port} has changed: {problem}, "
        f"expected was {expected}; it is another machine, or somebody is in between",
        node=host.name,
    )
