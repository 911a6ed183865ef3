"""A stage as one command: the shell script of its steps, and its files as a tar for stdin."""

from __future__ import annotations

import gzip
import io
import os
import shlex
import tarfile

from rain_deploy.core.command import Command
from rain_deploy.core.step import PayloadFile, Stage, Step
from rain_deploy.parts.templates import render

MARK = "\x1e"
"""Begins a line that reports on a step: index, tab, outcome."""
DATA = "\x1d"
"""Begins a line that carries a value home: name, tab, value."""
EXPORTS = "exports"
"""Name of the payload's file with the installer's environment."""


def _groups(steps: tuple[Step, ...]) -> list[list[int]]:
    """Indices of steps that run together: neighbours that are ``beside`` share a group."""
    groups: list[list[int]] = []
    for index, step in enumerate(steps):
        if step.beside and groups and steps[groups[-1][-1]].beside:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def pack(files: tuple[PayloadFile, ...]) -> bytes:
    """A gzipped tar of the files; the same files give the same bytes."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for file in files:
            member = tarfile.TarInfo(file.path)
            member.size, member.mode = len(file.data), file.mode
            archive.addfile(member, io.BytesIO(file.data))
    return buffer.getvalue()


def stage_script(stage: Stage, base: str, *, exports: bool = False) -> str:
    """The POSIX sh text of a stage; ``base`` is what its steps call ``$B``.

    With ``exports`` it reads environment from the payload's file of that name.
    """
    return render(
        "stage.sh.j2",
        steps=stage.steps,
        groups=_groups(stage.steps),
        variables=(("B", base), *stage.variables),
        exports=exports,
        payload=exports or bool(stage.payload),
    )


def stage_command(stage: Stage, base: str, exports: tuple[tuple[str, str], ...] = ()) -> Command:
    """The stage for one exec channel.

    ``exports`` is environment that only this script gets; it may hold secrets, so it is in no argument.
    """
    lines = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in exports)
    told = (PayloadFile(EXPORTS, os.fsencode(lines), 0o600),) if exports else ()
    payload = (*told, *stage.payload)
    return Command(
        argv=("sh", "-c", stage_script(stage, base, exports=bool(exports))),
        stdin=pack(payload) if payload else None,
        deadline_s=stage.deadline_s,
    )
