"""One kept connection to a host: opened when first needed, shared by threads, opened anew when dead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import paramiko

from rain_deploy.core.model import Host
from rain_deploy.errors import Unreachable
from rain_deploy.transport.ssh_connect import connect, who

if TYPE_CHECKING:
    import fabric

OPEN_S = 30.0
"""For a server that is connected to say yes to one more channel."""
MAX_SESSIONS = 10
"""What an OpenSSH server allows on one connection by default."""


class Link:
    """``through`` is the connection to the last jump host before this one."""

    def __init__(self, host: Host, through: Link | None, connect_s: float) -> None:
        self.host = host
        self._through = through
        self._connect_s = connect_s
        self._connection: fabric.Connection | None = None
        self._lock = threading.Lock()
        self._sessions = threading.BoundedSemaphore(MAX_SESSIONS)

    @contextmanager
    def session(self, timeout_s: float | None) -> Iterator[paramiko.Channel]:
        """A channel for one command; waits while the server's limit of sessions is reached.

        Raises TimeoutError, HostKeyError, Unreachable.
        """
        if not self._sessions.acquire(timeout=timeout_s):
            raise TimeoutError
        try:
            with self._open(lambda transport: transport.open_session(timeout=OPEN_S)) as channel:
                yield channel
        finally:
            self._sessions.release()

    def tunnel(self, address: str, port: int) -> paramiko.Channel:
        """A TCP connection from the host to ``address:port``; raises HostKeyError, Unreachable."""

        def dial(transport: paramiko.Transport) -> paramiko.Channel:
            return transport.open_channel("direct-tcpip", (address, port), ("127.0.0.1", 0), timeout=OPEN_S)

        return self._open(dial)

    def reach(self) -> None:
        """Connect if there is no connection; raises HostKeyError, Unreachable."""
        with self._lock:
            self._transport()

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.client.close()

    def _open(self, opener: Callable[[paramiko.Transport], paramiko.Channel]) -> paramiko.Channel:
        with self._lock:
            kept = self._connection
            transport = self._transport()
            used = self._connection
        try:
            return opener(transport)
        except paramiko.ChannelException as error:
            raise self._lost(f"refused: {error.args[-1]}") from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            if used is not kept:
                raise self._lost(f"lost: {error}") from error
        # A kept connection can have died unnoticed.  Nothing was sent on it, so one new one is tried.
        self._forget(used)
        with self._lock:
            transport = self._transport()
        try:
            return opener(transport)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._lost(f"lost: {error}") from error

    def _transport(self) -> paramiko.Transport:
        """The live connection; called with the lock held, so that all threads share one attempt."""
        if self._connection is None or not self._connection.is_connected:
            through = self._through
            if through is None:
                self._connection = connect(self.host, None, self._connect_s)
            else:
                self._connection = connect(self.host, through.tunnel, self._connect_s)
        transport: paramiko.Transport = self._connection.transport
        return transport

    def _forget(self, connection: fabric.Connection) -> None:
        with self._lock:
            if self._connection is connection:
                self._connection = None
        connection.client.close()

    def _lost(self, how: str) -> Unreachable:
        return Unreachable(f"{who(self.host)}: the SSH connection was {how}", node=self.host.name)
