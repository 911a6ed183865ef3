"""The verbs that reach nodes: what is typed arrives unchanged, what comes back is whole."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pty
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rain_deploy.cli.main import root
from rain_deploy.cli.session import Application
from rain_deploy.cluster.context import Confirm, Context
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.events import EventSink
from rain_deploy.core.machine import Host
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.providers.keys import public_key
from rain_deploy.providers.local.provider import LocalProvider
from rain_deploy.verbs import copy
from rain_deploy.wiring import context
from tests.contract.servers import ADDRESS, ThreeKeys
from tests.local.command_line import PROGRAM, LocalCluster
from tests.local.conftest import Installation
from tests.local.scripts import SQUARES, WAITS
from tests.support.sshd import SSHD
from tests.support.waiting import LONG_S, wait_for

SHOW = ("sh", "-c", 'printf "%s\\0" "$@"', "sh")
"""A command that says its arguments, each ended by NUL."""
NASTY = (
    "two words", "", " ", "'q' \"d\"", "$HOME `id` $(id) ${x}", ";&|<>()", "grün 雨 🌧", "new\nline\n", "\t\r",
    "--json", "-c", "--", "-", "*", "~", "a\\b", "!1", "#", "%s %n", "\x01\x7f\x1b[0m",
)  # fmt: skip
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
ARGUMENTS = st.lists(st.one_of(st.sampled_from(NASTY), TEXT), max_size=6)
NAMES = st.one_of(
    st.sampled_from([name for name in NASTY if name.strip(".") and "/" not in name]),
    st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=40),
).filter(lambda name: name not in {".", ".."})


def examples(count: int) -> settings:
    """So many; a machine that is busy is no failure, and the nodes keep nothing between them."""
    kept = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=count, deadline=None, suppress_health_check=kept)


@dataclass
class Nodes:
    """Two recorded nodes and a command line to type in; connections are kept, as one command's are."""

    ctx: Context
    hosts: tuple[Host, ...]
    printed: list[bytes] = field(default_factory=list)

    def type_in(self, verb: str, *words: str) -> tuple[int, dict[str, Any]]:
        """Exit code and JSON of a verb."""
        result = CliRunner().invoke(root, [verb, "--json", *words], obj=self._application())
        return result.exit_code, json.loads(result.stdout)

    def ssh(self, *words: str) -> tuple[int, bytes]:
        """Exit code and output of ``ssh WORDS``."""
        self.printed.clear()
        result = CliRunner().invoke(root, ["ssh", *words], obj=self._application())
        return result.exit_code, b"".join(self.printed)

    def _application(self) -> Application:
        @contextlib.contextmanager
        def kept(_home: Path, _emit: EventSink, _confirm: Confirm) -> Iterator[Context]:
            yield self.ctx

        return Application(
            make_context=kept,
            environ={"RAIN_DEPLOY_HOME": str(self.ctx.home)},
            credentials=lambda: None,
            interactive=False,
            call=self._call,
            browse=print,
            wait=lambda: None,
        )

    def _call(self, argv: tuple[str, ...]) -> int:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=LONG_S, check=False
        )
        self.printed.append(done.stdout)
        return done.returncode


@contextlib.contextmanager
def _asyncssh(directory: Path) -> Iterator[tuple[Host, ...]]:
    provider = LocalProvider(directory)
    cluster = Cluster(id=f"verbs-{os.getpid()}", name="default", provider="local", created_s=0.0)
    intents = provider.intents(ClusterSpec("default", "local", ""), cluster, 2)
    refs = tuple(provider.create(intent) for intent in intents)
    yield provider.hosts(cluster, refs)
    for ref in refs:
        provider.delete(ref)


@contextlib.contextmanager
def _openssh(directory: Path) -> Iterator[tuple[Host, ...]]:
    if not SSHD.exists():
        pytest.skip(f"no {SSHD}: install openssh-server")
    key = directory / "id_ed25519"
    with contextlib.ExitStack() as stack:
        hosts = []
        for number in (1, 2):
            (directory / str(number)).mkdir()
            server = ThreeKeys(directory / str(number), public_key(key))
            stack.callback(server.close)
            keys = server.host_keys("ed25519", "rsa")
            user = os.environ.get("USER") or "root"
            hosts.append(Host(f"node-{number}", ADDRESS, server.port, user, keys, identity_files=(key,)))
        yield tuple(hosts)


@pytest.fixture(scope="module", params=[_asyncssh, _openssh], ids=["asyncssh", "openssh"])
def nodes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    directory = tmp_path_factory.mktemp("nodes")
    (directory / "home").mkdir()
    with (
        request.param(directory) as hosts,
        context(directory / "home", lambda _: None, lambda _: True) as ctx,
    ):
        recorded = tuple(Node(host.name, host) for host in hosts)
        ctx.store.save_cluster(Cluster("ab12", "default", "hosts", 1.8e9, recorded))
        yield Nodes(ctx, hosts)


