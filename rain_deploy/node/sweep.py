"""Computes the id of a sweep: everything that results of tasks depend on besides the tasks themselves."""

import hashlib
import json

from .files import read_json
from .run import Run
from .wire import NodeConfig

FORMAT = 1
"""Change this whenever results of an older version must not be used again."""


def sweep_parts(run: Run, config: NodeConfig, sweep: str) -> dict[str, str]:
    """Return digits of digests by plain names, to tell what differs between two sweeps."""
    shipped = read_json(run.path / "shipped.json")
    files = sorted((path, digest) for path, digest in shipped.items() if path != run.about.script)
    parts = {
        "script": [run.about.script, run.about.cwd],
        "files": files,
        "software": [config.env.name, config.engine.parent.name],
        "sweep": sweep,
    }
    return {name: hashlib.sha256(json.dumps(part).encode()).hexdigest()[:12] for name, part in parts.items()}


def sweep_id(run: Run, config: NodeConfig) -> str:
    """Return 64 hex digits, the same for each attempt of a run; empty if it is not known what was shipped.

    The script's own text does not count, because its functions and globals are in the tasks; its path does.
    Neither do its arguments.  Values of ``--env`` may be secrets, and the journal's keys, which contain this
    id, leave the cluster.  So a slow hash takes these values in, and only here, where they are anyway.
    """
    shipped = read_json(run.path / "shipped.json")
    if run.about.script not in shipped:
        return ""
    files = sorted((path, digest) for path, digest in shipped.items() if path != run.about.script)
    software = [config.env.name, config.engine.parent.name]  # both are named by digests
    known = hashlib.sha256(json.dumps([FORMAT, run.about.script, run.about.cwd, files, software]).encode())
    if not (given := run.variables()):
        return known.hexdigest()
    variables = json.dumps(sorted(given.items())).encode()
    return hashlib.scrypt(variables, salt=known.digest(), n=1 << 14, r=8, p=1, dklen=32).hex()
