"""Rain without rain-deploy: a server and two governors started by hand, in the same environment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.network import WORKER, free_ports
from tests.support.waiting import LONG_S, wait_for

ADDRESS = f"127.201.{WORKER}.1"
LIMITS = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    ),
    "1",
)


@dataclass(frozen=True, slots=True)
class BareRain:
    """A Python that has Rain's client and what makes it work on 3.11, and the address of its server."""

    python: Path
    server: str
    place: Path
    """Where the programs of Rain leave their files."""

    def run(self, script: Path, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
        """The script as on a laptop, from its own directory, to an end that is good."""
        return subprocess.run(
            [self.python, script.name],
            cwd=script.parent,
            env=environment(self.python)
            | {"RAIN_DEPLOY_SERVER": self.server, "MPLBACKEND": "agg", "PWD": str(script.parent)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=True,
        )


def environment(python: Path) -> dict[str, str]:
    path = f"{python.parent}:{os.environ['PATH']}"
    return {**os.environ, **LIMITS, "PATH": path, "PYTHONHASHSEED": "0"}


@contextlib.contextmanager
def bare_rain(engine: Path, env: Path, place: Path, **variables: str) -> Iterator[BareRain]:
    """Server and governors, with ``variables``, as long as the context lasts."""
    python = env / "bin" / "python"
    server, http, *governors = (f"{ADDRESS}:{port}" for port in free_ports(ADDRESS, 4))
    programs: list[subprocess.Popen[bytes]] = []
    for name, *words in (
        ("server", "--listen", server, "--http-listen", http),
        *(("governor", "--cpus=1", "--listen", at, "--workdir", f"{place}/{at}", server) for at in governors),
    ):
        ready = place / f"{len(programs)}.ready"
        options = ["--logdir", f"{place}/{len(programs)}.log", "--ready-file", str(ready)]
        with (place / f"{len(programs)}.out").open("wb") as output:
            argv = [str(engine), name, *options, *words]
            programs.append(
                subprocess.Popen(
                    argv,
                    env=environment(python) | variables,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
        wait_for(ready.exists)
    yield BareRain(python, server, place)
    for program in programs:  # with the executors that governors leave
        os.killpg(program.pid, signal.SIGKILL)
        program.wait(LONG_S)
