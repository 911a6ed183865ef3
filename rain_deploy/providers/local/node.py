"""A local node: an SSH server on a loopback address.  Run as ``python node.py CONFIG``.

CONFIG (JSON): ``address``, ``port``, ``directory``.  The directory holds ``host_key``, ``authorized_keys``,
``home/``, ``commands.jsonl`` (every command as it was received) and ``logins.jsonl``.  Descriptor 3 is a
lock, held for the life of the server: it tells the provider that the server runs.

This file imports nothing of the package, so that it can be started by its path.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ipaddress
import json
import os
import pty
import signal
import struct
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

LOCK_FD = 3
CHUNK_BYTES = 256 * 1024
LOGIN_SHELL = "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"


@dataclass(frozen=True, slots=True)
class Node:
    """The content of CONFIG."""

    address: str
    port: int
    directory: Path

    @property
    def home(self) -> Path:
        return self.directory / "home"

    def note(self, file: str, **what: str) -> None:
        """Append a line to a log in the directory."""
        with (self.directory / file).open("a", encoding="utf-8") as log:
            log.write(json.dumps({"t": time.time(), **what}) + "\n")


def main() -> None:
    """Serve until killed."""
    os.set_inheritable(LOCK_FD, False)  # noqa: FBT003 - the library's signature
    os.closerange(LOCK_FD + 1, 1024)  # left open further up, by whoever started the starter
    values = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    node = Node(values["address"], values["port"], Path(values["directory"]))
    os.chdir(node.home)
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, if the starter has it, must not reach the commands
    asyncio.run(_serve(node))


class Server(asyncssh.SSHServer):
    """Forwards to loopback addresses of this machine only."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def auth_completed(self) -> None:
        self._node.note("logins.jsonl")

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        del dest_port, orig_host, orig_port
        with contextlib.suppress(ValueError):  # it is a name
            return ipaddress.ip_address(dest_host).is_loopback
        return dest_host == "localhost"


class Files(asyncssh.SFTPServer):
    """The file system, with an exit status at the end: OpenSSH's scp fails without it."""

    def exit(self) -> None:
        self.channel.exit(0)


async def _serve(node: Node) -> None:
    server = await asyncssh.listen(
        node.address,
        node.port,
        server_factory=lambda: Server(node),
        server_host_keys=[str(node.directory / "host_key")],
        authorized_client_keys=str(node.directory / "authorized_keys"),
        password_auth=False,
        kbdint_auth=False,
        host_based_auth=False,
        process_factory=lambda process: Session(node, process).run(),
        sftp_factory=Files,
        allow_scp=False,  # scp is a command like any other
        agent_forwarding=False,
        x11_forwarding=False,
        line_editor=False,
        encoding=None,
        compression_algs=None,
        window=2 * 1024 * 1024,
        max_pktsize=CHUNK_BYTES,
        reuse_address=True,
        backlog=128,
    )
    await server.wait_closed()


class Session:
    """One exec or shell request, with or without a terminal."""

    def __init__(self, node: Node, process: asyncssh.SSHServerProcess[bytes]) -> None:
        self._node = node
        self._process = process
        self._terminal: int | None = None

    async def run(self) -> None:
        """Run the command and report its exit; send it SIGHUP if the client is lost."""
        if self._process.command is not None:
            self._node.note("commands.jsonl", command=self._process.command)
        child = await (self._on_terminal() if self._process.term_type else self._on_pipes())

        async def end() -> None:
            """Wait until the command has ended and, as OpenSSH does, until all that hold its output have."""
            await child.wait()
            await self._process.stdout.drain()
            await self._process.stderr.drain()

        stdin = asyncio.create_task(self._carry_input(child))
        closed = asyncio.create_task(self._process.channel.wait_closed())
        ended = asyncio.create_task(end())
        await asyncio.wait((closed, ended), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            _signal_group(child.pid, signal.SIGHUP)
        terminal, self._terminal = self._terminal, None
        if terminal is not None:
            os.close(terminal)
        if child.stdin is not None:
            child.stdin.close()
        stdin.cancel()
        await child.wait()
        status = child.returncode or 0
        if not closed.done() and status < 0:
            self._process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        elif not closed.done():
            self._process.exit(status)
        await asyncio.gather(stdin, closed, ended, return_exceptions=True)

    async def _on_pipes(self) -> asyncio.subprocess.Process:
        out, err = os.pipe(), os.pipe()
        child = await self._start(asyncio.subprocess.PIPE, out[1], err[1])
        os.close(out[1])
        os.close(err[1])
        await self._process.redirect(stdout=out[0], stderr=err[0], send_eof=False)
        return child

    async def _on_terminal(self) -> asyncio.subprocess.Process:
        self._terminal, slave = pty.openpty()
        self._resize(self._process.term_size)
        name = os.ttyname(slave)

        def take_terminal() -> None:
            # For the leader of a new session, opening it makes it the controlling terminal.
            os.close(os.open(name, os.O_RDWR))

        environment = {**os.environ, "TERM": self._process.term_type or "dumb"}
        child = await self._start(slave, slave, slave, env=environment, preexec_fn=take_terminal)
        os.close(slave)
        await self._process.redirect(stdout=os.dup(self._terminal), send_eof=False)
        return child

    async def _start(self, stdin: int, stdout: int, stderr: int, **how: Any) -> asyncio.subprocess.Process:
        command = self._process.command
        argv = (LOGIN_SHELL, "-l") if command is None else ("/bin/sh", "-c", command)
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=self._node.home,
            start_new_session=True,
            **how,
        )

    async def _carry_input(self, child: asyncio.subprocess.Process) -> None:
        while True:
            try:
                data = await self._process.stdin.read(CHUNK_BYTES)
            except asyncssh.TerminalSizeChanged as change:
                self._resize(change.term_size)
                continue
            except asyncssh.SignalReceived as received:
                _signal_group(child.pid, signal.Signals[f"SIG{received.signal}"])
                continue
            except asyncssh.BreakReceived:
                continue
            with contextlib.suppress(OSError):
                if self._terminal is not None:
                    # People type into terminals: a few bytes fit, and more than that waits in a thread.
                    await asyncio.to_thread(_write_all, self._terminal, data)
                elif child.stdin is not None:
                    child.stdin.write(data)
                    await child.stdin.drain()
                if data:
                    continue
            if child.stdin is not None:
                child.stdin.close()
            return

    def _resize(self, size: tuple[int, int, int, int]) -> None:
        width, height, width_pixels, height_pixels = size
        if self._terminal is not None:
            packed = struct.pack("HHHH", height, width, width_pixels, height_pixels)
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, packed)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _signal_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


if __name__ == "__main__":
    main()
