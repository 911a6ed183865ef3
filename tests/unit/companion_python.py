"""A Python as on a node: compat in its site-packages, companion beside it, as whole or as broken as asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
import tempfile
import textwrap
import venv
from dataclasses import dataclass
from pathlib import Path

COMPANION = Path(__file__).parents[2] / "rain_deploy" / "companion"
FAULT = "broken on purpose"


@dataclass(frozen=True, slots=True)
class NodePython:
    """``home`` holds the companion (site) and a directory per run (runs); compat is in the environment."""

    home: Path
    environment: Path

    @classmethod
    def make(cls, home: Path) -> NodePython:
        """With the tests' own packages, matplotlib among them, and without Rain."""
        venv.create(home / "env", symlinks=True)
        python = cls.of(home, home / "env")
        for source in (COMPANION / "compat").glob("rain_deploy_compat.*"):
            shutil.copy(source, python.packages)
        (python.packages / "of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
        return python

    @classmethod
    def of(cls, home: Path, environment: Path) -> NodePython:
        """Of an environment that has compat."""
        not_shipped = shutil.ignore_patterns("compat", "__pycache__")
        shutil.copytree(COMPANION, home / "site" / "rain_deploy_companion", ignore=not_shipped)
        node = COMPANION.parent / "node"
        shutil.copytree(node, home / "node", ignore=not_shipped)
        shutil.copy(node / "launch.py", home / "__main__.py")
        return cls(home, environment)

    @property
    def packages(self) -> Path:
        return next((self.environment / "lib").glob("python3*")) / "site-packages"

    @property
    def site(self) -> Path:
        return self.home / "site"

    def broken_site(self, module: str, line: str) -> str:
        """A companion that raises just before the line of ``module``, for RAIN_DEPLOY_COMPANION."""
        site = Path(tempfile.mkdtemp(dir=self.home))
        shutil.copytree(self.site, site, dirs_exist_ok=True)
        path = site / "rain_deploy_companion" / module
        before, found, after = path.read_text().partition(line)
        assert found, f"{module} has no line {line!r}"
        margin = line[: len(line) - len(line.lstrip(" "))]
        path.write_text(f"{before}{margin}raise RuntimeError({FAULT!r})\n{found}{after}")
        return str(site)

    def run_dir(self, name: str) -> Path:
        path = self.home / "runs" / name
        path.mkdir(parents=True, exist_ok=True)
        about = {"run": name, "sequence": 1, "port": 7230, "script": "script.py", "cwd": "."}
        (path / "run.json").write_text(json.dumps(about))
        (path / "shipped.json").write_text("{}")
        return path

    def run(
        self, script: str, run: Path | None = None, *options: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the text as ``script.py``: as a run's script in ``run``, or without a companion."""
        cwd = (run or self.home) / "files"
        cwd.mkdir(exist_ok=True)
        (cwd / "script.py").write_text(textwrap.dedent(script))
        return subprocess.run(
            [self.environment / "bin" / "python", *options, "script.py"],
            cwd=cwd,
            env={**_inherited(), "PWD": str(cwd), **(self._companion(run) if run else {}), **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def of_tasks(self, run: Path) -> dict[str, str]:
        """Variables that a governor of the run gives to the processes of its tasks."""
        return {"RAIN_DEPLOY_COMPANION": str(self.site), "RAIN_DEPLOY_RUN_DIR": str(run)}

    def _companion(self, run: Path) -> dict[str, str]:
        return {
            "RAIN_DEPLOY_COMPANION": str(self.site),
            "RAIN_DEPLOY_RUN_DIR": str(run),
            "RAIN_DEPLOY_FIGURES": str(run / "figures"),
            "RAIN_DEPLOY_SCRIPT": "1",
            "RAIN_DEPLOY_MOST_HOMES": "300",
        }


def _inherited() -> dict[str, str]:
    ours = ("RAIN_DEPLOY_", "PYTHON", "MPLBACKEND", "DISPLAY")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}
