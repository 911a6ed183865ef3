"""A program of ours in the cache of a node."""

from __future__ import annotations

import shlex

from rain_deploy.core.step import Step
from rain_deploy.parts.templates import render


def placed_step(name: str, source: str, target: str, sha256: str, *, beside: bool = False) -> Step:
    """Have the payload's ``source`` at ``target`` with this digest; without a payload it must be there."""
    path = shlex.quote(target)
    whole = f"""[ -x {path} ] && [ "$(sha256sum <{path})" = '{sha256}  -' ]"""
    act = render("place.sh.j2", source=source, target=target, directory=target.rpartition("/")[0])
    return Step(name=name, act=act, check=whole, verify=whole, beside=beside)
