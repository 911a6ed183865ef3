"""The journal comes here with the results, and the next cluster of the name gets it."""

from __future__ import annotations

import errno
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.machine import Host
from rain_deploy.core.spec import NO_JOURNAL, ClusterSpec
from rain_deploy.core.step import Command, CommandResult
from rain_deploy.errors import InputError, Unreachable
from rain_deploy.node.journal import store
from rain_deploy.node.journal.copies import take
from rain_deploy.node.journal.segment import MAGIC
from rain_deploy.node.journal.store import Journal
from rain_deploy.parts.facts import DEBIAN_12
from rain_deploy.results import journals
from rain_deploy.results.journals import copies, copy_for, prune_copies
from rain_deploy.runs import journal as brought
from rain_deploy.runs.journal import Bringing, bring_journal, give_journal, named_copy, offer_journal
from rain_deploy.state.store import Record
from rain_deploy.transport.base import Chunk, Forward
from rain_deploy.verbs.up import up
from tests.support.waiting import wait_for
from tests.unit.fake_cloud import ME, PROVIDER, World
from tests.unit.test_journal_store import put, stored
from tests.unit.test_journal_verb import NODE


@dataclass
class Server:
    """Implements the transport: the node code of the server node, in a directory per cluster."""

    place: Path
    sent_bytes: list[int] = field(default_factory=list)
    cut: int | None = None
    """So many bytes arrive, then the connection is lost."""
    damaged: int | None = None
    """The byte that arrives changed."""

    def run(
        self, host: Host, command: Command, *, on_stdout: Chunk | None = None, on_stderr: Chunk | None = None
    ) -> CommandResult:
        del on_stderr
        if command.argv[0] == "mkdir":
            (self.place / Path(command.argv[-1]).parent.name / "journal").mkdir(parents=True)
            return CommandResult(0, b"", b"")
        verb, cluster = command.argv[4], self.place / Path(command.argv[5]).name
        argv = [*NODE, verb, str(cluster)]
        done = subprocess.run(argv, input=command.stdin, capture_output=True, check=False, timeout=60)
        data = bytearray(done.stdout)
        if on_stdout:
            self.sent_bytes.append(len(data))
            if self.damaged is not None:
                data[self.damaged] ^= 1
            on_stdout(bytes(data[: self.cut]))
            if self.cut is not None:
                raise Unreachable("lost", node=host.name)
        return CommandResult(done.returncode, bytes(data), done.stderr)

    def connect(self, host: Host) -> None: ...

    def forward(self, host: Host, address: str, port: int, *, local_port: int = 0) -> Forward:
        raise NotImplementedError

    def close(self) -> None: ...

    def journal(self, cluster: Cluster) -> Journal:
        found = Journal(self.place / cluster.id / "journal")
        found.load()
        return found


@dataclass
class Bench:
    world: World
    server: Server
    clusters: int = 0

    def cluster(self, env_digest: str = "e" * 32, name: str = "one") -> Cluster:
        self.clusters += 1
        return self.world.cluster(name, env_digest=env_digest, id=f"cluster{self.clusters}")

    @property
    def copied(self) -> list[str]:
        return sorted(path.name for path in self.world.ctx.home.glob("journal/*/*.seg"))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    world, server = World.at(tmp_path), Server(tmp_path / "server")
    world.ctx = replace(world.ctx, transport=server)
    return Bench(world, server)


def test_only_what_is_not_here_yet_is_brought(bench: Bench) -> None:
    cluster = bench.cluster()
    put(bench.server.journal(cluster), 1, b"one" * 100_000)
    bring_journal(bench.world.ctx, cluster)
    put(bench.server.journal(cluster), 2, b"outdated")
    put(bench.server.journal(cluster), 2, b"two")
    bring_journal(bench.world.ctx, cluster)
    bring_journal(bench.world.ctx, cluster)
    assert bench.server.sent_bytes[0] > 300_000
    assert max(bench.server.sent_bytes[1:]) < 100_000
    copy = copy_for(bench.world.ctx.home, cluster)
    here = Journal(copy.path)
    assert here.load() == []
    assert (stored(here, 1), stored(here, 2)) == ([b"one" * 100_000], [b"two"])
    assert (copy.about.usage.records, copy.about.usage.segments) == (2, 3)
    assert copy.about.usage.bytes == here.usage().bytes
    assert bench.world.told == ""


def test_a_cluster_without_kept_results_leaves_nothing_here(bench: Bench) -> None:
    bring_journal(bench.world.ctx, bench.cluster())
    assert list((bench.world.ctx.home / "journal").iterdir()) == []
    assert bench.world.told == ""


