"""Facts of a host: the question as a real shell answers it, and what follows from a base that it tells."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.cluster.hosts import choose_base
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.layout import ROOT_BASE, user_base
from rain_deploy.core.machine import Facts, Host
from rain_deploy.errors import InstallFailed
from rain_deploy.parts.facts import DEBIAN_12, facts_command, parse_facts
from rain_deploy.parts.shell import PACKAGE

HOST = Host("node-1", "127.0.0.1", 22, "me", ())
CLUSTER = Cluster("ab12", "default", "hosts", 0.0)


def ask(*, route_to: str = "", **variables: str) -> Facts:
    answered = subprocess.run(
        ["/bin/sh", *facts_command(HOST, "ab12", route_to=route_to).argv[1:]],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return parse_facts(HOST, answered.stdout)


def test_the_base_of_its_environment_is_reported_and_searched_for_what_is_there(tmp_path: Path) -> None:
    base = tmp_path / "the base"
    engine = base / "cache/engine" / hashlib.sha256(b"").hexdigest() / "rain"
    engine.parent.mkdir(parents=True)
    engine.touch(mode=0o755)
    facts = ask(RAIN_DEPLOY_BASE=str(base))
    assert facts.base == str(base)
    assert str(engine) in facts.have
    assert ask().base == ""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Path]:
    """The base of a host on which a node of ours and one of another cluster run, with two runs."""
    for cluster, address in (("ab12", "10.0.0.1"), ("cd34", "10.0.0.9")):
        home = tmp_path / f"clusters/{cluster}/nodes/1"
        (home / "governor").mkdir(parents=True)
        (home / "node.json").write_text(json.dumps({"address": address}))
    for run, state in (("r1", "finished"), ("r2", "running")):
        (tmp_path / f"clusters/ab12/runs/{run}").mkdir(parents=True)
        (tmp_path / f"clusters/ab12/runs/{run}/state.json").write_text(json.dumps({"state": state}))
    with contextlib.ExitStack() as stack:
        for cluster in ("ab12", "cd34"):
            keeper = stack.enter_context(
                subprocess.Popen(["/bin/sleep", "60"], env={"RAIN_DEPLOY_SERVICE": f"{cluster}/1"})
            )
            stack.callback(keeper.kill)
            pid = tmp_path / f"clusters/{cluster}/nodes/1/governor/keeper.pid"
            pid.write_text(json.dumps({"pid": keeper.pid, "start": 1}))
        yield tmp_path


def test_what_runs_on_a_host_is_found(node: Path) -> None:
    facts = ask(RAIN_DEPLOY_BASE=str(node))
    config = (node / "clusters/ab12/nodes/1/node.json").read_bytes()
    assert facts.node_config_sha256 == hashlib.sha256(config).hexdigest()
    assert (facts.running, facts.active_run) == (("governor",), "r2")
    assert not facts.journal
    (node / "clusters/ab12/journal").mkdir()
    assert ask(RAIN_DEPLOY_BASE=str(node)).journal
    assert facts.taken == ("10.0.0.9 cd34",)


def test_a_pid_that_is_another_process_now_is_no_service(node: Path) -> None:
    pid = node / "clusters/ab12/nodes/1/governor/keeper.pid"
    for content in (json.dumps({"pid": os.getpid()}), "{}", "half a fi"):
        pid.write_text(content)
        assert ask(RAIN_DEPLOY_BASE=str(node)).running == ()


def test_a_host_without_any_python_says_enough_to_be_refused(tmp_path: Path) -> None:
    for name in ("sh", "id", "tr", "uname"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    facts = ask(PATH=str(tmp_path))
    assert (facts.uid, facts.arch, facts.python) == (os.getuid(), os.uname().machine, "")


def test_the_route_to_the_first_node_says_where_the_others_reach_a_host() -> None:
    assert ask(route_to="127.0.0.1").route_address == "127.0.0.1"
    assert ask(route_to="nowhere.invalid").route_address == ""


@pytest.mark.parametrize("answer", ["", "not json", "[]", '{"user": "root"}', '{"uid": "x"}'])
def test_an_answer_that_is_none_is_shown(answer: str) -> None:
    with pytest.raises(InstallFailed) as caught:
        parse_facts(HOST, answer)
    assert (caught.value.node, caught.value.details) == ("node-1", answer)


def test_no_variable_makes_a_host_one_of_our_machines(tmp_path: Path) -> None:
    for name in ("mark", "one-time-host-key"):
        (tmp_path / name).touch()
    facts = ask(RAIN_DEPLOY_MACHINE=str(tmp_path))
    assert (facts.marked, facts.one_time_host_key) == (False, False)


@pytest.mark.parametrize(
    ("told", "chosen"), [(("/b", "/b"), "/b"), (("/b", "/c"), ROOT_BASE), (("/b", ""), ROOT_BASE)]
)
def test_the_base_that_all_tell_is_taken(told: tuple[str, str], chosen: str) -> None:
    hosts = tuple(replace(HOST, name=f"node-{n}") for n in (1, 2))
    facts = {host.name: replace(DEBIAN_12, base=base) for host, base in zip(hosts, told, strict=True)}
    assert choose_base(CLUSTER, hosts, facts) == chosen
    own = (replace(hosts[0], base="/provider"), hosts[1])
    assert choose_base(CLUSTER, own, facts) == "/provider"
    assert choose_base(replace(CLUSTER, base="/recorded"), hosts, facts) == "/recorded"


def test_a_host_with_an_old_python_can_run_the_question() -> None:
    source = (PACKAGE / "parts/scripts/probe.py").read_text("ascii")
    ast.parse(source, feature_version=(3, 7))
    # As in Python 3.8, in which dict[str, object] is a TypeError:
    old = {kind.__name__: type(kind.__name__, (kind,), {"__class_getitem__": None}) for kind in (dict, list)}
    names: dict[str, object] = {"__name__": "probe", **old}
    exec(compile(source, "probe.py", "exec", dont_inherit=True), names)  # noqa: S102 - it only defines
    assert callable(names["main"])


# Disks


def test_every_directory_that_may_become_the_base_has_its_own_disk(tmp_path: Path) -> None:
    facts = ask()
    assert [disk.base for disk in facts.disks] == [ROOT_BASE, user_base(os.getuid())]
    for disk in facts.disks:
        found = os.statvfs(disk.place)
        assert Path(disk.base).is_relative_to(disk.place)
        assert abs(disk.free_bytes - found.f_bavail * found.f_frsize) < 2 << 30
    assert facts.disk("/somewhere").free_bytes == facts.disk_free_bytes
    base = tmp_path / "not/there/yet"
    assert ask(RAIN_DEPLOY_BASE=str(base)).disk(str(base)).place == str(tmp_path)


@pytest.mark.root
@pytest.mark.parametrize(
    ("option", "problem"),
    [("noexec", "mounted noexec, so no program can run there"), ("ro", "mounted read-only"), ("rw", "")],
)
def test_a_disk_that_cannot_be_used_is_seen(tmp_path: Path, option: str, problem: str) -> None:
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root and unshare for a mount of its own")
    question = facts_command(HOST, "ab12").argv[1:]
    mounted = f'mount -t tmpfs -o size=1m,{option} none "$0" && exec /bin/sh "$@"'
    answered = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mounted, str(tmp_path), *question],
        env={"PATH": os.environ["PATH"], "RAIN_DEPLOY_BASE": str(tmp_path / "base")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    disk = parse_facts(HOST, answered.stdout).disk(str(tmp_path / "base"))
    assert (disk.place, disk.problem) == (str(tmp_path), problem)
    assert disk.free_bytes <= 1 << 20


@pytest.mark.root
def test_a_directory_that_others_own_is_not_writable_without_root(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("needs root and setpriv to be another user")
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == 0 and directory not in {Path("/"), Path("/tmp")}:
            directory.chmod(0o755)
    question = facts_command(HOST, "ab12").argv[1:]
    answered = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/bin/sh", *question],
        env={"PATH": "/usr/bin:/bin", "RAIN_DEPLOY_BASE": str(tmp_path / "base")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert parse_facts(HOST, answered.stdout).disk(str(tmp_path / "base")).problem.startswith("not writable")
