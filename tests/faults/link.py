"""A network between commands and the lab, which can be lost and come back."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Self

ACCEPT_S = 0.05
"""How often a closed link is noticed."""
_RESET = struct.pack("ii", 1, 0)


class Link:
    """Carries connections to a port of this machine; open inside ``with``."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self.port = 0

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def open(self) -> None:
        """Accept connections, at the same port as ever."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        listener.settimeout(ACCEPT_S)
        self._stopped = threading.Event()
        self._start(self._accept, listener, self._stopped)

    def cut(self) -> None:
        """Refuse new connections, and reset those that there are."""
        self._stopped.set()
        with self._lock:
            for each in self._sockets:
                with contextlib.suppress(OSError):
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    each.shutdown(socket.SHUT_RDWR)

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket, stopped: threading.Event) -> None:
        with listener:
            while not stopped.is_set():
                with contextlib.suppress(TimeoutError):
                    near, _ = listener.accept()
                    self._carry(near)

    def _carry(self, near: socket.socket) -> None:
        far = socket.create_connection(("127.0.0.1", self._target_port))
        with self._lock:
            self._sockets |= {near, far}
        self._start(self._pump, near, far)
        self._start(self._pump, far, near)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._sockets.discard(source)
        source.close()
