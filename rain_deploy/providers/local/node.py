"""A local node: an SSH server on a loopback address.  Run as ``python node.py CONFIG``.

CONFIG (JSON): ``address``, ``port``, ``directory``.  The directory holds ``host_key``, ``authorized_keys``,
``home/``, ``commands.jsonl`` (every command as it was received) and ``logins.jsonl``.  Descriptor 3 is a
lock, held for the life of the server: it tells the provider that the server runs.

This file imports nothing of the package, so that it can be started by its path.
"""

import asyncio
import contextlib
import ipaddress
import json
import os
import pty
import signal
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
        process_factory=lambda process: _run(node, process),
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


async def _start(
    node: Node, process: asyncssh.SSHServerProcess[bytes]
) -> tuple[asyncio.subprocess.Process, int | None]:
    """Start the command, or a login shell; return it and its terminal, if the client asked for one."""
    command, master = process.command, None
    argv = (LOGIN_SHELL, "-l") if command is None else ("/bin/sh", "-c", command)
    how: dict[str, Any] = {"cwd": node.home, "start_new_session": True}
    if process.term_type:
        master, slave = pty.openpty()
        termios.tcsetwinsize(master, process.term_size[1::-1])
        name = os.ttyname(slave)
        # For the leader of a new session, opening it makes it the controlling terminal.
        how["preexec_fn"] = lambda: os.close(os.open(name, os.O_RDWR))
        how["env"] = {**os.environ, "TERM": process.term_type}
        stdin = stdout = stderr = slave
        await process.redirect(None, os.dup(master), send_eof=False)
    else:
        stdin, (output, stdout), (errors, stderr) = asyncio.subprocess.PIPE, os.pipe(), os.pipe()
        await process.redirect(None, output, errors, send_eof=False)
    child = await asyncio.create_subprocess_exec(*argv, stdin=stdin, stdout=stdout, stderr=stderr, **how)
    for descriptor in {stdout, stderr}:
        os.close(descriptor)
    return child, master


async def _run(node: Node, process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Run one exec or shell request, with or without a terminal; send it SIGHUP if the client is lost."""
    if process.command is not None:
        node.note("commands.jsonl", command=process.command)
    child, master = await _start(node, process)

    async def end() -> None:
        """Wait until the command has ended and, as OpenSSH does, until all that hold its output have."""
        await child.wait()
        await process.stdout.drain()
        await process.stderr.drain()

    feeding = asyncio.create_task(_feed(process, child, master))
    closed = asyncio.create_task(process.channel.wait_closed())
    ended = asyncio.create_task(end())
    await asyncio.wait((closed, ended), return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():
        _signal_group(child.pid, signal.SIGHUP)
    feeding.cancel()
    if master is not None:
        os.close(master)
    if child.stdin is not None:
        child.stdin.close()
    await child.wait()
    status = child.returncode or 0
    if not closed.done() and status < 0:
        process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
    elif not closed.done():
        process.exit(status)
    await asyncio.gather(feeding, closed, ended, return_exceptions=True)


async def _feed(
    process: asyncssh.SSHServerProcess[bytes], child: asyncio.subprocess.Process, master: int | None
) -> None:
    """Pass input and signals to the command until the input ends or the command takes no more."""
    data = b" "
    while data:
        try:
            data = await process.stdin.read(CHUNK_BYTES)
            if master is not None:
                # People type into terminals: a few bytes fit, and more than that waits in a thread.
                await asyncio.to_thread(_write_all, master, data)
            elif child.stdin is not None:
                child.stdin.write(data)
                await child.stdin.drain()
        except asyncssh.TerminalSizeChanged as change:
            if master is not None:
                termios.tcsetwinsize(master, (change.height, change.width))
        except asyncssh.SignalReceived as received:
            _signal_group(child.pid, signal.Signals[f"SIG{received.signal}"])
        except asyncssh.BreakReceived:
            pass
        except OSError:
            break
    if child.stdin is not None:
        child.stdin.close()


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _signal_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


if __name__ == "__main__":
    main()
