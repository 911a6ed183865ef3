"""Computes the id of a sweep, which stands for all that results depend on besides the tasks themselves."""

import hashlib
import json

from .files import read_json
from .run import Run
from .wire import NodeConfig

PART_DIGITS = 12
FORMAT = 1
"""Change this whenever results of an older version must not be used again."""


def shipped_files(run: Run) -> list[tuple[str, str]]:
    """Return the paths and the digests of the files that were shipped with a script, without the script."""
    shipped = read_json(run.path / "shipped.json")
    return sorted((path, digest) for path, digest in shipped.items() if path != run.about.script)


def digest(part: object) -> str:
    """Return 64 hex digits that stand for a value of JSON."""
    return hashlib.sha256(json.dumps(part).encode()).hexdigest()


def sweep_parts(run: Run, config: NodeConfig, sweep: str) -> dict[str, str]:
    """Return a short digest for each part of a sweep, by which one can tell what differs between two."""
    parts = {
        "script": [run.about.script, run.about.cwd],
        "files": shipped_files(run),
        "software": [config.env.name, config.engine.parent.name],
        "sweep": sweep,
    }
    return {name: digest(part)[:PART_DIGITS] for name, part in parts.items()}


def sweep_id(run: Run, config: NodeConfig) -> str:
    """Return 64 hex digits, the same for each attempt of a run; empty if it is not known what was shipped.

    The path of the script counts, but neither its text nor its arguments: the tasks contain its functions and
    globals.  The keys of results contain this id and leave the cluster.  Values of ``--env`` may be secrets,
    so they go into the id through a slow hash, which makes guessing them expensive.
    """
    if run.about.script not in read_json(run.path / "shipped.json"):
        return ""
    software = [config.env.name, config.engine.parent.name]  # both are named by digests
    all_ = [FORMAT, run.about.script, run.about.cwd, shipped_files(run), software]
    known = hashlib.sha256(json.dumps(all_).encode())
    if not (given := run.variables()):
        return known.hexdigest()
    variables = json.dumps(sorted(given.items())).encode()
    return hashlib.scrypt(variables, salt=known.digest(), n=1 << 14, r=8, p=1, dklen=32).hex()
