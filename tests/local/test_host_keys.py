"""Host keys: another machine at a known address stops every verb that speaks SSH; nothing takes a new key."""

from __future__ import annotations

import dataclasses
import getpass
import os
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import rain_deploy
from rain_deploy.cli.main import root
from rain_deploy.cli.session import Application
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.machine import Host, Machines
from rain_deploy.core.run import RunRecord, RunState
from rain_deploy.core.spec import ClusterSpec, ResolvedEnvironment
from rain_deploy.parts.shell import templates_directory
from rain_deploy.providers.hosts.provider import HostsProvider
from rain_deploy.providers.keys import public_key
from rain_deploy.providers.local.provider import LocalProvider
from rain_deploy.state.store import Store

SPEAKS_SSH = (
    ("up",),
    ("run", "script.py"),
    ("run", "--detach", "script.py"),
    ("sweep", "--yes", "script.py"),
    ("attach",),
    ("status",),
    ("status", "--check"),
    ("runs",),
    ("logs",),
    ("logs", "-f"),
    ("logs", "--node", "1"),
    ("points",),
    ("points", "--follow"),
    ("cancel",),
    ("pull",),
    ("pull", "--all"),
    ("exec", "--", "touch", "done"),
    ("ssh", "--", "touch", "done"),
    ("ssh",),
    ("ssh", "--json", "--", "touch", "done"),
    ("push", "script.py", "done"),
    ("fetch", "script.py", "."),
    ("tunnel",),
    ("dashboard", "--no-browser"),
    ("check",),
    ("down", "--yes"),
    ("down", "--yes", "--discard-results"),
)
REACHES_ALL = (
    ("up",),
    ("run", "script.py"),
    ("status",),
    ("exec", "--", "touch", "done"),
    ("push", "script.py", "done"),
    ("down", "--yes", "--discard-results"),
)


@dataclass(frozen=True)
class Known:
    """A user with a cluster of two machines, whose SSH servers run and let the user in."""

    user: Path
    machines: tuple[Host, ...]
    stranger: str
    """Public key that no machine has."""

    @property
    def home(self) -> Path:
        return self.user / "rain"

    def record(self, *strange: int, run: RunState = RunState.RUNNING) -> None:
        """The user knows both machines, but at those numbered ``strange`` another key answers now."""
        keys = [self.stranger if host.index in strange else host.host_keys[0] for host in self.machines]
        self.know(dict(zip(self.machines, keys, strict=True)))
        provider, store = HostsProvider(user_home=self.user), Store(self.home)
        entries = tuple(f"{getpass.getuser()}@{host.address}:{host.port}" for host in self.machines)
        spec = ClusterSpec("default", "hosts", "test", machines=Machines(hosts=entries))
        machines = Machines(hosts=entries, trust_networks=("127.0.0.0/8",))
        empty = Cluster("ab12", "default", "hosts", 1.8e9, machines=machines)
        intents = provider.intents(spec, empty, len(entries))
        for intent in intents:
            store.save_intent(intent)
            store.save_resource(provider.create(intent))
        nodes = tuple(Node(host.name, host, None, host.address, 1, 1) for host in provider.preview(intents))
        store.save_cluster(dataclasses.replace(empty, nodes=nodes, base=str(self.user), up=True))
        out = self.user / "results"
        record = RunRecord("r1", empty.id, "default", 1, 7231, "s.py", (), "", 1.8e9, out, run)
        store.save_environment(empty.id, "", ResolvedEnvironment(""))
        store.save_run(record)

    def know(self, keys: dict[Host, str]) -> None:
        lines = [f"[{host.address}]:{host.port} {key}\n" for host, key in keys.items()]
        (self.user / ".ssh/known_hosts").write_text("".join(lines))

    def commands(self, index: int) -> str:
        """What the machine's server was asked to run."""
        (log,) = self.user.glob(f"machines/local/nodes/*/{index}")
        path = log / "commands.jsonl"
        return path.read_text() if path.exists() else ""

    def remembers(self) -> list[str]:
        """Everything in the state file."""
        with sqlite3.connect(self.home / "state.sqlite") as database:
            return list(database.iterdump())


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    user = tmp_path_factory.mktemp("user")
    (user / ".ssh").mkdir(mode=0o700)
    provider = LocalProvider(user / "machines")
    cluster = Cluster(id=f"keys-{os.getpid()}", name="keys", provider="local", created_s=0.0)
    refs = [provider.create(each) for each in provider.intents(ClusterSpec("keys", "local", ""), cluster, 2)]
    hosts = provider.hosts(cluster, tuple(refs))
    (user / ".ssh/config").write_text(f"Host *\n  IdentityFile {hosts[0].identity_files[0]}\n")
    yield Known(user, hosts, public_key(user / "stranger"))
    for ref in refs:
        provider.delete(ref)


