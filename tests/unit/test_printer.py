"""A dry run notes what would be sent, and opens no socket."""

from __future__ import annotations

import subprocess
import sys

from rain_deploy.core.command import Command, CommandResult
from rain_deploy.core.model import Host
from rain_deploy.transport.printer import Printer

HOSTS = tuple(Host(f"node-{index}", "192.0.2.1", 22, "root", ()) for index in (1, 2))


def test_commands_are_noted_in_order_and_succeed() -> None:
    printer = Printer()
    sent = [(HOSTS[1], Command(("b",))), (HOSTS[0], Command(("a",))), (HOSTS[1], Command(("c",)))]
    for host, command in sent:
        assert printer.run(host, command) == CommandResult(0, b"", b"", 0.0)
    printer.forward(HOSTS[0], "192.0.2.1", 80).close()
    printer.close()
    assert printer.sent == sent


def test_no_socket_is_opened_and_no_ssh_client_loaded() -> None:
    program = """
import sys
sys.addaudithook(lambda event, _: event.startswith("socket.") and sys.exit(f"opened: {event}"))
from rain_deploy.core.command import Command
from rain_deploy.core.model import Host
from rain_deploy.transport.printer import Printer
host = Host("node-1", "192.0.2.1", 22, "root", ())
Printer().run(host, Command(("true",)))
Printer().forward(host, "192.0.2.1", 80)
sys.exit("loaded" if {"paramiko", "fabric"} & set(sys.modules) else 0)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
