"""Rain's server and governor: starts them, numbers their epochs, and reads their logs.

An epoch is the life of one Rain process.  Rain panics on a directory that was used before, so each life
gets a new one.
"""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from ..files import Tail, load, member_name, tail, write_json
from ..run.directory import Run
from ..wire import Member, NodeConfig
from .process import Process, end, environment, processes, spawn

SERVER_LOG, GOVERNOR_LOG = "server.log", "governor.log"
"""Files in an epoch's directory that Rain's own output goes to."""
_EPOCHS_KEPT = 3
_READY_DEADLINE_S = 20.0
_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
"""Without it, TensorFlow takes all of a GPU's memory for the first task."""
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
_RUST = {"RUST_LOG": "info", "RUST_BACKTRACE": "0"}
"""We read Rain's logs, so they must not depend on the user's variables."""


class EngineFailed(Exception):  # noqa: N818 - Rain's failure, reported upwards
    """Rain failed; the message quotes its log."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """epoch.json of a server or governor: which run its life is for."""

    run: str
    """Empty between runs."""
    port: int
    clients: int | None = None
    """Clients that the server had let in before the script was started."""

    @classmethod
    def read(cls, directory: Path) -> Epoch | None:
        """Return what ``write`` wrote into an epoch's directory."""
        return load(directory / "epoch.json", cls)

    def write(self, directory: Path) -> None:
        """Write it into the epoch's directory.  Raises OSError."""
        write_json(directory / "epoch.json", self)


@dataclass(frozen=True, slots=True)
class _Counted:
    """epoch.json of the server's directory: the number of its last life."""

    epoch: int


def start_server(config: NodeConfig, epoch: Path, port: int) -> Process:
    """Start a server in a fresh epoch directory and wait until it is ready.  Raises EngineFailed."""
    ready = epoch / "ready"
    argv = [str(config.engine), "server", "--listen", f"{config.address}:{port}"]
    argv += ["--http-listen", f"{config.address}:{config.http_port}"]
    argv += ["--logdir", str(epoch / "log"), "--ready-file", str(ready)]
    env = {**environment(config, "server", epoch), **_RUST}
    try:
        server = spawn(argv, log=epoch / SERVER_LOG, env=env)
    except OSError as error:
        raise EngineFailed(f"Rain's server cannot be started: {error}") from error
    deadline = time.monotonic() + _READY_DEADLINE_S
    while not ready.exists():
        if not server.alive():
            raise EngineFailed(f"Rain's server ended before it was ready: {server_fault(epoch, ())}")
        if time.monotonic() > deadline:
            end_servers(config)
            raise EngineFailed(f"Rain's server was not ready within {_READY_DEADLINE_S:.0f} s")
        time.sleep(0.005)
    return server


def end_servers(config: NodeConfig) -> None:
    """End every Rain server of this cluster."""
    end(lambda: processes(config.service, "server"), grace_s=2.0, deadline_s=10.0)


def start_governor(config: NodeConfig, epoch: Path, port: int, run: Run | None) -> Process:
    """Start this node's governor for the server at ``port``.  Raises OSError."""
    Epoch(run.id if run else "", port).write(epoch)
    argv = [str(config.engine), "governor", f"--cpus={config.cpus}"]
    argv += ["--listen", f"{config.address}:{config.governor_port}"]
    argv += ["--workdir", str(epoch / "work"), "--logdir", str(epoch / "log")]
    argv += ["--ready-file", str(epoch / "ready"), f"{config.server_address}:{port}"]
    env = environment(config, "governor", epoch) | dict.fromkeys(_THREADS, "1") | _GPU | _RUST
    if run:
        env |= run.companion_env(config.code) | run.extra_env()
    return spawn(argv, log=epoch / GOVERNOR_LOG, env=env)


def server_lost(log: Tail) -> bool:
    """Return True once a governor's log says that its server is gone; it may run on for 5 s."""
    return b"Lost connection to the server" in log.read(whole_lines=True)


def server_fault(epoch: Path, nodes: tuple[Member, ...]) -> str:
    """Return why a server ended: one line where its log allows it, else the log's end."""
    text = tail(epoch / SERVER_LOG, 20_000)
    if lost := re.findall(r"Connection to governor (\S+) lost", text):
        return f"the connection to {member_name(nodes, lost[0])} was lost"
    if panic := re.search(r"panicked at .*(?:\n.+)?", text):
        return panic[0].replace("\n", " ")
    return text[-500:].strip() or "it left no word"


def clients_registered(epoch: Path) -> int:
    """Return how many clients the server has let in.  Its log has them a second before its event log."""
    try:
        with (epoch / SERVER_LOG).open("rb") as file:
            return sum(line.rstrip().endswith(b"registered as client") for line in file)
    except OSError:
        return 0


def fresh_epoch(parent: Path) -> Path:
    """Make a directory in ``parent`` with the next number; delete all but the three before it."""
    parent.mkdir(parents=True, exist_ok=True)
    numbers = sorted(int(entry.name) for entry in parent.iterdir() if entry.name.isdigit())
    for number in numbers[:-_EPOCHS_KEPT]:
        shutil.rmtree(parent / str(number), ignore_errors=True)
    path = parent / str(numbers[-1] + 1 if numbers else 1)
    path.mkdir(mode=0o700)
    return path


def next_epoch(server_dir: Path) -> int:
    """Return the number of the next server's life in this cluster; idle servers count too."""
    path = server_dir / "epoch.json"
    last = load(path, _Counted)
    number = last.epoch + 1 if last else 1
    write_json(path, _Counted(number))
    return number
