"""Steps that several parts use: Debian packages, and a file put in its place."""

from __future__ import annotations

import hashlib
import shlex

from rain_deploy.core.step import PayloadFile, Step
from rain_deploy.parts.shell import render


def packages_step(name: str, packages: tuple[str, ...], *, present: str = "") -> Step:
    """Return the step that installs missing ``packages`` (names, also ``name=version``); needs root there.

    ``present`` is shell text that succeeds where nothing has to be installed; by default dpkg is asked.
    """
    names = " ".join(shlex.quote(package) for package in packages)
    # dpkg knows neither name=version nor virtual packages: apt-get then decides, which is quick.
    count = f"dpkg-query -W -f '${{db:Status-Abbrev}}\\n' {names} | grep -c '^ii'"
    check = present or f'[ "$({count})" -ge {len(packages)} ]'
    return Step(name=name, check=check, act=render("apt.sh.j2", packages=packages))


def program_step(name: str, source: str, target: str, sha256: str, *, parallel: bool = False) -> Step:
    """Return the step that puts the payload's program ``source`` at ``target``, with this digest.

    Without a payload the program must be there already.
    """
    path = shlex.quote(target)
    whole = f"""[ -x {path} ] && [ "$(sha256sum <{path})" = '{sha256}  -' ]"""
    act = render("place.sh.j2", source=source, target=target, directory=target.rpartition("/")[0])
    return Step(name=name, act=act, check=whole, verify=whole, parallel=parallel, makes=target, sha256=sha256)


def file_step(file: PayloadFile, target: str) -> Step:
    """Return the step that puts a small file of the payload at ``target`` if it differs, by rename."""
    path, directory = shlex.quote(target), shlex.quote(target.rpartition("/")[0])
    return Step(
        name=target.rpartition("/")[2],
        check=f'cmp -s "$S/{file.path}" {path}',
        act=f'mkdir -p {directory}\nmv "$S/{file.path}" {path}',
        makes=target,
        sha256=hashlib.sha256(file.data).hexdigest(),
    )