# ---- exec and ssh


@pytest.mark.smoke
@examples(60)
@given(arguments=ARGUMENTS)
def test_exec_s_arguments_arrive_unchanged(nodes: Nodes, arguments: list[str]) -> None:
    status, document = nodes.type_in("exec", "--", *SHOW, *arguments)
    assert status == 0
    said = "".join(f"{argument}\0" for argument in arguments) or "\0"
    assert [line["stdout"] for line in document["result"]["nodes"]] == [said, said]


@examples(12)
@given(arguments=ARGUMENTS)
def test_ssh_s_arguments_arrive_unchanged(nodes: Nodes, arguments: list[str]) -> None:
    status, said = nodes.ssh("2", "--", *SHOW, *arguments)
    assert (status, said) == (0, b"".join(f"{each}\0".encode() for each in arguments) or b"\0")


def test_every_nasty_argument_at_once(nodes: Nodes) -> None:
    said = "".join(f"{argument}\0" for argument in NASTY)
    assert nodes.ssh("--", *SHOW, *NASTY) == (0, said.encode())
    _, document = nodes.type_in("exec", "--node", "2", "--", *SHOW, *NASTY)
    assert [(line["node"], line["stdout"]) for line in document["result"]["nodes"]] == [("node-2", said)]


@pytest.mark.parametrize("status", [0, 1, 3, 41, 126, 255])
def test_ssh_ends_as_the_remote_command_does(nodes: Nodes, status: int) -> None:
    assert nodes.ssh("--", "sh", "-c", f"exit {status}") == (status, b"")
    code, document = nodes.type_in("ssh", "--", "sh", "-c", f"exit {status}")
    assert (code, document["result"]["nodes"][0]["exit_status"]) == (status, status)


def test_exec_is_41_when_any_node_failed_and_tells_each_status(nodes: Nodes, tmp_path: Path) -> None:
    code, document = nodes.type_in("exec", "--", "mkdir", f"{tmp_path}/only-the-first-can")
    statuses = {line["node"]: line["exit_status"] for line in document["result"]["nodes"]}
    assert (code, document["error"]["exit_code"]) == (41, 41)
    assert sorted(statuses.values()) == [0, 1]
    loser = max(statuses, key=lambda name: statuses[name])
    assert document["error"]["message"] == f"the command failed on {loser}: exit 1"


def test_a_node_that_is_gone_is_reported_and_the_other_still_answers(nodes: Nodes) -> None:
    store, cluster = nodes.ctx.store, nodes.ctx.store.cluster("default")
    assert cluster is not None
    gone = dataclasses.replace(nodes.hosts[1], port=1)
    store.save_cluster(dataclasses.replace(cluster, nodes=(cluster.nodes[0], Node("node-2", gone))))
    try:
        code, document = nodes.type_in("exec", "--", "echo", "here")
        assert nodes.ssh("2", "--", "true")[0] == 30
    finally:
        store.save_cluster(cluster)
    assert code == 30
    first, second = document["result"]["nodes"]
    assert (first["stdout"], first["exit_status"], second["exit_status"]) == ("here\n", 0, None)
    assert second["error"]["exit_code"] == 30


# ---- push and fetch


@examples(25)
@example(source="a\\b", target="\\n\\t", content=b"backslashes")
@given(source=NAMES, target=NAMES, content=st.binary(max_size=100))
def test_any_file_goes_there_and_back_under_any_name(
    nodes: Nodes, tmp_path_factory: pytest.TempPathFactory, source: str, target: str, content: bytes
) -> None:
    here = tmp_path_factory.mktemp("here")
    (here / "from").mkdir()
    with contextlib.suppress(OSError):  # longer than this file system takes
        (here / "from" / source).write_bytes(content)
        (here / "probe").mkdir()
        (here / "probe" / target).write_bytes(b"")
        copy.push(nodes.ctx, "default", here / "from" / source, f"{here}/to/{target}", node=1)
        assert (here / "to" / target).read_bytes() == content
        copy.fetch(nodes.ctx, "default", f"{here}/to/{target}", here / "back")
        assert (here / "back").read_bytes() == content
    shutil.rmtree(here)


