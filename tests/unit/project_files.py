"""A project of the user as files, what is shipped of it, and how that runs where it is laid."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rain_deploy.core.run import Shipment
from rain_deploy.core.spec import RunSpec
from rain_deploy.runs.shipping import collect, payload


def lay(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def names(shipment: Shipment) -> list[str]:
    return [file.path for file in shipment.files]


HOME = Path("/home/of/rain-deploy")


def of(project: Path, script: str, *extra: str, cwd: Path | None = None) -> Shipment:
    return collect(RunSpec(Path(script), files=tuple(map(Path, extra))), cwd or project, HOME)


def place(shipment: Shipment, target: Path) -> Path:
    """As the nodes lay it; returns the script's working directory."""
    for name in shipment.directories:
        (target / name).mkdir(parents=True, exist_ok=True)
    for file in payload(shipment):
        (target / file.path).parent.mkdir(parents=True, exist_ok=True)
        (target / file.path).write_bytes(file.data)
    return target / shipment.cwd


def runs(shipment: Shipment, target: Path) -> str:
    cwd = place(shipment, target)
    command = [sys.executable, os.path.relpath(target / shipment.script, cwd)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout
