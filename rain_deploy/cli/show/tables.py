"""Lay out tables for stdout, as wide as the terminal, and the table of nodes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rain_deploy.cli.show import text
from rain_deploy.cli.show.output import is_terminal

if TYPE_CHECKING:
    from rain_deploy.cluster.lookup import NodeLine


def width() -> int | None:
    """Return the columns of the terminal; None if stdout is none."""
    return shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, wrap: bool = False) -> list[str | bytes]:
    """Return ``text.table`` for stdout."""
    return [text.table(head, rows, width=width(), wrap=wrap)]


def nodes(lines: Sequence[NodeLine]) -> list[str | bytes]:
    """Return a row for each node."""
    return table(
        ("NODE", "ROLE", "STATE", ">CPUS", ">LOAD", ">DISK FREE", "ADDRESS", "MACHINE"),
        [
            (
                node.name,
                node.role,
                node.state,
                str(node.cpus),
                "" if node.load is None else f"{node.load:.2f}",
                text.size(node.disk_free_bytes),
                node.address,
                node.label,
            )
            for node in lines
        ],
    )
