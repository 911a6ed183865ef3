"""HTTP/1.1 for the lab: kept-alive connections, one thread each, one write per answer."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
import traceback
from email.utils import formatdate
from http.client import responses
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.lab.api import JOIN_S, Api
from tests.lab.faults import CUT, Reply, reply
from tests.lab.log import Request


class Server(socketserver.ThreadingTCPServer):
    """Listens from the start; serves after ``open``.  ``source_ip``: told instead of the address seen."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], api: Api, source_ip: str | None) -> None:
        self.api = api
        self.source_ip = source_ip
        self._connections: dict[socket.socket, threading.Thread] = {}
        super().__init__(address, Handler)
        self._accepting = threading.Thread(target=self.serve_forever, args=(0.05,), name="lab")

    def open(self) -> None:
        self._accepting.start()

    def close(self) -> None:
        """End all connections and wait for their threads."""
        self.shutdown()
        self._accepting.join(JOIN_S)
        for connection, thread in list(self._connections.items()):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(JOIN_S)
        self.server_close()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        self._connections[request] = threading.current_thread()
        super().process_request_thread(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away; they are killed by tests."""


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
            answer = self.server.api.answer(request)
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            answer = reply(500, {"message": f"bug in the lab: {error!r}"})
        self.server.api.log.end(request, answer.status or None)
        if answer is CUT:
            self.close_connection = True
            return
        self._send(answer)
        self.server.api.faults.strike("answered", request)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve  # noqa: N815

    def _send(self, answer: Reply) -> None:
        now_s = time.time() + self.server.api.faults.clock_offset_s
        headers = {"Date": formatdate(now_s, usegmt=True), "Content-Type": answer.content_type}
        headers |= {"Content-Length": str(len(answer.body)), **dict(answer.headers)}
        lines = [f"HTTP/1.1 {answer.status} {responses.get(answer.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode() + answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """The lab keeps a log of its own."""