def test_files_that_the_cluster_merged_go(bench: Bench) -> None:
    cluster = bench.cluster()
    journal = bench.server.journal(cluster)
    for number in range(store.MERGED_FROM):
        put(journal, number, b"x")
    bring_journal(bench.world.ctx, cluster)
    assert len(bench.copied) == store.MERGED_FROM
    journal.tidy()
    bring_journal(bench.world.ctx, cluster)
    assert bench.copied == [path.name for path in journal.directory.iterdir()]


def test_what_was_merged_into_a_file_that_does_not_come_stays(bench: Bench) -> None:
    cluster = bench.cluster()
    journal = bench.server.journal(cluster)
    for number in range(store.MERGED_FROM):
        put(journal, number, b"x" * 1000)
    bring_journal(bench.world.ctx, cluster)
    journal.tidy()
    bring_journal(bench.world.ctx, cluster, file_bytes=5000)
    here = Journal(copy_for(bench.world.ctx.home, cluster).path)
    here.load()
    assert all(stored(here, number) for number in range(store.MERGED_FROM))
    bring_journal(bench.world.ctx, cluster)
    assert bench.copied == [path.name for path in journal.directory.iterdir()]


def test_results_come_while_a_run_is_followed_and_each_once(bench: Bench) -> None:
    cluster = bench.cluster()
    journal = bench.server.journal(cluster)
    copy = copy_for(bench.world.ctx.home, cluster)
    with Bringing(bench.world.ctx, cluster, window_s=0.01) as bringing:
        for number in range(1, 4):
            put(journal, number, b"x" * 300_000)
            bringing.stored()
            wait_for(partial(lambda so_many: copy.now().about.usage.records == so_many, number))
        for number in range(10, 10 + store.MERGED_FROM):
            put(journal, number, b"y")
        bringing.stored()
        wait_for(lambda: copy.now().about.usage.records == 3 + store.MERGED_FROM)
        assert all(size < 400_000 for size in bench.server.sent_bytes)
        journal.tidy()
        put(journal, 4, b"z")
        bringing.stored()
        wait_for(lambda: copy.now().about.usage.records >= 4 + store.MERGED_FROM)
    bring_journal(bench.world.ctx, cluster)
    assert bench.copied == sorted(path.name for path in journal.directory.iterdir())
    assert copy.now().about.usage.records == 4 + store.MERGED_FROM
    assert bench.world.told == ""


def test_a_fault_of_it_is_one_warning_and_it_goes_on(bench: Bench) -> None:
    cluster = bench.cluster()
    put(bench.server.journal(cluster), 1, b"one" * 1000)
    bench.server.damaged = 3000
    with Bringing(bench.world.ctx, cluster, window_s=0.01) as bringing:
        bringing.stored()
        wait_for(lambda: len(bench.server.sent_bytes) > 3)
        bench.server.damaged = None
        wait_for(lambda: bench.copied)
    assert bench.world.told.count("journal was not copied") == 1


def test_a_name_that_is_no_segments_is_left_there(bench: Bench) -> None:
    cluster = bench.cluster()
    put(bench.server.journal(cluster), 1, b"one")
    directory = bench.server.place / cluster.id / "journal"
    (directory / "other.seg").write_bytes(b"other")
    bring_journal(bench.world.ctx, cluster)
    assert len(bench.copied) == 1


@pytest.mark.parametrize("fault", ["cut", "damaged"])
def test_what_does_not_arrive_whole_changes_nothing_here(bench: Bench, fault: str) -> None:
    cluster = bench.cluster()
    put(bench.server.journal(cluster), 1, b"one")
    bring_journal(bench.world.ctx, cluster)
    before = bench.copied
    put(bench.server.journal(cluster), 2, b"two" * 1000)
    setattr(bench.server, fault, 3000)
    bring_journal(bench.world.ctx, cluster)
    assert bench.copied == before
    assert "journal was not copied" in bench.world.told
    assert [path.name for path in (bench.world.ctx.home / "journal").iterdir()] == ["one-" + "e" * 12]


def test_large_files_may_stay_and_the_newest_come_first(bench: Bench) -> None:
    cluster = bench.cluster()
    journal = bench.server.journal(cluster)
    for number, size in enumerate((10, 50_000, 200_000, 50_000)):
        put(journal, number, b"x" * size)
    bring_journal(bench.world.ctx, cluster, file_bytes=100_000)
    here = Journal(copy_for(bench.world.ctx.home, cluster).path)
    here.load()
    assert [number for number in range(4) if stored(here, number)] == [0, 1, 3]
    bring_journal(bench.world.ctx, cluster)
    here.load()
    assert stored(here, 2)


