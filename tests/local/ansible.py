"""Ansible as a user types it, with the playbooks of the repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.local.command_line import CommandLine

ANSIBLE = Path(__file__).parents[2] / "ansible"
INVENTORY = ANSIBLE / "inventory.sh"
PLAY_S = 600.0


@dataclass(frozen=True)
class Played:
    """How a play ended."""

    exit_code: int
    out: str

    def recap(self) -> dict[str, dict[str, int]]:
        """The counts of each host, from the last lines."""
        rows = re.findall(r"^(\S+) +: (ok=.*)$", self.out, re.MULTILINE)
        return {host: {k: int(n) for k, n in re.findall(r"(\w+)=(\d+)", counts)} for host, counts in rows}

    def reached(self) -> list[str]:
        """The hosts that answered a ping; all did."""
        assert self.exit_code == 0, self.out
        return sorted(re.findall(r"^(\S+) \| SUCCESS", self.out, re.MULTILINE))

    def changed(self) -> int:
        assert self.exit_code == 0, self.out
        return sum(counts["changed"] for counts in self.recap().values())


def play(line: CommandLine, program: str, *words: str, inventory: Path) -> Played:
    """Type ``ansible`` or ``ansible-playbook`` where ``line`` is typed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAIN_DEPLOY_")}
    programs = Path(sys.executable).parent
    env = {
        **kept,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "ANSIBLE_NOCOLOR": "True",
        "ANSIBLE_HOME": str(line.home.parent / "ansible"),
        "RAIN_DEPLOY_HOME": str(line.home),
        **dict(line.env),
    }
    done = subprocess.run(
        [programs / program, "-i", str(inventory), *words],
        cwd=line.cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PLAY_S,
        check=False,
    )
    return Played(done.returncode, done.stdout + done.stderr)
