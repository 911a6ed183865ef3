"""A living Rain server and governor, and a Python that has the companion: no laptop, no supervisor."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.local.conftest import Installation
from tests.support.network import WORKER, free_ports
from tests.support.waiting import LONG_S, wait_for
from tests.unit.companion_python import NodePython

ADDRESS = f"127.103.{WORKER}.1"


@dataclass(frozen=True, slots=True)
class RainedOn:
    """A Python with the address of a living Rain server."""

    python: NodePython
    server: str

    def run(self, script: str, run: Path | None, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.python.run(script, run, RAIN_DEPLOY_SERVER=self.server, PYTHONHASHSEED="0", **variables)


@contextlib.contextmanager
def rained_on(installation: Installation, home: Path, **of_tasks: str) -> Iterator[RainedOn]:
    """Start a server and a governor, with variables for the tasks; end them afterwards."""
    port, http, governor = free_ports(ADDRESS, 3)
    server = f"{ADDRESS}:{port}"
    python = NodePython.of(home, installation.env)
    environment = {**os.environ, "PATH": f"{installation.env}/bin:{os.environ['PATH']}"}
    environment |= of_tasks | {
        "RAIN_DEPLOY_COMPANION": str(python.site),
        "RAIN_DEPLOY_RUN_DIR": str(python.run_dir("tasks")),
    }
    programs = []
    for name, *arguments in (
        ("server", "--listen", server, "--http-listen", f"{ADDRESS}:{http}"),
        ("governor", "--cpus=2", "--listen", f"{ADDRESS}:{governor}", "--workdir", f"{home}/work", server),
    ):
        options = ["--logdir", f"{home}/{name}", "--ready-file", f"{home}/{name}.ready"]
        programs.append(subprocess.Popen([installation.engine, name, *options, *arguments], env=environment))
        wait_for((home / f"{name}.ready").exists)
    yield RainedOn(python, server)
    for program in programs:  # the governor ends with its server
        program.terminate()
        program.wait(LONG_S)