def test_names_with_dashes_are_no_options(nodes: Nodes, tmp_path: Path) -> None:
    name = f"-rf-{tmp_path.name}"
    (tmp_path / name).write_text("x")
    assert nodes.type_in("push", "--node", "1", "--", f"{tmp_path}/{name}", name)[0] == 0
    code, document = nodes.type_in("fetch", "--", name, f"{tmp_path}/got")
    assert (code, document["result"]["files"], (tmp_path / "got").read_text()) == (0, 1, "x")
    assert nodes.type_in("exec", "--node", "1", "--", "rm", "--", name)[0] == 0


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "deep/er").mkdir(parents=True)
    (tree / "empty").mkdir()
    (tree / "deep/er/data").write_bytes(bytes(range(256)))
    (tree / "run.sh").write_text("#!/bin/sh\n")
    (tree / "run.sh").chmod(0o755)
    (tree / "link").symlink_to("run.sh")
    return tree


def contents(place: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(place)): path.read_bytes() if path.is_file() else None
        for path in place.rglob("*")
    }


def test_push_goes_where_scp_would_put_it(nodes: Nodes, tree: Path, tmp_path: Path) -> None:
    there, want = tmp_path / "there", contents(tree)

    def push(source: Path, destination: str) -> None:
        code, document = nodes.type_in("push", "--node", "2", str(source), destination)
        assert code == 0, document

    push(tree, f"{there}/new/name")  # directories above are made
    assert contents(there / "new/name") == want
    assert os.access(there / "new/name/run.sh", os.X_OK)
    assert not (there / "new/name/link").is_symlink(), "links are followed"
    push(tree, f"{there}/new")  # a directory that exists: into it
    assert contents(there / "new/tree") == want
    push(tree / "run.sh", f"{there}/other/")  # a slash says directory
    assert (there / "other/run.sh").read_text() == "#!/bin/sh\n"
    (tree / "run.sh").write_text("changed")
    push(tree / "run.sh", f"{there}/other/run.sh")  # replaced
    assert (there / "other/run.sh").read_text() == "changed"
    push(tree / "link", f"{there}/other")  # under its own name
    assert (there / "other/link").read_text() == "changed"
    assert not list(there.rglob(".rain-deploy-push*"))


def test_fetch_goes_where_scp_would_put_it(nodes: Nodes, tree: Path, tmp_path: Path) -> None:
    here, want = tmp_path / "here", contents(tree)

    def fetch(source: Path, destination: Path, files: int) -> None:
        code, document = nodes.type_in("fetch", "--node", "2", str(source), str(destination))
        assert (code, document["result"]["files"], document["result"]["nodes"]) == (0, files, ["node-2"])

    fetch(tree, here / "new/name", 3)
    assert contents(here / "new/name") == want
    assert os.access(here / "new/name/run.sh", os.X_OK)
    fetch(tree, here / "new", 3)
    assert contents(here / "new/tree") == want
    (tree / "run.sh").write_text("changed")
    fetch(tree, here / "new", 3)  # again: replaced
    assert (here / "new/tree/run.sh").read_text() == "changed"
    fetch(tree / "link", here / "one", 1)
    assert (here / "one").read_text() == "changed"
    assert not list(here.rglob(".fetch*"))


def test_what_is_not_there_is_said_and_nothing_is_made(nodes: Nodes, tmp_path: Path) -> None:
    code, document = nodes.type_in("push", f"{tmp_path}/nothing", f"{tmp_path}/x")
    assert (code, "nothing" in document["error"]["message"]) == (10, True)
    code, document = nodes.type_in("fetch", f"{tmp_path}/nothing", f"{tmp_path}/y")
    assert (code, "nothing" in document["error"]["message"]) == (10, True)
    assert list(tmp_path.iterdir()) == []


def odd_tree(place: Path) -> None:
    """A directory with two files, and with things that cannot be copied."""
    (place / "deep").mkdir(parents=True)
    (place / "a").write_text("a")
    (place / "deep/z").write_text("z")
    (place / "deep/dangling").symlink_to("nowhere")
    (place / "deep/round").symlink_to("..")
    os.mkfifo(place / "pipe")


LEFT = ("deep/dangling", "deep/round", "pipe")


def test_what_cannot_be_pushed_is_named_and_everything_else_is_there(nodes: Nodes, tmp_path: Path) -> None:
    odd_tree(tmp_path / "tree")
    code, document = nodes.type_in("push", "--node", "1", f"{tmp_path}/tree", f"{tmp_path}/there")
    assert (code, "3 entries were not copied" in document["error"]["message"]) == (10, True)
    for name in LEFT:
        assert f"tree/{name}: " in document["error"]["details"]
    assert contents(tmp_path / "there") == {"a": b"a", "deep": None, "deep/z": b"z"}


