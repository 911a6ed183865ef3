"""Bad input, as typed: the exit code of the table, one clear message with a next step, no change.

One case stands for each way that input takes; what single values are refused is in tests/unit/test_config.py.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from rain_deploy.state.file import VERSION
from rain_deploy.state.store import Store
from tests.local.command_line import CommandLine, LocalCluster, Told, living_in

UP = ("up", "--provider", "local")
GOOD = {"good.py": b"print(1)\n"}
NOT_RECORDED = {"logs", "locks"}
"""Of a home: a debug log is always written, and a lock names its last holder."""
USER = ("unshare", "--user", "--map-user=1000")
"""In front of a command: an ordinary user, with no sudo to help."""


def has(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


needs_mounts = pytest.mark.skipif(
    not has("unshare", "-m", "true"), reason="needs root that may mount file systems"
)


@dataclass(frozen=True)
class Case:
    """What is typed, what lies in the directory, how it ends and what is said."""

    words: tuple[str, ...]
    exit_code: int
    said: tuple[str, ...]
    files: dict[str, bytes] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()


def toml(text: str, *said: str, prefix: tuple[str, ...] = ()) -> Case:
    files = {"rain-deploy.toml": text.encode(), "setup.sh": b"true\n"}
    return Case((*UP, "--nodes", "1"), 10, ("rain-deploy.toml", *said), files, prefix)


def script(content: bytes, *said: str) -> Case:
    return Case(("sweep", *UP[1:], "bad.py"), 10, ("bad.py", *said), {"bad.py": content})


def usage(words: tuple[str, ...], *said: str) -> Case:
    return Case(words, 2, said, GOOD)


def inputs(words: tuple[str, ...], *said: str, **files: bytes) -> Case:
    return Case(words, 10, said, {name.replace("__", "."): content for name, content in files.items()})


NODES = ("--nodes", "a whole number from 1 to 1000")
NAME = ("--cluster", "lower-case letters, digits and dashes")
ZIPPED = b"PK\5\6" + bytes(18)

CASES = {
    "no script": inputs(("run", "none.py"), "none.py", "No such file"),
    "no script to sweep": inputs(("sweep", *UP[1:], "none.py"), "none.py", "No such file"),
    "script is a directory": inputs(("sweep", *UP[1:], "."), "Is a directory"),
    "script of Python 3.12": script(b"import os\ntype X = int\n", "line 2", "Python 3.11"),
    "script with an f-string of 3.12": script(b'print(f"{"a"}")\n', "line 1", "Python 3.11"),
    "script that is not UTF-8": script(b'\nx = "\xff"\n', "Python 3.11", "line 2", "utf-8"),
    "--nodes abc": usage((*UP, "--nodes", "abc"), *NODES, "'abc'"),
    "TOML unknown key": toml("nodez = 2\n", "'nodez'", "'nodes'"),
    "TOML apt": Case(UP, 10, ("apt: 'x;y'", "Debian package"), {"rain-deploy.toml": b'apt = ["x;y"]'}),
    "no config file": inputs((*UP, "--config", "none.toml"), "config file", "none.toml", "No such file"),
    "no requirements file": inputs((*UP, "--requirements", "none.txt"), "requirements", "none.txt"),
    "requirements are a directory": inputs((*UP, "--requirements", "."), "requirements", "a directory"),
    "requirements not UTF-8": inputs(
        (*UP, "--requirements", "r.txt"), "requirements", "r.txt", "line 2", r__txt=b"scipy\n# \xe9\n"
    ),
    "requirement that is none": inputs(
        (*UP, "--requirements", "r.txt"), "r.txt, line 2", r__txt=b"scipy\n!!\n"
    ),
    "no wheel": inputs((*UP, "--with", "./a-1-py3-none-any.whl"), "--with", "a-1-py3-none-any.whl"),
    "wheel that is no archive": Case(
        (*UP, "--with", "a-1-py3-none-any.whl"),
        10,
        ("--with", "not a wheel"),
        {"a-1-py3-none-any.whl": b"no"},
    ),
    "wheel that is another archive": Case(
        (*UP, "--with", "a-1-py3-none-any.whl"),
        10,
        ("--with", "not a wheel"),
        {"a-1-py3-none-any.whl": ZIPPED},
    ),
    "--with of no package": inputs((*UP, "--with", "a b c"), "--with", "'a b c'"),
    "--with of an unknown package": inputs(
        (*UP, "--with", "no-such-package-of-rain-deploy"), "--with", "no-such-package-of-rain-deploy"
    ),
    "host that does not resolve": inputs(
        ("up", "--provider", "hosts", "--hosts", "me@nowhere.invalid"), "me@nowhere.invalid", "resolve"
    ),
    "hosts file with a wrong line": Case(
        ("up", "--hosts", "./h"),
        2,
        ("host entries such as", "'-oProxyCommand=x'"),
        {"h": b"a\n-oProxyCommand=x\n"},
    ),
    "hosts that are not named": inputs(("up", "--provider", "hosts"), "no machine is named", "--hosts"),
    "more nodes than hosts": inputs(("up", "--hosts", "a,b", "--nodes", "3"), "3 nodes", "2 are listed"),
    "unknown flag": usage((*UP, "--nodez", "2"), "--nodez"),
    "unknown provider": usage(("up", "--provider", "azure"), "--provider", "'azure'", "local"),
    "a time limit for this machine": inputs((*UP, "--ttl", "1h"), "--ttl", "never powered off"),
    "no provider and nobody to ask": usage(("up",), "no provider given"),
    "-c with a space": usage((*UP, "-c", "a b"), *NAME, "'a b'"),
    "-c ../x": usage((*UP, "-c", "../x"), *NAME, "'../x'"),
    "-c with a leading dash": usage((*UP, "-c", "-x"), *NAME, "'-x'"),
    "-c of 300 letters": usage((*UP, "-c", "a" * 300), *NAME, f"'{'a' * 40}…'"),
    "-c of nothing": usage((*UP, "--cluster="), *NAME, "''"),
    "--env of a missing variable": usage(
        ("run", "--env", "NOT_SET_HERE", "good.py"), "--env", "NOT_SET_HERE=VALUE"
    ),
    "--env of no name": usage(("run", "--env", "1x=2", "good.py"), "--env", "'1x'"),
    "run with no cluster": replace(
        usage(("run", "good.py"), "cluster default is not recorded"), exit_code=10
    ),
    "attach to nothing": inputs(("attach", "r1"), "cluster default is not recorded"),
    "apt without root": toml('apt = ["jq"]\n', prefix=USER),
    "setup without root": toml('setup = "setup.sh"\n', prefix=USER),
}
CASES["apt without root"] = replace(CASES["apt without root"], said=("apt: needs root",))
CASES["setup without root"] = replace(CASES["setup without root"], said=("setup: needs root",))


@pytest.fixture
def line(tmp_path: Path) -> CommandLine:
    """A home with a state file, and an empty directory to type in."""
    made = CommandLine(tmp_path / "home", tmp_path / "work", env=(("EXOSCALE_API_KEY", ""),))
    made.cwd.mkdir()
    Store(made.home)
    return made


def snapshot(*places: Path) -> dict[str, str]:
    """Every file and directory, with a digest of what it holds."""
    found = {}
    for place in places:
        for path in sorted(place.rglob("*")):
            if path.relative_to(place).parts[0] not in NOT_RECORDED:
                content = path.read_bytes() if path.is_file() else b""
                found[str(path)] = hashlib.sha256(content).hexdigest()
    return found


def refused(line: CommandLine, case: Case) -> Told:
    """What is typed is refused, for people and for programs alike, and leaves everything as it was."""
    for name, content in case.files.items():
        (line.cwd / name).write_bytes(content)
    before = snapshot(line.home, line.cwd)
    typed = replace(line, prefix=case.prefix)
    verb, *rest = case.words

    told = typed(*case.words)
    assert (told.exit_code, told.stdout) == (case.exit_code, ""), told
    assert told.stderr.count("error[") == 1
    message = told.stderr[told.stderr.index(f"error[RD{case.exit_code}]") :]
    assert all(words in message for words in case.said), message
    assert "\nnext: " in message
    assert "Traceback" not in told.stderr

    as_json = typed(verb, "--json", *rest)
    error = as_json.error
    assert (as_json.exit_code, error["code"]) == (case.exit_code, f"RD{case.exit_code}")
    assert error["message"] in message
    assert error["next"] in message
    assert as_json.document["verb"] == verb

    assert snapshot(line.home, line.cwd) == before
    assert not living_in(line.home)
    return told


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_and_nothing_changes(line: CommandLine, name: str) -> None:
    case = CASES[name]
    if case.prefix and not has(*case.prefix, "true"):
        pytest.skip("no user namespace can be made here")
    refused(line, case)


def test_a_wrong_value_from_the_environment_names_its_flag(line: CommandLine) -> None:
    told = line(*UP, env={"RAIN_DEPLOY_NODES": "many"})
    assert (
        told.exit_code,
        "'--nodes': expected a whole number from 1 to 1000, got 'many'" in told.stderr,
    ) == (
        2,
        True,
    )


# ---- state and home


EVERY = (("list",), (*UP, "--nodes", "1"), ("run", "good.py"))


def all_refused(line: CommandLine, *said: str) -> None:
    for words in EVERY:
        refused(line, Case(words, 12, said, GOOD))


def test_a_state_file_of_a_newer_version_is_left_as_it_is(line: CommandLine) -> None:
    with sqlite3.connect(line.home / "state.sqlite") as database:
        database.execute(f"PRAGMA user_version = {VERSION + 1}")
    database.close()
    all_refused(line, "state.sqlite", "newer rain-deploy")


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000], ids=["empty", "garbage"])
def test_a_file_that_is_no_state_file_is_left_as_it_is(line: CommandLine, content: bytes) -> None:
    (line.home / "state.sqlite").write_bytes(content)
    all_refused(line, "state.sqlite is not a state file", "left as it is")


def test_a_record_that_cannot_be_read_is_left_as_it_is(line: CommandLine) -> None:
    with sqlite3.connect(line.home / "state.sqlite") as database:
        database.execute("INSERT INTO clusters VALUES ('default', 'ab12', '{}')")
    database.close()
    all_refused(line, "or is damaged: it holds a Cluster that cannot be read")


@pytest.fixture
def mounted(line: CommandLine) -> Iterator[CommandLine]:
    """Its home may be mounted upon, and is free of that in the end."""
    yield line
    subprocess.run(["umount", "-l", line.home], check=True)


def mount(*how: str) -> None:
    subprocess.run(["mount", *how], check=True)


@pytest.mark.root
@needs_mounts
def test_a_home_that_cannot_be_written_is_named_by_what_must_record_and_read_by_what_looks(
    mounted: CommandLine,
) -> None:
    home = str(mounted.home)
    mount("--bind", home, home)
    mount("-o", "remount,ro,bind", home)
    refused(mounted, Case((*UP, "--nodes", "1"), 12, (home, "cannot be written: Read-only file system"), {}))
    assert mounted.clusters() == []
    assert "is not recorded on this machine" in mounted.well("down").stdout


@pytest.mark.root
@needs_mounts
def test_a_full_disk_is_reported_and_leaves_nothing_half_made(mounted: CommandLine) -> None:
    home = mounted.home
    mount("-t", "tmpfs", "-o", "size=1m", "none", str(home))
    filler = home / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(bytes(2 << 20))
    all_refused(mounted, "the disk is full", str(home))
    assert {path.name for path in home.iterdir()} == {"filler", "logs"}
    filler.unlink()
    assert mounted.clusters() == []
    refused(mounted, Case((*UP, "--nodes", "1"), 12, ("the disk is full", str(home), "MB free"), GOOD))


def test_a_home_that_is_a_file_is_named(line: CommandLine) -> None:
    shutil.rmtree(line.home)
    line.home.write_bytes(b"")
    told = line("list")
    assert (told.exit_code, str(line.home) in told.stderr) == (12, True)


# ---- on a living cluster


def refused_by_cluster(cluster: LocalCluster, *words: str) -> str:
    """``run`` ends with 10 before a node has received a command; what was said."""
    (cluster.line.cwd / "good.py").write_bytes(GOOD["good.py"])
    living = cluster.at_rest()
    before = snapshot(cluster.line.cwd), len(cluster.commands(1)), living
    told = cluster("run", *words, "good.py")
    assert (told.exit_code, told.stdout) == (10, ""), told
    assert (snapshot(cluster.line.cwd), len(cluster.commands(1)), cluster.processes()) == before
    assert cluster("run", "--json", *words, "good.py").error["message"] in told.stderr
    return told.stderr


def test_a_results_directory_that_holds_other_files_is_refused_before_anything_is_shipped(
    shared: LocalCluster,
) -> None:
    other = shared.line.cwd / "mine"
    other.mkdir()
    (other / "thesis.tex").touch()
    told = refused_by_cluster(shared, "--out", "mine")
    assert f"the results directory {other} holds other files (thesis.tex)" in told
    assert "next: name another with --out" in told


def test_a_results_directory_that_is_a_file_is_refused(shared: LocalCluster) -> None:
    (shared.line.cwd / "mine").touch()
    assert "mine is a file" in refused_by_cluster(shared, "--out", "mine")


def test_files_that_are_not_there_are_named(shared: LocalCluster) -> None:
    assert "none.csv" in refused_by_cluster(shared, "--files", "none.csv")


def test_fewer_nodes_than_live_and_another_provider_are_refused(shared: LocalCluster) -> None:
    before = shared.at_rest()
    fewer = shared("up", "--nodes", "1")
    assert (fewer.exit_code, "has 2 nodes" in fewer.stderr) == (10, True), fewer
    other = shared("up", "--provider", "hosts", "--hosts", f"{os.environ.get('USER', 'me')}@nowhere.invalid")
    assert (other.exit_code, "is of provider local" in other.stderr) == (10, True), other
    node = shared("exec", "--node", "9", "--", "true")
    assert (node.exit_code, "has no node 9" in node.stderr) == (10, True), node
    assert shared.processes() == before
