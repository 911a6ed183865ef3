"""Which flag an error names when a run is missing a file of this machine, or a module."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.core.events import Notice
from rain_deploy.core.spec import ResolvedEnvironment, RunSpec
from rain_deploy.core.step import Command, CommandResult
from rain_deploy.errors import EngineError, InputError, ScriptFailed, Unreachable
from rain_deploy.node.wire import MODULES_MISSING
from rain_deploy.runs.finish import RunResult
from rain_deploy.runs.missing import advice, package_of, up_with
from rain_deploy.verbs.run import run
from tests.unit.test_flow_run import CLUSTER, RUN, World, world

__all__ = ["world"]
ON_NODE = f"/base/runs/{RUN.id}/files"


@pytest.fixture
def here(world: World) -> Path:
    """The directory in which `run` is typed, with files that were not sent."""
    cwd = world.ctx.cwd
    (cwd / "data").mkdir()
    for name in ("a.csv", "with space.csv", "helper.py", "data/1.csv"):
        (cwd / name).touch()
    return cwd


def advised(world: World, stderr: str, failure: str = "") -> str:
    out = world.ctx.cwd / "results/r1"
    out.mkdir(parents=True, exist_ok=True)
    (out / "stderr.log").write_text(f"Traceback (most recent call last):\n{stderr}\n")
    return advice(world.ctx, replace(RUN, out=out), failure)


NO_FILE = "FileNotFoundError: [Errno 2] No such file or directory: "
FOUND = {
    "relative": (f"{NO_FILE}'a.csv'", "a.csv exists here but was not sent", "--files a.csv"),
    "in a directory": (f"{NO_FILE}'data/1.csv'", "data/1.csv exists here", "--files data/1.csv"),
    "by __file__": (f"{NO_FILE}'{ON_NODE}/a.csv'", "a.csv exists here", "--files a.csv"),
    "numpy": ("FileNotFoundError: a.csv not found.", "a.csv exists here", "--files a.csv"),
    "a directory": (f"{NO_FILE}'data'", "data exists here", "--files data"),
    "quoted for the shell": (f"{NO_FILE}'with space.csv'", "with space.csv", "--files 'with space.csv'"),
    "a module": ("ModuleNotFoundError: No module named 'helper'", "helper.py", "--files helper.py"),
    "a package": ("ModuleNotFoundError: No module named 'data.x'", "data exists here", "--files data"),
    "another module": ("ModuleNotFoundError: No module named 'nomod.x'", "no module nomod", "--with nomod"),
    "the last error": (f"{NO_FILE}'gone'\nImportError: No module named nomod", "nomod", "--with nomod"),
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("what", FOUND)
def test_an_error_names_the_flag_that_sends_it(world: World, what: str) -> None:
    stderr, says, flag = FOUND[what]
    text = advised(world, stderr)
    assert (says in text, flag in text) == (True, True), text


SENT = {
    "by a task": (f"task 3 failed on node-2: {NO_FILE}'data/1.csv'", "data/1.csv was sent, but tasks run in"),
    "its directory": (f"{NO_FILE}'data'", "os.path.abspath('data')"),
    "not normal": (f"{NO_FILE}'data/../a.csv'", "os.path.abspath("),
    "numpy": ("FileNotFoundError: a.csv not found.", "a.csv was sent, but tasks run in"),
    "by a path of this machine": (
        f"{NO_FILE}'CWD/a.csv'",
        "is a path of this machine: on the nodes it is a.csv",
    ),
    "deleted by the script": (f"{NO_FILE}'{ON_NODE}/a.csv'", ""),
    "a module": ("ModuleNotFoundError: No module named 'helper'", ""),
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("below", ["", "PROJECT/"])
@pytest.mark.parametrize("what", SENT)
def test_what_was_sent_is_never_said_to_be_missing(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str, below: str
) -> None:
    """Tasks run in a directory of their own, so a relative name fails there.  The root may be above `cwd`."""
    cwd = world.ctx.cwd
    below = below.replace("PROJECT", cwd.resolve().name)
    sent = {f"{below}{name}": "00" for name in ("a.csv", "data/1.csv", "helper.py", "s.py")}
    asked: list[str] = []

    def answer(_host: object, command: Command, **_more: object) -> CommandResult:
        asked.append(command.argv[-1])
        return CommandResult(0, json.dumps(sent).encode(), b"")

    monkeypatch.setattr(world.node, "run", answer)
    stderr, says = SENT[what]
    text = advised(world, stderr.replace("CWD", str(cwd.resolve())))
    assert says in text
    assert "not sent" not in text
    assert (text == "") == (says == "")
    assert set(asked) == {f"/b/clusters/abcd1234/runs/{RUN.id}/shipped.json"}
    assert "with space.csv exists here but was not sent" in advised(world, f"{NO_FILE}'with space.csv'")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("answer", [b"", b"[1]", b"[" * 100_000, b"\xff", None])
def test_a_server_node_that_cannot_say_what_was_sent_costs_no_advice(
    world: World, monkeypatch: pytest.MonkeyPatch, answer: bytes | None
) -> None:
    def run(_host: object, _command: Command, **_more: object) -> CommandResult:
        if answer is None:
            raise Unreachable("lost", node="node-1")
        return CommandResult(0, answer, b"")

    monkeypatch.setattr(world.node, "run", run)
    assert advised(world, f"{NO_FILE}'a.csv'").endswith("--files a.csv")


NO_HOST = {
    "Keras": "Exception: URL fetch failure on https://data.example/x/mnist.npz: None -- [Errno -2] Name",
    "requests": "ConnectionError: HTTPSConnectionPool(host='data.example', port=443): Max retries",
    "curl": "curl: (6) Could not resolve host: data.example",
    "aiohttp": "ClientConnectorError: Cannot connect to host data.example:443 ssl:default [Name]",
    "wget": "wget: unable to resolve host address \u2018data.example\u2019",
    "urllib": "urllib.error.URLError: <urlopen error [Errno 111] Connection refused>",
}


@pytest.mark.parametrize("what", NO_HOST)
def test_a_host_that_cannot_be_reached_is_named_with_what_to_do(world: World, what: str) -> None:
    host = "a host that the script needs" if what == "urllib" else "data.example"
    text = advised(world, NO_HOST[what])
    assert text.startswith(f"the nodes could not reach {host}: ")
    assert text.endswith("download the data here and send it with --files")
    assert advice(world.ctx, replace(RUN, out=Path("/none")), f"task 3 failed: {NO_HOST[what]}") == text


@pytest.mark.parametrize("opened", ["limits.txt", f"{ON_NODE}/limits.txt", "data/limits.txt"])
def test_a_file_that_the_script_reads_and_that_is_not_here_is_named_with_its_line(
    world: World, opened: str
) -> None:
    name = opened.removeprefix(f"{ON_NODE}/")
    (world.ctx.cwd / "s.py").write_text(f"import json\n\nlimits = open({name!r}).read()\n")
    text = advised(world, f"{NO_FILE}{opened!r}")
    assert text.startswith(f"s.py, line 3 reads {name}, which is not here: ")
    assert text.endswith("--files PATH")


@pytest.mark.usefixtures("here")
def test_an_error_of_a_point_names_the_flag(world: World) -> None:
    assert "--files a.csv" in advised(world, "TaskException", f"task 3 on node-1: {NO_FILE}'a.csv'")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "text", ["", "ValueError: a.csv", f"{NO_FILE}'gone.csv'", f"{NO_FILE}'{'x' * 5000}'", "x\0"]
)
def test_what_is_not_here_gives_no_advice(world: World, text: str) -> None:
    assert advised(world, text) == ""


def test_a_path_of_this_machine_is_named_as_one(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other") / "x.csv"
    other.touch()
    assert f"{other} is a path of this machine" in advised(world, f"{NO_FILE}'{other}'")


def test_the_error_of_the_run_ends_with_the_advice() -> None:
    result = RunResult("one", "r1", "finished", "failed", 1, Path("/out"), 1.0, advice="a.csv is here")
    assert isinstance(result.problem, ScriptFailed)
    assert result.problem.next_step == "a.csv is here"
    failed = replace(result, failed_points=1).problem
    assert failed is not None
    assert failed.next_step == "a.csv is here"


def test_modules_that_the_nodes_are_missing_are_reported_and_nothing_starts(world: World) -> None:
    (world.ctx.cwd / "s.py").write_text("import nomod, yaml\n")
    missing = [{"name": name, "where": "s.py, line 1", "sure": True} for name in ("nomod", "yaml")]
    world.node.follows = [([], MODULES_MISSING)]
    world.node.complaint = json.dumps(missing).encode()
    with pytest.raises(InputError, match=r"imports nomod; .*, imports yaml") as caught:
        run(world.ctx, "one", RunSpec(Path("s.py")))
    assert "rain-deploy up -c one --with nomod --with PyYAML" in (caught.value.next_step or "")
    assert [record.id for record in world.store.runs()] == []


WARNING = b"sh: warning: setlocale: LC_ALL: cannot change locale (de_CH.UTF-8)\n"
LIST = b'[{"name": "nomod", "where": "s.py, line 1", "sure": true}]\n'


@pytest.mark.parametrize(
    "printed", [LIST, WARNING + LIST, WARNING * 3 + LIST + b"bash: bye\n", b"\xff\n" + LIST]
)
def test_what_a_shell_prints_beside_the_modules_does_not_hide_them(world: World, printed: bytes) -> None:
    world.node.follows, world.node.complaint = [([], MODULES_MISSING)], printed
    with pytest.raises(InputError, match=r"s.py, line 1, imports nomod; nothing was started"):
        run(world.ctx, "one", RunSpec(Path("s.py")))


@pytest.mark.parametrize("printed", [b"", WARNING, b"[1]", b"[]", b"[{", b"{}", b'[{"name": 3}]'])
def test_a_list_of_modules_that_cannot_be_read_is_the_nodes_fault_with_a_next_step(
    world: World, printed: bytes
) -> None:
    world.node.follows, world.node.complaint = [([], MODULES_MISSING)], printed
    with pytest.raises(EngineError, match="the answer of node-1 cannot be read") as caught:
        run(world.ctx, "one", RunSpec(Path("s.py")))
    assert "rain-deploy up -c one" in str(caught.value.next_step)


def test_modules_that_may_be_missing_are_reported_when_the_run_is_queued(world: World) -> None:
    warned: dict[str, Any] = {"state": "queued", "warnings": ["s.py, line 2, imports nomod"]}
    end: list[dict[str, Any]] = [warned, {"t": "state", "state": "finished", "outcome": "done"}, {"t": "end"}]
    world.node.follows = [(end, 0)]
    with pytest.raises(Exception):  # noqa: B017, PT011 - the server node of this test has no results
        run(world.ctx, "one", RunSpec(Path("s.py")))
    assert [e.text for e in world.seen if isinstance(e, Notice)].count("s.py, line 2, imports nomod") == 1


def test_the_package_of_a_module_is_known_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "lib/python3.12/site-packages/Odd_Name-1.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: Odd.Name\nVersion: 1\n")
    (site / "top_level.txt").write_text("oddmod\n")
    assert package_of("oddmod") == ""
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    assert (package_of("oddmod"), package_of("yaml"), package_of("nomod")) == ("Odd.Name", "PyYAML", "")


def test_up_with_says_what_else_must_be_repeated(world: World) -> None:
    assert up_with(world.ctx, RUN, ["yaml"]) == "rain-deploy up -c one --with PyYAML"
    assert "if module nomod is in a package of another name, use that name" in up_with(
        world.ctx, RUN, ["nomod"]
    )
    assert "if modules nomod and nomore are in packages of other names, use those names" in up_with(
        world.ctx, RUN, ["nomod", "yaml", "nomore"]
    )
    world.store.save_environment(CLUSTER.id, "asked", ResolvedEnvironment(lock_text="other"))
    assert up_with(world.ctx, RUN, ["yaml"]).endswith("(repeat the earlier --with and --requirements)")
