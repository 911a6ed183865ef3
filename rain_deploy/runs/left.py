"""Describe the results that stay on the node, and the commands that get or delete them."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from rain_deploy.errors import UnsafeResults
from rain_deploy.node.wire import LeftKind, LeftOuts
from rain_deploy.results.names import decode_name

SHOWN = 10
_FETCHED = {LeftKind.MUCH, LeftKind.REFUSED}


class Pulled(Protocol):
    """A run whose results are here, but for some that stay on the node."""

    @property
    def run(self) -> str: ...
    @property
    def left(self) -> LeftOuts: ...
    @property
    def on_node(self) -> str:
        """Return the run's directory on the node."""


def left_lines(pulled: Pulled) -> list[str]:
    """Return a line for each result that stays on the node, and how many others there are."""
    lines = [f"{one.path}: {one.why}" for one in pulled.left.left[:SHOWN]]
    more = len(pulled.left) - len(lines)
    return [*lines, f"and {more} more: see manifest.json"] if more > 0 else lines


def left_error(cluster: str, runs: Iterable[Pulled]) -> UnsafeResults | None:
    """Return the error that says that some results of these runs were not pulled.

    None if all that have content were: a pipe or a link that leads out is named, but fails nothing.
    """
    some = [pulled for pulled in runs if pulled.left.hold]
    if not some:
        return None
    count = sum(len(pulled.left) for pulled in some)
    were = "1 result was" if count == 1 else f"{count} results were"
    which = f"run {some[0].run}" if len(some) == 1 else f"{len(some)} runs"
    message = f"{which}: {were} not pulled, all others are here"
    return UnsafeResults(message, next_step="; ".join(_commands(cluster, some)))


def _commands(cluster: str, runs: Sequence[Pulled]) -> Iterator[str]:
    """Yield the commands: one that gets the first of each kind, and the one that gives up the rest."""
    here = f"-c {cluster}"
    kept = [
        (pulled, one.path, one.kind)
        for pulled in runs
        for one in pulled.left.left
        if ".." not in one.path.split("/")
    ]
    if first := next((each for each in kept if each[2] in _FETCHED), None):
        yield f"rain-deploy fetch {here} {_on_node(*first[:2])} ."
    if first := next((each for each in kept if each[2] == LeftKind.MANY), None):
        yield f"rain-deploy fetch {here} {_on_node(first[0], first[1].rpartition('/')[0])} ."
    if first := next((each for each in kept if each[2] == LeftKind.UNREADABLE), None):
        readable = f"chmod -R u+rwX {_on_node(*first[:2])}"
        yield f"rain-deploy exec {here} --node 1 -- {readable} && rain-deploy pull {first[0].run} {here}"
    yield f"rain-deploy down {here} --discard-results deletes what stays"


def _on_node(pulled: Pulled, path: str) -> str:
    """Return the path on the node as a word of the command line; of its directory if the name is odd."""
    while decode_name(path) != path:
        path = path.rpartition("/")[0]
    return shlex.quote(f"{pulled.on_node}/{path}".rstrip("/"))
