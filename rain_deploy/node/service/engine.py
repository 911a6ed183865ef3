"""Rain's server and governor: starts them, numbers their epochs, reads their logs, asks for governors.

An epoch is the life of one Rain process.  Rain panics on a directory that was used before, so each life
gets a new one.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import load, member_name, tail, write_json
from ..run import Run
from ..wire import Member, NodeConfig
from .process import Process, end, environment, scan, spawn, wait_until

SERVER_LOG, GOVERNOR_LOG = "server.log", "governor.log"
"""Files in an epoch's directory that Rain's own output goes to."""
_EPOCHS_KEPT = 3
_READY_DEADLINE_S = 20.0
_PROBE_POLL_S = 0.02
_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
"""Without it, TensorFlow takes all of a GPU's memory for the first task."""
_THREADS = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
_THREADS += ["TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"]
ONE_THREAD = dict.fromkeys(_THREADS, "1")
"""Variables of a script and its tasks: a node runs as many tasks at a time as it has CPUs."""
_SEEN_AT_ONCE = {"PYTHONUNBUFFERED": "1"}  # what a task prints is in its log while it runs
_RUST = {"RUST_LOG": "info,rain::server::scheduler=debug", "RUST_BACKTRACE": "0"}
"""We read Rain's logs, so they must not depend on the user's variables.  The scheduler says at once which
governor gets a task; Rain's event log has it a second later, without the governor."""
_HANDED_OUT = re.compile(rb"Scheduler: \((\d+),(\d+)\) -> (\S+)")


