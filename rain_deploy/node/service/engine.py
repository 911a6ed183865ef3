"""Rain's two programs as processes of ours: argument vectors, environments, what their logs say."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

from ..config import Member, NodeConfig, member_name
from ..files import Tail, read_json, tail, write_json
from ..run.directory import Run
from .process import Process, end, scan, spawn

_EPOCHS_KEPT = 3
_READY_DEADLINE_S = 20.0
_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
"""TensorFlow else takes all of a GPU's memory for the first task; without a GPU it means nothing."""
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
_RUST = {"RUST_LOG": "info", "RUST_BACKTRACE": "0"}
"""Our reading of Rain's logs must not depend on variables of the user."""


class EngineFailed(Exception):  # noqa: N818 - Rain's failure, told upwards
    """Rain did not do what it was started for; the message says what its log says."""


def server_log(epoch: Path) -> Path:
    """Where a server's own output goes."""
    return epoch / "server.log"


def start_server(config: NodeConfig, epoch: Path, port: int) -> Process:
    """Start a server in a fresh epoch directory and wait until it is ready.  Raises EngineFailed."""
    ready = epoch / "ready"
    argv = [str(config.engine), "server", "--listen", f"{config.address}:{port}"]
    argv += ["--http-listen", f"{config.address}:{config.http_port}"]
    argv += ["--logdir", str(epoch / "log"), "--ready-file", str(ready)]
    env = {**config.environment("server", epoch), **_RUST}
    try:
        server = spawn(argv, log=server_log(epoch), env=env)
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
    end(
        lambda: [found.process for found in scan(config.service, "server")],
        grace_s=2.0,
        deadline_s=10.0,
    )


def start_governor(config: NodeConfig, epoch: Path, port: int, run: Run | None) -> Process:
    """Start this node's governor for the server at ``port``.  Raises OSError."""
    write_json(epoch / "epoch.json", {"run": run.id if run else "", "port": port})
    argv = [str(config.engine), "governor", f"--cpus={config.cpus}"]
    argv += ["--listen", f"{config.address}:{config.governor_port}"]
    argv += ["--workdir", str(epoch / "work"), "--logdir", str(epoch / "log")]
    argv += ["--ready-file", str(epoch / "ready"), f"{config.server_address}:{port}"]
    env = config.environment("governor", epoch) | dict.fromkeys(_THREADS, "1") | _GPU | _RUST
    if run:
        env |= run.companion_env(config.code) | run.extra_env()
    return spawn(argv, log=governor_log(epoch), env=env)


def governor_log(epoch: Path) -> Path:
    """Where a governor's own output goes."""
    return epoch / "governor.log"


def server_lost(log: Tail) -> bool:
    """True once a governor's log says that its server is gone; it may take 5 s more to end by itself."""
    return b"Lost connection to the server" in log.read(whole_lines=True)


def server_fault(epoch: Path, nodes: tuple[Member, ...]) -> str:
    """Why a server ended, in one line where its log allows it, else the log's end."""
    text = tail(server_log(epoch), 20_000)
    if lost := re.findall(r"Connection to governor (\S+) lost", text):
        return f"the connection to {member_name(nodes, lost[0])} was lost"
    if panic := re.search(r"panicked at .*(?:\n.+)?", text):
        return panic[0].replace("\n", " ")
    return text[-500:].strip() or "it left no word"


def clients_registered(epoch: Path) -> int:
    """Clients that the server has let in so far: its log tells at once, its event log within a second."""
    try:
        with server_log(epoch).open("rb") as file:
            return sum(line.rstrip().endswith(b"registered as client") for line in file)
    except OSError:
        return 0


def fresh_epoch(parent: Path) -> Path:
    """A new directory in ``parent``, numbered upwards; the three before it stay, older ones go."""
    parent.mkdir(parents=True, exist_ok=True)
    numbers = sorted(int(entry.name) for entry in parent.iterdir() if entry.name.isdigit())
    for number in numbers[:-_EPOCHS_KEPT]:
        shutil.rmtree(parent / str(number), ignore_errors=True)
    path = parent / str(numbers[-1] + 1 if numbers else 1)
    path.mkdir(mode=0o700)
    return path


def next_epoch(server_dir: Path) -> int:
    """Number of the next server's life in this cluster, idle ones counted too."""
    path = server_dir / "epoch.json"
    number = int((read_json(path) or {}).get("epoch", 0)) + 1
    write_json(path, {"epoch": number})
    return number