def test_what_cannot_be_fetched_is_named_and_everything_else_is_here(nodes: Nodes, tmp_path: Path) -> None:
    odd_tree(tmp_path / "tree")
    code, document = nodes.type_in("fetch", f"{tmp_path}/tree", f"{tmp_path}/here")
    assert (code, "3 entries were not copied" in document["error"]["message"]) == (51, True)
    for name in LEFT:
        assert f"tree/{name}" in document["error"]["details"]
    assert contents(tmp_path / "here") == {"a": b"a", "deep": None, "deep/z": b"z"}
    for name in LEFT:
        (tmp_path / "tree" / name).unlink()
    assert nodes.type_in("fetch", f"{tmp_path}/tree", f"{tmp_path}/again")[0] == 0


@pytest.mark.parametrize("source", ["tree/log", "tree"])
def test_a_file_that_grows_is_fetched_as_it_was(nodes: Nodes, tmp_path: Path, source: str) -> None:
    (tmp_path / "tree").mkdir()
    path = tmp_path / "tree/log"
    path.write_bytes(bytes(1 << 24))
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.001):
            with path.open("ab") as file:
                file.write(bytes(100))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            code, document = nodes.type_in("fetch", f"{tmp_path}/{source}", f"{tmp_path}/got{number}")
            assert code == 0, document
            assert document["result"]["bytes"] >= 1 << 24
    finally:
        stop.set()
        writer.join()


def test_a_file_with_holes_is_fetched_without_them(nodes: Nodes, tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(1 << 41)  # more than is pulled, and than this disk has
    code, document = nodes.type_in("fetch", f"{tmp_path}/holes", f"{tmp_path}/got")
    assert (code, document["result"]["bytes"]) == (0, 1 << 41)
    assert ((tmp_path / "got").stat().st_size, (tmp_path / "got").stat().st_blocks) == (1 << 41, 0)


def test_a_big_file_arrives_on_all_nodes(nodes: Nodes, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 50
    (tmp_path / "big").write_bytes(data)
    code, document = nodes.type_in("push", f"{tmp_path}/big", f"{tmp_path}/there/")
    assert (code, document["result"]["bytes"]) == (0, len(data))
    assert nodes.type_in("fetch", f"{tmp_path}/there/big", f"{tmp_path}/back")[0] == 0
    assert (tmp_path / "back").read_bytes() == data


# ---- a terminal, a tunnel, a dashboard: on a living cluster


def test_ssh_without_a_command_is_a_shell_on_a_terminal(shared: LocalCluster) -> None:
    leader, follower = pty.openpty()
    program = [str(PROGRAM), "ssh", "-c", shared.name, "2"]
    env = {**os.environ, "RAIN_DEPLOY_HOME": str(shared.line.home), "TERM": "dumb"}
    with subprocess.Popen(program, stdin=follower, stdout=follower, stderr=follower, env=env) as shell:
        os.close(follower)
        os.write(leader, b"tty; exit 3\n")
        said = b""
        with contextlib.suppress(OSError):  # the last one out closes the terminal
            while chunk := os.read(leader, 4096):
                said += chunk
        assert shell.wait(LONG_S) == 3
    os.close(leader)
    assert b"/dev/pts/" in said


def test_rain_s_own_client_connects_through_the_tunnel(
    shared: LocalCluster, installation: Installation
) -> None:
    shared.at_rest()
    tunnel = shared.start("tunnel")
    try:
        tunnel.wait_for("Ctrl-C closes it")
        wait_for(lambda: tunnel.stdout.endswith("\n"))
        code = """
import sys
from rain.client import Client
host, port = sys.argv[1].split(":")
print(len(Client(host, int(port)).get_server_info()["governors"]))
"""
        argv = [str(installation.env / "bin/python"), "-c", code, tunnel.stdout.strip()]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=LONG_S, check=False)
        assert done.stdout == "2\n", done
    finally:
        tunnel.interrupt()
    assert tunnel.ended().exit_code == 130


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs a browser: apt-get install chromium")
def test_the_dashboard_shows_the_session(shared: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(SQUARES + WAITS)
    run = shared.start("run", "waits.py", str(tmp_path / "go"))
    dashboard = shared.start("dashboard", "--no-browser")
    try:
        run.wait_for("begun")
        dashboard.wait_for("Ctrl-C closes it")
        shown = page(dashboard.stdout.strip(), tmp_path)
        assert '<a href="/session/1">squares</a>' in shown, shown
    finally:
        (tmp_path / "go").touch()
        dashboard.interrupt()
        assert dashboard.ended().exit_code == 130
        assert run.ended().exit_code == 0


def page(url: str, directory: Path) -> str:
    """What a browser shows at ``url``."""
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    )
    flags += " --disable-component-update --disable-sync --virtual-time-budget=5000 --dump-dom"
    argv = ["chromium", *flags.split(), f"--user-data-dir={directory}/browser", url]
    return subprocess.run(argv, capture_output=True, text=True, timeout=LONG_S, check=True).stdout