class EngineFailed(OSError):  # noqa: N818 - Rain's failure, reported upwards
    """Rain failed; the message quotes its log."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """epoch.json, in the directory of one life of Rain and in that of all lives of the server."""

    run: str = ""  # the run that this life is for; empty between runs
    clients: int | None = None  # clients that the server had let in before the script was started
    epoch: int = 0  # the number of the server's last life


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
    wait_until(lambda: ready.exists() or not server.alive(), _READY_DEADLINE_S)
    if not ready.exists():
        if server.alive():
            end_servers(config)
            raise EngineFailed(f"Rain's server was not ready within {_READY_DEADLINE_S:.0f} s")
        raise EngineFailed(f"Rain's server ended before it was ready: {server_fault(epoch, ())}")
    return server


def end_servers(config: NodeConfig) -> tuple[Process, ...]:
    """End every Rain server of this cluster; return those that do not end."""
    return end(lambda: scan(config.service, "server"), grace_s=2.0, deadline_s=10.0)


def start_governor(config: NodeConfig, epoch: Path, port: int, run: Run | None) -> Process:
    """Start this node's governor for the server at ``port``.  Raises OSError."""
    write_json(epoch / "epoch.json", Epoch(run.id if run else ""))
    argv = [str(config.engine), "governor", f"--cpus={config.cpus}"]
    argv += ["--listen", f"{config.address}:{config.governor_port}"]
    argv += ["--workdir", str(epoch / "work"), "--logdir", str(epoch / "log")]
    argv += ["--ready-file", str(epoch / "ready"), f"{config.server_address}:{port}"]
    env = environment(config, "governor", epoch) | ONE_THREAD | _GPU | _SEEN_AT_ONCE | _RUST
    if run:
        env |= run.env(config.code)
        # Tasks import what the script imports: of a function in another module, only names are pickled.
        places = (env.get("PYTHONPATH", ""), str(run.script_dir))
        env["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    return spawn(argv, log=epoch / GOVERNOR_LOG, env=env)


def server_fault(epoch: Path, nodes: tuple[Member, ...]) -> str:
    """Return why a server ended: one line where its log allows it, else the log's end."""
    if lost := lost_node(epoch, nodes):
        return f"the connection to {lost} was lost"
    text = tail(epoch / SERVER_LOG, 20_000)
    if panic := re.search(r"panicked at .*(?:\n.+)?", text):
        return panic[0].replace("\n", " ")
    return text[-500:].strip() or "it left no word"


def lost_node(epoch: Path, nodes: tuple[Member, ...]) -> str:
    """Return the node to which a server lost the connection first; empty if it lost none."""
    lost = re.search(r"Connection to governor (\S+) lost", tail(epoch / SERVER_LOG, 20_000))
    return member_name(nodes, lost[1]) if lost else ""


def handed_out(epoch: Path, nodes: tuple[Member, ...]) -> dict[tuple[int, int], str]:
    """Return the node that got a task, by session and task, for all tasks that the server has handed out."""
    try:
        with (epoch / SERVER_LOG).open("rb") as file:
            found = [match for line in file if (match := _HANDED_OUT.search(line))]
    except OSError:
        return {}
    return {(int(one[1]), int(one[2])): member_name(nodes, one[3].decode()) for one in found}


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
    number = (load(path, Epoch) or Epoch()).epoch + 1
    write_json(path, Epoch(epoch=number))
    return number


def probe(host: str, port: int, *, expect: int, deadline_s: float, warm: bool) -> int:
    """Print ``{"governors": […]}`` once ``expect`` are registered (return 0), or at the deadline (return 1).

    With ``warm``, read the arguments from stdin, after Rain is imported: no run waits for the import.
    """
    import rain.client  # noqa: PLC0415 - takes 0.2 s, and nothing else needs it

    if warm:
        words = sys.stdin.readline().split()
        if not words:
            return 0  # its parent is gone, or needs no answer any more
        host, port, expect, deadline_s = words[0], int(words[1]), int(words[2]), float(words[3])
    # A call of Rain's client has no deadline and blocks the interpreter, so the kernel ends the process.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, deadline_s + 2)
    deadline = time.monotonic() + deadline_s
    client: Any = None
    while True:
        try:
            if client is None:
                client = rain.client.Client(host, port)
            governors = [
                {"governor": one["governor_id"], "cpus": one["resources"]["cpus"]}
                for one in client.get_server_info()["governors"]
            ]
        except Exception:  # noqa: BLE001 - Rain's client raises whatever its RPC library raises
            client, governors = None, []
        if len(governors) >= expect or time.monotonic() > deadline:
            break
        time.sleep(_PROBE_POLL_S)
    print(json.dumps({"governors": governors}), flush=True)
    return 0 if len(governors) >= expect else 1


def environment_damage(config: NodeConfig) -> str:
    """Return why the Python environment cannot be used; empty if its Python starts and no file differs."""
    argv = [config.python, "-I", "-S", str(config.code / "node" / "verify.py")]
    pipe = subprocess.PIPE
    try:
        subprocess.run(argv, cwd=config.env, stderr=pipe, text=True, check=True, timeout=_READY_DEADLINE_S)
    except subprocess.CalledProcessError as error:
        return str(error.stderr).strip().rpartition("\n")[2] or f"its Python ends with {error.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return ""


class WarmProbe(subprocess.Popen[bytes]):
    """A ``probe`` process that has imported Rain and waits to be asked; it ends once it has answered."""

    def __init__(self, config: NodeConfig) -> None:
        argv = [config.python, str(config.code), "probe", "--warm"]
        env, pipe = environment(config, "probe", config.server_dir), subprocess.PIPE
        super().__init__(argv, bufsize=0, stdin=pipe, stdout=pipe, env=env, start_new_session=True)

    def ask(self, host: str, port: int, expect: int, deadline_s: float) -> None:
        """Ask once."""
        assert self.stdin
        with contextlib.suppress(OSError):
            self.stdin.write(f"{host} {port} {expect} {deadline_s}\n".encode())

    def governors(self) -> tuple[str, ...]:
        """Return ``address:port`` of each registered governor; nothing if the server does not answer."""
        assert self.stdout
        self.kill()
        answer = self.stdout.read()
        try:
            return tuple(one["governor"] for one in json.loads(answer)["governors"])
        except (ValueError, KeyError):
            return ()

    def close(self) -> None:
        """End the process, whether or not it was asked."""
        self.kill()
        self.communicate()