@pytest.fixture
def known(machines: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Known:
    """In a directory with a script, at home where the machines are known."""
    (tmp_path / "script.py").write_text("print(1)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(machines.user))
    monkeypatch.setenv("RAIN_DEPLOY_HOME", str(machines.home))
    return machines


def type_in(*words: str) -> Result:
    return CliRunner().invoke(root, list(words), obj=Application())


@pytest.mark.smoke
@pytest.mark.parametrize("words", SPEAKS_SSH, ids=" ".join)
def test_a_changed_host_key_ends_the_verb(known: Known, tmp_path: Path, words: tuple[str, ...]) -> None:
    known.record(1, 2)
    remembered = known.remembers()
    result = type_in(*words)
    assert (result.exit_code, known.commands(1), known.commands(2)) == (31, "", ""), result.output
    assert "has changed" in result.output
    assert known.remembers() == remembered
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


@pytest.mark.parametrize("words", REACHES_ALL, ids=" ".join)
def test_one_changed_key_among_many_keeps_the_others_untouched(
    known: Known, tmp_path: Path, words: tuple[str, ...]
) -> None:
    known.record(2, run=RunState.FINISHED)
    result = type_in(*words)
    assert (result.exit_code, known.commands(2)) == (31, ""), result.output
    asked = known.commands(1)
    assert not re.search(r"touch|deploy-push|/runs/r2|kill|rm -rf", asked), "only questions were asked"


@pytest.mark.parametrize("words", [("up",), ("check",)], ids=" ".join)
def test_an_unknown_host_key_is_asked_of_the_user_s_own_ssh(known: Known, words: tuple[str, ...]) -> None:
    known.record()
    known.know({})
    result = type_in(*words)
    assert result.exit_code == 31
    assert "run `ssh -p" in result.output
    assert "once" in result.output


@pytest.mark.parametrize(
    "words", [words for words in SPEAKS_SSH if words[0] not in {"up", "check", "sweep"}], ids=" ".join
)
def test_a_node_whose_key_is_not_recorded_is_never_reached(known: Known, words: tuple[str, ...]) -> None:
    known.record()
    store = Store(known.home)
    cluster = store.cluster("default")
    assert cluster is not None
    nodes = (
        dataclasses.replace(node, host=dataclasses.replace(node.host, host_keys=())) for node in cluster.nodes
    )
    store.save_cluster(dataclasses.replace(cluster, nodes=tuple(nodes)))
    before = known.commands(1) + known.commands(2)
    assert type_in(*words).exit_code == 31
    assert known.commands(1) + known.commands(2) == before


def test_the_right_keys_let_the_same_words_through(known: Known, tmp_path: Path) -> None:
    known.record()
    result = type_in("exec", "--", "touch", "done")
    assert result.exit_code == 0, result.output
    assert "touch done" in known.commands(1)
    assert "touch done" in known.commands(2)


def test_no_code_path_takes_a_key_that_nobody_checked() -> None:
    places = [Path(rain_deploy.__file__).parent, templates_directory()]
    files = [path for place in places for path in place.rglob("*") if path.suffix in {".py", ".j2"}]
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    assert len(texts) > 100
    lax = re.compile(r"AutoAdd|WarningPolicy|known_hosts=None|StrictHostKeyChecking\W+(no|off|ask|accept)")
    assert [path for path, text in texts.items() if lax.search(text)] == []
    scans = [path.name for path, text in texts.items() if "ssh-keyscan" in text]
    assert scans == ["host-keys-switch.sh.j2"]  # a node that looks for the one key it was told
    policies = [path.name for path, text in texts.items() if "set_missing_host_key_policy(" in text]
    assert policies == ["connection.py"]
