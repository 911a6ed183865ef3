"""HTTP/1.1 for the lab: kept-alive connections, one thread each, one write per answer."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
import traceback
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from tests.lab.api import Api
from tests.lab.faults import CutError, Reply, reply
from tests.lab.log import Request

JOIN_S = 5.0  # how long ``close`` waits for a request that is being served


class Server(socketserver.ThreadingMixIn, HTTPServer):
    """Listens from the start; serves after ``open``."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, api: Api, source_ip: str | None) -> None:
        self.api = api
        self.source_ip = source_ip
        self._connections: dict[socket.socket, threading.Thread | None] = {}
        super().__init__((host, port), Handler)
        self._accepting = threading.Thread(target=self.serve_forever, args=(0.05,), name="lab")

    def server_bind(self) -> None:
        """Bind without the name look-up of HTTPServer."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def open(self) -> None:
        """Begin to serve."""
        self._accepting.start()

    def close(self) -> None:
        """End all connections and wait for their threads."""
        self.shutdown()
        self._accepting.join(JOIN_S)
        connections = dict(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in connections.values():
            if thread is not None:
                thread.join(JOIN_S)
        self.server_close()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection, known to ``close``."""
        self._connections[request] = threading.current_thread()
        super().process_request_thread(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection, then close it."""
        self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away; they are killed by tests."""
        del request, client_address


class Handler(BaseHTTPRequestHandler):
    """Turns bytes into a Request and a Reply into bytes."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        source = self.server.source_ip or self.client_address[0]
        request = Request(self.command, path, query, headers, body, source)
        try:
            answer = self._answer(request)
        except CutError:
            self.server.api.log.end(request, None)
            self._cut()
            return
        self.server.api.log.end(request, answer.status)
        self._send(answer)
        with contextlib.suppress(CutError):
            self.server.api.faults.strike("answered", request)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve  # noqa: N815

    def _answer(self, request: Request) -> Reply:
        try:
            return self.server.api.answer(request)
        except CutError:
            raise
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            return reply(500, {"message": f"bug in the lab: {error!r}"})

    def _send(self, answer: Reply) -> None:
        now_s = time.time() + self.server.api.faults.clock_offset_s
        headers = (
            ("Date", formatdate(now_s, usegmt=True)),
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            *answer.headers,
        )
        lines = [f"HTTP/1.1 {answer.status} {_phrase(answer.status)}"]
        lines += [f"{name}: {value}" for name, value in headers]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode() + answer.body)

    def _cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """The lab keeps a log of its own."""


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
