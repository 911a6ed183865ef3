"""Debian packages as a step."""

from __future__ import annotations

import shlex

from rain_deploy.core.step import Step
from rain_deploy.parts.templates import render


def packages_step(name: str, packages: tuple[str, ...]) -> Step:
    """Install what is missing of ``packages`` (names, also ``name=version``); needs root on the host."""
    names = " ".join(shlex.quote(package) for package in packages)
    # dpkg knows neither name=version nor virtual packages: apt-get then decides, which is quick.
    count = f"dpkg-query -W -f '${{db:Status-Abbrev}}\\n' {names} | grep -c '^ii'"
    return Step(
        name=name, check=f'[ "$({count})" -ge {len(packages)} ]', act=render("apt.sh.j2", packages=packages)
    )
