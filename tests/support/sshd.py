"""The system's own SSH server, at an address of the tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.network import free_port, wait_for_port

SSHD = Path("/usr/sbin/sshd")


def sshd_command(
    directory: Path,
    listen: str,
    host_keys: Sequence[Path],
    environment: Mapping[str, object],
    *settings: str,
) -> list[str]:
    """Write the configuration of a server that reads ``authorized_keys`` there, and return what starts it."""
    config = directory / "sshd_config"
    lines = [
        *(f"HostKey {key}" for key in host_keys),
        f"ListenAddress {listen}",
        f"AuthorizedKeysFile {directory}/authorized_keys",
        "PidFile none",
        "StrictModes no",
        "UsePAM no",
        "SetEnv " + " ".join(f"{name}={value}" for name, value in environment.items()),
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "MaxStartups 100",
        "Subsystem sftp internal-sftp",
        *settings,
    ]
    config.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if os.geteuid() == 0:  # sshd insists on this directory, and only the boot of an installed system makes it
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    return [str(SSHD), "-D", "-e", "-f", str(config)]


class OpenSshd:
    """A running server that lets one public key in."""

    def __init__(
        self,
        directory: Path,
        address: str,
        authorized: str,
        host_keys: Sequence[Path],
        environment: Mapping[str, object],
        *settings: str,
    ) -> None:
        self.port = free_port(address)
        (directory / "authorized_keys").write_text(f"{authorized}\n", encoding="utf-8")
        command = sshd_command(directory, f"{address}:{self.port}", host_keys, environment, *settings)
        with (directory / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
        wait_for_port(address, self.port)

    @property
    def pid(self) -> int:
        """The id of the process that listens."""
        return self._process.pid

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(timeout=10)
