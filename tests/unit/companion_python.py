"""A Python as on a node: compat in its site-packages, companion beside it, matplotlib where tests have it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import textwrap
import venv
from dataclasses import dataclass
from pathlib import Path

COMPANION = Path(__file__).parents[2] / "rain_deploy" / "companion"


@dataclass(frozen=True, slots=True)
class NodePython:
    """``home`` holds the environment (env), the companion (site) and a directory per run (runs)."""

    home: Path

    @classmethod
    def make(cls, home: Path) -> NodePython:
        venv.create(home / "env", symlinks=True)
        python = cls(home)
        shutil.copytree(
            COMPANION,
            python.site / "rain_deploy_companion",
            ignore=shutil.ignore_patterns("compat", "__pycache__"),
        )
        for source in (COMPANION / "compat").glob("rain_deploy_compat.*"):
            shutil.copy(source, python.packages)
        (python.packages / "of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
        return python

    @property
    def packages(self) -> Path:
        return next((self.home / "env" / "lib").glob("python3*")) / "site-packages"

    @property
    def site(self) -> Path:
        return self.home / "site"

    def run_dir(self, name: str) -> Path:
        path = self.home / "runs" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def run(
        self, script: str, run: Path | None = None, *options: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the text as ``script.py``: as a run's script in ``run``, or without a companion."""
        companion = (
            {}
            if run is None
            else {
                "RAIN_DEPLOY_COMPANION": str(self.site),
                "RAIN_DEPLOY_RUN_DIR": str(run),
                "RAIN_DEPLOY_FIGURES": str(run / "figures"),
                "RAIN_DEPLOY_SCRIPT": "1",
            }
        )
        cwd = (run or self.home) / "files"
        cwd.mkdir(exist_ok=True)
        (cwd / "script.py").write_text(textwrap.dedent(script))
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RAIN_DEPLOY_", "PYTHON", "MPLBACKEND", "DISPLAY"))
        }
        return subprocess.run(
            [self.home / "env" / "bin" / "python", *options, "script.py"],
            cwd=cwd,
            check=False,
            timeout=120,
            env={**inherited, **companion, **environment},
            capture_output=True,
            text=True,
        )
