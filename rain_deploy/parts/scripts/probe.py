"""Looks a host up and prints what was found as one JSON object.

This file is sent to the host as text and runs there, on any Python from 3.7.  The question is its last
argument.  It only reads.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import pwd
import socket
import subprocess
import sys
from subprocess import DEVNULL
from typing import Any

MACHINE = "/var/lib/rain-deploy-machine"
"""No variable moves it: only here does a mark make a host one of our machines."""


def main() -> None:
    """Answer the question in the last argument."""
    question = json.loads(sys.argv[-1])
    uid = os.getuid()
    told = os.environ.get("RAIN_DEPLOY_BASE", "")
    bases = ([told] if told else []) + [base.replace("UID", str(uid)) for base in question["bases"]]
    disk = os.statvfs(existing(bases[0]))
    found = {
        "uid": uid,
        "user": name_of(uid),
        "sudo": uid != 0 and succeeds("sudo", "-n", "true"),
        "systemd": os.path.isdir("/run/systemd/system"),
        "marked": os.path.exists(f"{MACHINE}/mark"),
        "one_time_host_key": os.path.exists(f"{MACHINE}/one-time-host-key"),
        "arch": os.uname().machine,
        "glibc": (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")[2],
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "disk_free_bytes": disk.f_bavail * disk.f_frsize,
        "python": sys.argv[-2] if list(sys.version_info[:2]) == question["python"] else "",
        "hostname": os.uname().nodename,
        "machine_id": text("/etc/machine-id").strip(),
        "route_address": route_address(question["route_to"]),
        "missing_tools": missing(question["tools"]),
        "base": told,
        **ours(question, [base for base in bases if os.path.isdir(base)]),
    }
    print(json.dumps(found))


def ours(question: dict[str, Any], bases: list[str]) -> dict[str, Any]:
    """Return what there is of ours: caches, this cluster's node, other clusters that run here."""
    cached = ("engine/*/rain", "uv/*/uv", "code/*/__main__.py", "envs/*/.ok")
    cluster, service = question["cluster"], "{cluster}/{index}".format(**question)
    config, running, taken, active = "", [], [], ""
    for base in bases:
        own = f"{base}/clusters/{cluster}"
        node = "{}/nodes/{index}".format(own, **question)
        config = sha256(f"{node}/node.json") or config
        pids = {"governor": f"{node}/governor/keeper.pid", "supervisor": f"{own}/server/supervisor.pid"}
        running += [name for name, path in pids.items() if service_of(path) == service]
        for keeper in (
            glob.glob(f"{base}/clusters/*/nodes/*/governor/keeper.pid") if question["alone"] else []
        ):
            directory = os.path.dirname(os.path.dirname(keeper))
            other = directory.split("/")[-3]
            if other != cluster and service_of(keeper).startswith(f"{other}/"):
                taken.append(f"{parsed(f'{directory}/node.json').get('address', '')} {other}")
        for state in glob.glob(f"{own}/runs/*/state.json"):
            if parsed(state).get("state") != "finished":
                active = os.path.basename(os.path.dirname(state))
    return {
        "have": sorted(
            path for base in bases for kind in cached for path in glob.glob(f"{base}/cache/{kind}")
        ),
        "node_config_sha256": config,
        "running": running,
        "active_run": active,
        "taken": taken,
    }


def service_of(pid_file: str) -> str:
    """Return RAIN_DEPLOY_SERVICE of the process that a pid file names; empty if it does not run."""
    name = "RAIN_DEPLOY_SERVICE="
    variables = text("/proc/{}/environ".format(parsed(pid_file).get("pid"))).split("\0")
    return next((each[len(name) :] for each in variables if each.startswith(name)), "")


def parsed(path: str) -> dict[str, Any]:
    """Return the JSON object of a file; empty if there is none."""
    try:
        value = json.loads(text(path))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def text(path: str) -> str:
    """Return a file's text; empty if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def sha256(path: str) -> str:
    """Return a file's digest; empty if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return ""


def name_of(uid: int) -> str:
    """Return the user's name, or the number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def existing(path: str) -> str:
    """Return the nearest directory above ``path`` that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path) or "/"
    return path


def succeeds(*argv: str) -> bool:
    """Run a program; a missing one fails."""
    try:
        return subprocess.call(argv, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, timeout=20) == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def missing(probe: str) -> list[str]:
    """Return what the shell text ``probe`` names, a line each."""
    if not probe:
        return []
    answer = subprocess.check_output(["sh", "-c", probe], stdin=DEVNULL, stderr=DEVNULL, timeout=40)
    return answer.decode().split()


def route_address(target: str) -> str:
    """Return the source address of the route to ``target``; nothing is sent."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(target, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except (OSError, UnicodeError):
        return ""


if __name__ == "__main__":
    main()