def test_the_next_cluster_gets_it_and_goes_on_with_the_same_copy(bench: Bench) -> None:
    first = bench.cluster()
    for number in range(store.MERGED_FROM):
        put(bench.server.journal(first), number, b"x")
    bring_journal(bench.world.ctx, first)
    second = bench.cluster()
    offer_journal(bench.world.ctx, second)
    journal = bench.server.journal(second)
    assert all(stored(journal, number) == [b"x"] for number in range(store.MERGED_FROM))
    assert f"sent {store.MERGED_FROM} results" in bench.world.told
    journal.tidy()
    put(journal, 99, b"new")
    bring_journal(bench.world.ctx, second)
    assert bench.copied == sorted(path.name for path in journal.directory.iterdir())


def test_a_cluster_that_did_not_get_the_copy_adds_to_it(bench: Bench) -> None:
    first, second = bench.cluster(), bench.cluster()
    put(bench.server.journal(first), 1, b"one")
    bring_journal(bench.world.ctx, first)
    put(bench.server.journal(second), 2, b"two")
    for _ in range(2):
        bring_journal(bench.world.ctx, second)
    assert len(bench.copied) == copy_for(bench.world.ctx.home, second).about.usage.records == 2


def empty(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()


def only_the_oldest(directory: Path) -> None:
    for path in sorted(directory.iterdir())[:-1]:
        path.unlink()


def harm(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("loss", [shutil.rmtree, empty, only_the_oldest])
def test_what_the_server_node_has_lost_stays_here(bench: Bench, loss: Callable[[Path], None]) -> None:
    cluster = bench.cluster()
    journal = bench.server.journal(cluster)
    for number in range(store.MERGED_FROM):
        put(journal, number, b"x")
    bring_journal(bench.world.ctx, cluster)
    loss(journal.directory)
    journal = bench.server.journal(cluster)
    for number in range(10, 10 + store.MERGED_FROM):
        put(journal, number, b"y")
        bring_journal(bench.world.ctx, cluster)
    journal.tidy()
    bring_journal(bench.world.ctx, cluster)
    here = Journal(copy_for(bench.world.ctx.home, cluster).path)
    here.load()
    assert [number for number in range(store.MERGED_FROM) if not stored(here, number)] == []
    assert [n for n in range(10, 10 + store.MERGED_FROM) if not stored(here, n)] == []
    assert copy_for(bench.world.ctx.home, cluster).about.usage.records == 2 * store.MERGED_FROM
    assert len(bench.copied) <= store.MERGED_FROM + 1


def test_what_is_damaged_there_is_whole_here(bench: Bench) -> None:
    cluster = bench.cluster()
    journal = bench.server.journal(cluster)
    for number in range(store.MERGED_FROM):
        put(journal, number, b"x" * 1000)
    bring_journal(bench.world.ctx, cluster)
    parts = sorted(journal.directory.iterdir())
    for path, at in ((parts[0], 100), (parts[1], -100)):
        harm(path, at)
    bench.server.journal(cluster).tidy()
    bring_journal(bench.world.ctx, cluster)
    assert len(bench.copied) == 3
    here = Journal(copy_for(bench.world.ctx.home, cluster).path)
    here.load()
    assert [number for number in range(store.MERGED_FROM) if not stored(here, number)] == []


def test_what_was_merged_stays_here_if_the_merged_file_is_damaged_there(bench: Bench) -> None:
    cluster = bench.cluster()
    journal = bench.server.journal(cluster)
    for number in range(store.MERGED_FROM):
        put(journal, number, b"x" * 1000)
    bring_journal(bench.world.ctx, cluster)
    journal.tidy()
    (merged,) = journal.directory.iterdir()
    harm(merged, 1500)  # a body
    bring_journal(bench.world.ctx, cluster)
    assert len(bench.copied) == store.MERGED_FROM + 1


def test_a_merged_file_of_the_same_name_but_another_node_is_not_taken_for_this_one(bench: Bench) -> None:
    cluster = bench.cluster()
    journal = bench.server.journal(cluster)
    for number in range(store.MERGED_FROM):
        put(journal, number, b"x" * 1000)
    bring_journal(bench.world.ctx, cluster)
    parts = set(bench.copied)
    journal.tidy()
    (merged,) = journal.directory.iterdir()
    (copy_for(bench.world.ctx.home, cluster).path / merged.name).write_bytes(MAGIC)  # it merged fewer
    bring_journal(bench.world.ctx, cluster)
    assert parts < set(bench.copied)


def test_the_wish_of_an_earlier_version_is_understood(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    for number in range(3):
        put(journal, number, b"x")
    first, *others = sorted(path.name for path in journal.directory.iterdir())
    wish = {"have": [first], "after": "", "file_bytes": 10**6, "total_bytes": 10**6}
    asked, command = json.dumps(wish).encode(), [*NODE, "journal-send", str(tmp_path)]
    done = subprocess.run(command, input=asked, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert {*others} == {name for name in tar.getnames() if name.endswith(".seg")}


def test_what_was_merged_twice_goes_where_the_first_merge_never_came(bench: Bench) -> None:
    cluster = bench.cluster()
    for first in range(0, 3 * store.MERGED_FROM, store.MERGED_FROM):
        for number in range(first, first + store.MERGED_FROM):
            put(bench.server.journal(cluster), number, b"x")
        if not first:
            bring_journal(bench.world.ctx, cluster)
        bench.server.journal(cluster).tidy()
    bring_journal(bench.world.ctx, cluster)
    assert bench.copied == [path.name for path in bench.server.journal(cluster).directory.iterdir()]


def test_a_copy_keeps_the_newest_within_its_limit_and_nothing_comes_twice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "limit_of_copies", lambda _home: 25_000)
    cluster = bench.cluster()
    journal = bench.server.journal(cluster)
    for number in range(3):
        put(journal, number, b"x" * 10_000)
    shutil.rmtree(journal.directory)
    for number in range(3, 10):
        put(journal, number, b"x" * 10_000)
        bring_journal(bench.world.ctx, cluster)
    bench.server.sent_bytes.clear()
    bring_journal(bench.world.ctx, cluster)
    assert bench.server.sent_bytes[0] < 10_000 + 2000
    here = Journal(copy_for(bench.world.ctx.home, cluster).path)
    here.load()
    assert [number for number in range(10) if stored(here, number)] == [8, 9]
    assert copy_for(bench.world.ctx.home, cluster).about.usage.bytes == here.usage().bytes < 25_000


@pytest.mark.parametrize(
    ("earlier", "active_run", "gets"),
    [((), "", True), ((NO_JOURNAL,), "", False), ((), "r1", False)],
    ids=["none there", "none was wanted", "a run is active"],
)
def test_up_offers_it_to_a_server_node_without_a_journal(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, earlier: tuple[str, ...], active_run: str, *, gets: bool
) -> None:
    cluster, ctx = bench.world.cluster(env_digest="e" * 32), bench.world.ctx
    directory = bench.server.place / cluster.id

    def look_again(_ctx: Context, record: Record, *_: object) -> None:
        facts = replace(DEBIAN_12, journal=(directory / "journal").is_dir(), active_run=active_run)
        record.change_nodes(lambda node: replace(node, facts=facts))

    put(bench.server.journal(cluster), 1, b"one")
    bring_journal(ctx, cluster)
    shutil.rmtree(directory)
    monkeypatch.setattr("rain_deploy.verbs.up.carry_out", look_again)
    for journal in (*earlier, ""):
        up(ctx, ClusterSpec("one", PROVIDER, "test", owner=ME, journal=journal))
    assert stored(bench.server.journal(cluster), 1) == ([b"one"] if gets else None)


def test_a_copy_is_given_where_links_cannot_be_made(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    first, second = bench.cluster(), bench.cluster(name="two")
    put(bench.server.journal(first), 1, b"one")
    bring_journal(bench.world.ctx, first)
    copy = copy_for(bench.world.ctx.home, first)
    monkeypatch.setattr("os.link", refuse)
    with monkeypatch.context() as patched:
        patched.setattr("shutil.copy2", refuse)
        give_journal(bench.world.ctx, second, copy)
    assert "sent 1 result" in bench.world.told
    assert "computed again:" not in bench.world.told
    assert "the copy of cluster two does not have them yet" in bench.world.told
    give_journal(bench.world.ctx, second, copy)
    assert [path.name for path in copy_for(bench.world.ctx.home, second).files()] == bench.copied[:1]


def test_a_cluster_of_another_name_gets_the_newest_copy_of_its_packages(bench: Bench) -> None:
    ctx, names = bench.world.ctx, ("old", "other", "new", "mine")
    clusters = {name: bench.cluster("f" * 32 if name == "other" else "e" * 32, name) for name in names}
    for number, name in enumerate(names[:3]):
        put(bench.server.journal(clusters[name]), number, b"x")
        bring_journal(ctx, clusters[name])
    offer_journal(ctx, clusters["mine"])
    journal = bench.server.journal(clusters["mine"])
    assert [bool(stored(journal, number)) for number in range(3)] == [False, False, True]
    assert "sent 1 result (639 B) of cluster new" in bench.world.told
    assert bench.world.told.count("sent ") == 1
    bench.server.sent_bytes.clear()
    put(journal, 3, b"x")
    bring_journal(ctx, clusters["mine"])
    assert copy_for(ctx.home, clusters["mine"]).about.usage.records == 2
    again = bench.cluster(name="mine")
    offer_journal(ctx, again)
    here = bench.server.journal(again)
    assert [bool(stored(here, number)) for number in range(4)] == [False, False, True, True]


def test_a_cluster_gets_the_copy_of_its_name_and_the_newest_other(bench: Bench) -> None:
    ctx = bench.world.ctx
    for number, name in enumerate(("mine", "newer")):
        cluster = bench.cluster(name=name)
        put(bench.server.journal(cluster), number, b"x")
        bring_journal(ctx, cluster)
    for _ in range(2):
        second = bench.cluster(name="mine")
        offer_journal(ctx, second)
        journal = bench.server.journal(second)
        assert [bool(stored(journal, number)) for number in range(2)] == [True, True]
    told = bench.world.told
    assert (told.count("of cluster mine"), told.count("of cluster newer")) == (2, 1)


def test_results_of_other_packages_are_not_used(bench: Bench) -> None:
    first, second = bench.cluster(), bench.cluster(env_digest="f" * 32)
    put(bench.server.journal(first), 1, b"one")
    bring_journal(bench.world.ctx, first)
    offer_journal(bench.world.ctx, second)
    assert bench.world.told == ""
    give_journal(bench.world.ctx, second, copy_for(bench.world.ctx.home, first))
    assert "computed with other packages" in bench.world.told
    assert bench.server.journal(second).usage().segments == 0


def test_a_large_copy_is_only_given_when_it_is_named(bench: Bench) -> None:
    first, second = bench.cluster(), bench.cluster()
    put(bench.server.journal(first), 1, b"one")
    bring_journal(bench.world.ctx, first)
    copy = copy_for(bench.world.ctx.home, first)
    large = replace(copy.about.usage, bytes=brought.GIVEN_UNASKED_BYTES + 1)
    copy.save(replace(copy.about, usage=large))
    offer_journal(bench.world.ctx, second)
    assert f"--journal {copy.path}" in bench.world.told
    assert bench.server.journal(second).usage().segments == 0
    give_journal(bench.world.ctx, second, named_copy(copy.path))
    assert stored(bench.server.journal(second), 1) == [b"one"]


def test_a_path_without_a_copy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--journal"):
        named_copy(tmp_path)


def test_a_copy_is_sent_in_parts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = bench.cluster()
    for number in range(3):
        put(bench.server.journal(cluster), number, b"x" * 1000)
    bring_journal(bench.world.ctx, cluster)
    monkeypatch.setattr(journals, "BATCH_BYTES", 2000)
    assert len(list(copy_for(bench.world.ctx.home, cluster).batches())) == 2


def test_the_oldest_copies_go_when_all_are_over_the_limit(bench: Bench) -> None:
    for name in ("one", "two", "three"):
        cluster = bench.cluster(name=name)
        put(bench.server.journal(cluster), 1, b"x" * 1000)
        bring_journal(bench.world.ctx, cluster)
    home = bench.world.ctx.home
    size_bytes = next(copies(home)).about.usage.bytes
    prune_copies(home, 2 * size_bytes + 100)
    assert sorted(copy.about.cluster for copy in copies(home)) == ["three", "two"]
    prune_copies(home, 1)
    assert [copy.about.cluster for copy in copies(home)] == ["three"]


def test_a_node_takes_segments_and_nothing_else(tmp_path: Path) -> None:
    source = Journal(tmp_path / "source")
    put(source, 1, b"one")
    (segment,) = source.directory.iterdir()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.add(segment, segment.name)
        tar.add(segment, f"../{segment.name}")
        tar.add(segment, "other.seg")
        (tmp_path / "junk").write_bytes(b"junk")
        tar.add(tmp_path / "junk", "00000000000000000001-000.seg")
        tar.add(tmp_path, "00000000000000000002-000.seg", recursive=False)
    stream.seek(0)
    assert take(tmp_path / "cluster", stream).records == 1
    assert [path.name for path in (tmp_path / "cluster/journal").iterdir()] == [segment.name]
    assert not (tmp_path / "cluster" / segment.name).exists()
