"""Facts of a host: the question, asked once, and the reader of its answer."""

import json
from dataclasses import replace

import cattrs.preconf.json

from rain_deploy.core.layout import ROOT_BASE, user_base
from rain_deploy.core.machine import Facts, Host
from rain_deploy.core.spec import NODE_PYTHON
from rain_deploy.core.step import Command
from rain_deploy.errors import InstallFailed
from rain_deploy.parts.shell import PACKAGE, render
from rain_deploy.parts.software import code_bundle, verify_script

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
"""Facts that a dry run assumes of a host that nothing is known about."""
NEW_MACHINE = replace(DEBIAN_12, one_time_host_key=True)  # what it assumes of a machine that is not made yet
_FIND_TOOLS = {"PATH", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"}
"""Variables of the installer that the question uses; others may be secrets, and it is an argument."""
_JSON = cattrs.preconf.json.make_converter(detailed_validation=False)


def facts_command(
    host: Host, cluster_id: str, *, route_to: str = "", tools: bool = False, environment: str = ""
) -> Command:
    """Return the question for one host.  ``tools``: also what the engine's build lacks there.

    ``environment`` is the digest of the environment that the node shall have.
    """
    question = {
        "bases": [host.base] if host.base else [ROOT_BASE, user_base("UID")],
        "cluster": cluster_id,
        "index": host.index,
        "route_to": route_to,
        # Nodes with a directory of their provider's have an address of their own too.
        "alone": not host.base,
        "python": NODE_PYTHON,
        "code": code_bundle()[0],
        "environment": environment,
        "verify": verify_script(),
        "tools": render("tools.sh.j2") if tools else "",
    }
    exports = [(name, value) for name, value in host.installer_env if name in _FIND_TOOLS]
    probe = (PACKAGE / "parts/scripts/probe.py").read_text("ascii")
    script = render("facts.sh.j2", exports=exports, probe=probe)
    return Command(argv=("sh", "-c", script, "facts", json.dumps(question)), deadline_s=60.0)


def facts_text(facts: Facts) -> str:
    """Return facts as ``parse_facts`` reads them."""
    return _JSON.dumps(facts)


def parse_facts(host: Host, text: str) -> Facts:
    """Return the facts in a host's answer.  Raises InstallFailed for an answer that is not one."""
    try:
        return _JSON.loads(text, Facts)
    except (ValueError, TypeError, KeyError) as error:
        message = "it cannot be used: it did not answer as a Linux host does"
        raise InstallFailed(message, node=host.name, details=text[-2000:]) from error
