"""A run on its way to a node: run.json, the shipped files, and the step that places them."""

from __future__ import annotations

import hashlib
import json
import os

from rain_deploy.core.layout import Layout
from rain_deploy.core.run import RunRecord, Shipment
from rain_deploy.core.spec import RunSpec
from rain_deploy.core.step import PayloadFile, Stage
from rain_deploy.node.wire import RunDescription, to_json
from rain_deploy.parts.shell import step


def ship_stage(
    layout: Layout,
    run: RunRecord,
    spec: RunSpec,
    shipment: Shipment,
    files: tuple[PayloadFile, ...],
    *,
    live: tuple[str, ...] = (),
    nodes: tuple[str, ...] = (),
) -> Stage:
    """Return the stage that brings the run to a node; it is the same for every node.

    ``files`` is the content of ``shipment``, with paths relative to its root.  ``live`` are the ids of the
    cluster's runs that are not finished; the variables of all others are removed.  ``nodes`` are the nodes
    that get the run.  The step fails where the run directory exists with other content.
    """
    described = RunDescription(
        run=run.id,
        sequence=run.sequence,
        port=run.port,
        script=shipment.script,
        cwd=shipment.cwd,
        args=run.args,
        timeout_s=spec.timeout_s,
        min_nodes=spec.min_nodes,
        companion=spec.companion,
        then_off=spec.then_off,
        live=live,
        nodes=nodes,
    )
    placed = (
        _json("run.json", to_json(described)),
        _json("shipped.json", {file.path: file.sha256 for file in shipment.files}),
        _json("env.json", dict(spec.env), 0o600),
        *(PayloadFile(f"files/{file.path}", file.data, file.mode) for file in files),
    )
    directories = b"".join(os.fsencode(f"./{name}") + b"\0" for name in (".", *shipment.directories))
    return Stage(
        "ship",
        (step(f"run {run.id}", "run.sh.j2"),),
        payload=(
            PayloadFile("sums", b"".join(map(_sum_line, placed))),
            PayloadFile("directories", directories),
            *(PayloadFile(f"run/{file.path}", file.data, file.mode) for file in placed),
        ),
        variables=(("R", layout.run(run.id)), ("LIVE", " ".join((run.id, *live)))),
    )


def _json(path: str, value: object, mode: int = 0o644) -> PayloadFile:
    """Return a file of ASCII text, so that names of any bytes arrive."""
    return PayloadFile(path, json.dumps(value, indent=1, sort_keys=True).encode("ascii"), mode)


def _sum_line(file: PayloadFile) -> bytes:
    """Return a line for ``sha256sum -c``; a name with a newline or a backslash is escaped and marked."""
    name = os.fsencode(file.path)
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if escaped != name else b""
    return mark + hashlib.sha256(file.data).hexdigest().encode() + b"  " + escaped + b"\n"
