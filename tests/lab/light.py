"""Light machines for the lab: instances that are SSH servers of this machine and obey their user-data.

No root, no cloud-init: of the user-data they take the host key, the authorized keys, the files (under a
directory of their own) and the program that powers a machine off, which runs several times a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rain_deploy.providers.keys import public_key
from rain_deploy.providers.local.provider import installer_environment
from rain_deploy.providers.local.server import PORT, VARIABLE, end_processes, pids_of, user_name
from tests.lab.light_stubs import write_stubs
from tests.lab.machines import Instance, NoAddressError, ignore_power_off
from tests.support.network import WORKER

NODE_PROGRAM = Path(__file__).parents[2] / "rain_deploy" / "providers" / "local" / "node.py"
MACHINE = "var/lib/rain-deploy-machine"
LIMIT_PROGRAM = "usr/local/sbin/rain-deploy-limit"
LOOK_EVERY_S = 0.3
_SPAWNING = threading.Lock()
"""Between fork and exec, a child holds all open files; what is open for writing cannot be executed."""
_SYSTEM_DEADLINE_S = 60.0
_POOL = 2000


class LightMachines:
    """Implements ``tests.lab.machines.Machines`` in ``directory``.

    ``network``: the first two numbers of its addresses, else chosen.  ``size``: of the pool; the lowest free
    address is given.  ``cache``: of engines and environments, shared with others.
    """

    def __init__(
        self,
        directory: Path,
        *,
        network: str = "",
        size: int = _POOL,
        port: int = PORT,
        cache: Path | None = None,
    ) -> None:
        self.on_power_off = ignore_power_off
        self._directory = directory.absolute()
        self.network = (
            network or f"127.{random.SystemRandom().randrange(110 + WORKER, 200, 8)}"
        )  # no other file uses these
        self._size = size
        self._port = port
        self._lock = threading.Lock()
        self._machines: dict[str, LightMachine] = {}
        self.base = self._directory / "base"
        for made in (self._directory, self.base, self._directory / "machines"):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)
        if cache is not None and not (self.base / "cache").exists():
            (self.base / "cache").symlink_to(cache)

    def create(self, instance: Instance) -> str:
        """Boot one; its SSH server answers some moments later, as with real ones."""
        with self._lock:
            address = self._free_address()
            machine = LightMachine(self._directory, instance.id, address, self._port)
            self._machines[instance.id] = machine
        machine.make(instance)
        self.start(instance.id)
        return address

    def start(self, instance_id: str) -> None:
        """Boot it: nothing of what ran before runs again."""
        self._machines[instance_id].start(self.on_power_off)

    def stop(self, instance_id: str) -> None:
        """End every process of it."""
        self._machines[instance_id].stop()

    def delete(self, instance_id: str) -> None:
        """End it, and remove its directory and what it had of its clusters."""
        machine = self._machines.get(instance_id)
        if machine is not None:
            machine.stop()
            machine.remove()
            with self._lock:
                del self._machines[instance_id]

    def running(self, instance_id: str) -> bool:
        """Whether it was started and has not gone off."""
        return self._machines[instance_id].running

    def machine(self, instance_id: str) -> LightMachine:
        """The machine itself, for what tests do to it."""
        return self._machines[instance_id]

    def close(self) -> None:
        """Delete all."""
        for instance_id in tuple(self._machines):
            self.delete(instance_id)

    def _free_address(self) -> str:
        taken = {machine.address for machine in self._machines.values()}
        for number in range(self._size):
            address = f"{self.network}.{number // 250}.{number % 250 + 1}"
            if address not in taken and _can_listen(address, self._port):
                return address
        raise NoAddressError(f"all {self._size} addresses are taken")


class LightMachine:
    """One machine: ``directory`` is all of its disk but what it writes under the shared base."""

    def __init__(self, lab: Path, instance_id: str, address: str, port: int) -> None:
        self.address = address
        self.port = port
        self.directory = lab / "machines" / instance_id
        self.running = False
        self.marker = f"{lab}/{instance_id}"
        self._base = lab / "base"
        self._halt = threading.Event()
        self._watch: threading.Thread | None = None
        self._server = 0

    def make(self, instance: Instance) -> None:
        """What cloud-init does at a first boot."""
        told = parse_user_data(instance.user_data)
        home = self.directory / "home"
        for made in (self.directory, home):
            made.mkdir(mode=0o700)
        (home / ".bashrc").touch(mode=0o600)
        host_key = self.directory / "host_key"
        if private := told.get("ssh_keys", {}).get("ed25519_private"):
            _write(host_key, private, 0o600)
        public_key(host_key)
        keys = (*instance.public_keys, *told.get("ssh_authorized_keys", ()))
        _write(self.directory / "authorized_keys", "".join(f"{key}\n" for key in keys), 0o600)
        for file in told.get("write_files", ()):
            _write(self.path(file["path"]), file["content"], int(file.get("permissions", "0644"), 8))
        config = {"address": self.address, "port": self.port, "directory": str(self.directory)}
        _write(self.directory / "config.json", json.dumps(config), 0o600)
        with _SPAWNING:
            write_stubs(self.directory / "bin", self.directory, self.address, self.port)
        for command in told.get("runcmd", ()):
            self._as_root(*command)

    def path(self, absolute: str) -> Path:
        """Where a file of the machine's own disk lies here."""
        return self.directory / "disk" / absolute.lstrip("/")

    def start(self, on_power_off: Callable[[str], None]) -> None:
        """Boot; a running one is success.  ``on_power_off`` gets the id when it goes off by itself."""
        if self.running:
            return
        (self.directory / "powered-off").unlink(missing_ok=True)
        booted = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        _write(self.directory / "booted", f"{booted}\n", 0o600)
        self._halt.clear()
        self.running = True
        self._spawn()
        self._watch = threading.Thread(target=self._look_on, args=(on_power_off,), daemon=True)
        self._watch.start()

    def stop(self) -> None:
        """End all of its processes; success also when it is off."""
        self._halt.set()
        if self._watch is not None and self._watch is not threading.current_thread():
            self._watch.join()
        self.running = False
        self._cut_power()
        end_processes(self.marker)
        if self._server:
            # While it is being started, the kernel shows no environment of it, by which it could be found.
            os.kill(self._server, signal.SIGKILL)
            os.waitpid(self._server, 0)
            self._server = 0

    def _cut_power(self) -> None:
        """Hold all and then kill all: its services start each other again as long as one runs."""
        held: set[int] = set()
        while fresh := set(pids_of(self.marker)) - held:
            _signal(fresh, signal.SIGSTOP)
            held |= fresh
        _signal(held, signal.SIGKILL)

    def remove(self) -> None:
        """Its disk, and its part of the shared base."""
        for node in tuple(self._nodes()):
            cluster = node.parents[1]
            shutil.rmtree(node)
            with contextlib.suppress(OSError):  # others are left, or go at the same time
                (cluster / "nodes").rmdir()
                shutil.rmtree(cluster)
        shutil.rmtree(self.directory)

    def pass_time(self, seconds: int) -> None:
        """Set the clock of its limit's program ahead."""
        _write(self.directory / "clock-ahead", f"{seconds}\n", 0o600)

    def environment(self) -> dict[str, str]:
        """Of every process in it."""
        return {
            **dict(installer_environment(dict(os.environ), Path.home())),
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "HOME": str(self.directory / "home"),
            "USER": user_name(),
            "LOGNAME": user_name(),
            "SHELL": "/bin/sh",
            VARIABLE: self.marker,
            "RAIN_DEPLOY_MACHINE": str(self.path(MACHINE)),
            "RAIN_DEPLOY_BASE": str(self._base),
        }

    def _spawn(self) -> None:
        log = str(self.directory / "server.log")
        # The program wants a lock as its descriptor 3.
        script = 'exec 3<>"$1" >>"$2" 2>&1 </dev/null; shift 2; exec "$@"'
        server = (sys.executable, "-P", str(NODE_PROGRAM), str(self.directory / "config.json"))
        argv = ["/bin/sh", "-c", script, "sh", str(self.directory / "lock"), log, *server]
        with _SPAWNING:
            self._server = os.posix_spawn("/bin/sh", argv, self.environment(), setsid=True)

    def _look_on(self, on_power_off: Callable[[str], None]) -> None:
        while not self._halt.wait(LOOK_EVERY_S):
            if (self.directory / "timer").exists():
                view = self.directory / "view"
                self._make_view(view)
                self._as_root("/bin/sh", str(self.path(LIMIT_PROGRAM)), RAIN_DEPLOY_BASE=str(view))
            if (self.directory / "powered-off").exists() and not self._halt.is_set():
                self.stop()
                on_power_off(self.directory.name)
                return

    def _as_root(self, *command: str, **variables: str) -> None:
        """What the machine's own system does: its ``systemctl`` and so on are ours."""
        environment = self.environment()
        path = f"{self.directory / 'bin'}:{environment['PATH']}"
        with (self.directory / "system.log").open("ab") as log:
            with _SPAWNING:
                process = subprocess.Popen(
                    command,
                    env={**environment, "PATH": path, **variables},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            process.wait(_SYSTEM_DEADLINE_S)

    def _nodes(self) -> Iterator[Path]:
        for description in self._base.glob("clusters/*/nodes/*/node.json"):
            # It belongs to a machine that goes, or it is being written, at this moment.
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                if json.loads(description.read_bytes())["address"] == self.address:
                    yield description.parent

    def _make_view(self, view: Path) -> None:
        """Of the base that all machines share, what a machine with a disk of its own would have."""
        shutil.rmtree(view, ignore_errors=True)
        for node in self._nodes():
            cluster = node.parents[1]
            mine = view / "clusters" / cluster.name
            (mine / "nodes").mkdir(parents=True)
            (mine / "nodes" / node.name).symlink_to(node)
            server = json.loads((node / "node.json").read_bytes())["server"]
            for run in (cluster / "runs").glob("*/"):
                (mine / "runs" / run.name).mkdir(parents=True)
                for name in ("run.json", *(("state.json",) if server else ())):
                    if (run / name).exists():
                        (mine / "runs" / run.name / name).symlink_to(run / name)


def parse_user_data(user_data: bytes) -> dict[str, Any]:
    """What ``#cloud-config`` in JSON says; anything else says nothing, as to a machine without cloud-init."""
    first, _, rest = user_data.partition(b"\n")
    try:
        told: dict[str, Any] = json.loads(rest) if first == b"#cloud-config" else {}
    except ValueError:
        return {}
    return told


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _can_listen(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
