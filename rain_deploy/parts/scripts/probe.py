"""Looks a host up and prints what was found as one JSON object.

This file is sent to the host as text and runs there, on any Python from 3.7.  The question is its last
argument.  It only reads.
"""

from __future__ import annotations  # Python 3.8 and older have no dict[str, Any]

import contextlib
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
    uid, wanted_base = os.getuid(), os.environ.get("RAIN_DEPLOY_BASE", "")
    bases = [base.replace("UID", str(uid)) for base in question["bases"]]
    bases = [wanted_base, *bases] if wanted_base else bases
    user, sudo = str(uid), uid != 0 and succeeds("sudo", "-n", "true")
    disks = [disk_of(base, sudo=sudo) for base in bases]
    with contextlib.suppress(KeyError):
        user = pwd.getpwuid(uid).pw_name
    tools = ("sh", "-c", question["tools"] or ":")
    missing = subprocess.check_output(tools, stdin=DEVNULL, stderr=DEVNULL, timeout=40)
    found = {
        "uid": uid,
        "user": user,
        "sudo": sudo,
        "systemd": os.path.isdir("/run/systemd/system"),
        "marked": os.path.exists(f"{MACHINE}/mark"),
        "one_time_host_key": os.path.exists(f"{MACHINE}/one-time-host-key"),
        "arch": os.uname().machine,
        "glibc": (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")[2],
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "disk_free_bytes": disks[0]["free_bytes"],
        "disks": disks,
        "python": sys.argv[-2] if list(sys.version_info[:2]) == question["python"] else "",
        "hostname": os.uname().nodename,
        "machine_id": read("/etc/machine-id").decode(errors="replace").strip(),
        "route_address": route_address(question["route_to"]),
        "missing_tools": missing.decode().split(),
        "base": wanted_base,
        **ours(question, [base for base in bases if os.path.isdir(base)]),
    }
    print(json.dumps(found))


def disk_of(base: str, *, sudo: bool) -> dict[str, Any]:
    """Return how much is free where ``base`` is or would be, and why it cannot be used there, if so."""
    existing = base
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing) or "/"
    disk, problem = os.statvfs(existing), ""
    if disk.f_flag & os.ST_NOEXEC:
        problem = "mounted noexec, so no program can run there"
    elif disk.f_flag & os.ST_RDONLY:
        problem = "mounted read-only"
    elif not sudo and not os.access(existing, os.W_OK | os.X_OK):
        problem = "not writable for this account"
    return {"base": base, "place": existing, "free_bytes": disk.f_bavail * disk.f_frsize, "problem": problem}


def ours(question: dict[str, Any], bases: list[str]) -> dict[str, Any]:
    """Return what there is of ours: caches, this cluster's node, other clusters that run here."""
    cached = ("engine/*/rain", "uv/*/uv", "code/*/__main__.py", "envs/*/.ok")
    cluster, service = question["cluster"], "{cluster}/{index}".format(**question)
    config, running, taken, active = "", [], [], ""
    for base in bases:
        own = f"{base}/clusters/{cluster}"
        node = "{}/nodes/{index}".format(own, **question)
        content = read(f"{node}/node.json")
        if content:
            config = hashlib.sha256(content).hexdigest()
        pids = {"governor": f"{node}/governor/keeper.pid", "supervisor": f"{own}/server/supervisor.pid"}
        running += [name for name, path in pids.items() if service_of(path) == service]
        keepers = f"{base}/clusters/*/nodes/*/governor/keeper.pid"
        for keeper in glob.glob(keepers) if question["alone"] else []:
            directory = os.path.dirname(os.path.dirname(keeper))
            other = directory.split("/")[-3]
            if other != cluster and service_of(keeper).startswith(f"{other}/"):
                taken.append(f"{parsed(f'{directory}/node.json').get('address', '')} {other}")
        for state in glob.glob(f"{own}/runs/*/state.json"):
            if parsed(state).get("state") != "finished":
                active = os.path.basename(os.path.dirname(state))
    found = {path for base in bases for kind in cached for path in glob.glob(f"{base}/cache/{kind}")}
    damaged = {path for path in found if not usable(path, question)}
    return {
        "have": sorted(found - damaged),
        "damaged": sorted(damaged),
        "journal": any(os.path.isdir(f"{base}/clusters/{cluster}/journal") for base in bases),
        "node_config_sha256": config,
        "running": running,
        "active_run": active,
        "taken": taken,
    }


def usable(path: str, question: dict[str, Any]) -> bool:
    """Check what is in the cache: the engine, and the code and the environment that are about to be used."""
    directory = os.path.dirname(path)
    kind, digest = directory.split("/")[-2:]
    if kind == "engine":
        return os.access(path, os.X_OK) and hashlib.sha256(read(path)).hexdigest() == digest
    if kind == "code" and digest == question["code"]:
        return code_digest(directory) == digest
    if kind == "envs" and digest == question["environment"]:
        return succeeds("bin/python", "-I", "-S", "-c", question["verify"], cwd=directory)
    return True


def code_digest(directory: str) -> str:
    """Return the digest of node code, as ``software.code_bundle`` computes it."""
    paths = []
    for above, folders, names in os.walk(directory):
        folders[:] = [name for name in folders if name != "__pycache__"]
        paths += [os.path.relpath(os.path.join(above, name), directory) for name in names]
    digest = hashlib.sha256()
    for path in sorted(paths):
        data = read(os.path.join(directory, path))
        digest.update(f"{path} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:16]


def service_of(pid_file: str) -> str:
    """Return RAIN_DEPLOY_SERVICE of the process that a pid file names; empty if it does not run."""
    name = "RAIN_DEPLOY_SERVICE="
    variables = (
        read("/proc/{}/environ".format(parsed(pid_file).get("pid"))).decode(errors="replace").split("\0")
    )
    return next((each[len(name) :] for each in variables if each.startswith(name)), "")


def parsed(path: str) -> dict[str, Any]:
    """Return the JSON object of a file; empty if there is none."""
    try:
        value = json.loads(read(path))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def read(path: str) -> bytes:
    """Return a file's content; empty if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def succeeds(*argv: str, cwd: str | None = None) -> bool:
    """Run a program; a missing one fails."""
    try:
        return subprocess.call(argv, cwd=cwd, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, timeout=20) == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


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
