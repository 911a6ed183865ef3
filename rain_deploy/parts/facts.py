"""What is asked of a host once, and how its answer is read."""

from __future__ import annotations

import shlex
from collections import defaultdict
from dataclasses import replace

from rain_deploy.core.command import Command
from rain_deploy.core.layout import ROOT_BASE
from rain_deploy.core.machine import Facts, Host
from rain_deploy.errors import InstallFailed
from rain_deploy.parts.shell import render

DEBIAN_12 = Facts(
    uid=0,
    user="root",
    sudo=False,
    systemd=True,
    marked=False,
    arch="x86_64",
    glibc="2.36",
    cpus=2,
    memory_bytes=4 << 30,
    disk_free_bytes=20 << 30,
    python="/usr/bin/python3",
    hostname="unknown",
    machine_id="",
    route_address="",
)
"""What a dry run assumes of a host that nothing is known about."""
NEW_MACHINE = replace(DEBIAN_12, one_time_host_key=True)
"""What it assumes of a machine that is still to be made."""


_FIND_TOOLS = {"PATH", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"}
"""Of the installer's environment; other variables may be secrets, and a question is an argument."""


def facts_command(host: Host, cluster_id: str, *, route_to: str = "", tools: bool = False) -> Command:
    """The question for one host.  ``tools``: also what the engine's build lacks there."""
    bases = shlex.quote(host.base) if host.base else f'{ROOT_BASE} "/var/tmp/rain-deploy-$uid"'
    script = render(
        "facts.sh.j2",
        bases=bases,
        cluster_id=cluster_id,
        index=host.index,
        route_to=route_to,
        alone=not host.base,  # nodes with a directory of their provider's have an address of their own too
        exports=[(name, value) for name, value in host.installer_env if name in _FIND_TOOLS],
        tools=tools,
    )
    return Command(argv=("sh", "-c", script), deadline_s=60.0)


def parse_facts(host: Host, text: str) -> Facts:
    """Facts from the lines of the answer.  Raises InstallFailed when a line that must be there is not."""
    lines = defaultdict(list)
    for line in text.splitlines():
        key, _, value = line.partition("=")
        lines[key].append(value)

    def one(key: str) -> str:
        return lines[key][-1] if lines[key] else ""

    try:
        return Facts(
            uid=int(one("uid")),
            user=one("user"),
            sudo=bool(one("sudo")),
            systemd=bool(one("systemd")),
            marked=bool(one("marked")),
            arch=one("arch"),
            glibc=one("glibc"),
            cpus=int(one("cpus")),
            memory_bytes=int(one("memory_kib")) * 1024,
            disk_free_bytes=int(one("disk_free_kib")) * 1024,
            python=one("python"),
            hostname=one("hostname"),
            machine_id=one("machine_id"),
            route_address=one("route_address"),
            have=tuple(lines["have"]),
            missing_tools=tuple(lines["tool"]),
            node_config_sha256=one("node_config_sha256"),
            running=tuple(lines["running"]),
            active_run=one("active_run"),
            taken=tuple(lines["taken"]),
            base=one("base"),
            one_time_host_key=bool(one("one_time_host_key")),
        )
    except ValueError as error:
        raise InstallFailed(
            "this is no Linux host that can be used: it did not answer what was asked",
            node=host.name,
            details=text[-2000:],
        ) from error
