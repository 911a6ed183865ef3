"""Finds packages that the script imports and whose version here is not that of the nodes."""

from collections.abc import Iterable, Iterator

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from rain_deploy.node.wire import NeededModule
from rain_deploy.runs.missing import installed_here


def version_gaps(imports: Iterable[NeededModule], lock_text: str) -> Iterator[str]:
    """Yield a sentence for each package whose first two numbers of the version differ."""
    on_nodes = dict(_pinned(lock_text))
    for module in imports:
        here = installed_here(module.name)
        if here is None:
            continue
        there = on_nodes.get(canonicalize_name(here[0]))
        if there and here[1].split(".")[:2] != there.split(".")[:2]:
            yield f"{module.where}, imports {here[0]}: version {here[1]} here, {there} on the nodes"


def _pinned(lock_text: str) -> Iterator[tuple[str, str]]:
    for line in lock_text.splitlines():
        text = line.partition(" --hash")[0].partition("#")[0].strip().rstrip("\\").strip()
        try:
            wanted = Requirement(text)
        except InvalidRequirement:  # a hash on a line of its own
            continue
        for one in wanted.specifier:
            if one.operator == "==":
                yield canonicalize_name(wanted.name), one.version
