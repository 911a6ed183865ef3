"""What is remembered: durable, private, one changer at a time, never overwritten by an older tool."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import multiprocessing
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.machine import Host, Intent, Machines, Resource
from rain_deploy.core.run import RunRecord, RunState
from rain_deploy.core.spec import ResolvedEnvironment
from rain_deploy.errors import InputError, Locked, StateError
from rain_deploy.parts.facts import DEBIAN_12
from rain_deploy.state.file import VERSION
from rain_deploy.state.store import Store
from tests.support.stranger import without_root
from tests.support.values import QUOTE

HOST = Host("node-1", "127.0.0.1", 22, "me", ("ssh-ed25519 AAAA",), identity_files=(Path("/k"),))
NODE = Node("node-1", HOST, DEBIAN_12, "127.0.0.1", 7301, 2)
CLUSTER = Cluster("ab12", "default", "hosts", 1.5, (NODE,), base="/b")
INTENT = Intent("ab12", "default", "node", "node-1", machines=Machines(zone="x"))
RUN = RunRecord("r1", "ab12", "default", 1, 7231, "s.py", ("a b",), "00", 2.5, Path("/out"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def test_what_is_saved_is_read_back_by_the_next_process(tmp_path: Path, store: Store) -> None:
    store.save_cluster(CLUSTER)
    store.save_run(replace(RUN, state=RunState.QUEUED))
    environment = ResolvedEnvironment("a==1\n", (("w.whl", b"\0\xff"),), ("gcc",), "true")
    store.save_environment(CLUSTER.id, "asked", environment)
    busy = replace(DEBIAN_12, node_config_sha256="00", journal=True, running=("governor",), active_run="r1")
    store.save_facts(replace(NODE, facts=replace(busy, taken=("10.0.0.1 c2",))))
    again = Store(tmp_path / "home")
    assert again.cluster("default") == CLUSTER
    assert again.clusters() == (CLUSTER,)
    assert again.runs("default") == (replace(RUN, state=RunState.QUEUED),)
    assert again.environment(CLUSTER.id) == ("asked", environment)
    assert again.facts(HOST) == DEBIAN_12
    assert again.add_run(lambda sequence: replace(RUN, id="r2", sequence=sequence)).sequence == 2


def test_a_run_that_an_older_version_recorded_is_read(tmp_path: Path, store: Store) -> None:
    store.save_run(RUN)
    with contextlib.closing(sqlite3.connect(tmp_path / "home/state.sqlite")) as older, older:
        older.execute("UPDATE runs SET body = json_set(body, '$.shipped', json('[[\"s.py\", \"00\"]]'))")
    assert store.runs("default") == (RUN,)


def test_variables_of_the_caller_are_not_kept(tmp_path: Path, store: Store) -> None:
    host = replace(HOST, installer_env=(("https_proxy", "http://me:canary@proxy"),))
    store.save_cluster(replace(CLUSTER, nodes=(replace(NODE, host=host),)))
    assert store.cluster("default") == CLUSTER
    assert b"canary" not in (tmp_path / "home/state.sqlite").read_bytes()


def test_runs_that_start_together_get_sequences_of_their_own(tmp_path: Path, store: Store) -> None:
    def add(number: int) -> int:
        one = replace(RUN, id=f"r-{number}", cluster=f"c-{number}")
        return Store(tmp_path / "home").add_run(lambda sequence: replace(one, sequence=sequence)).sequence

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(add, range(8))) == list(range(1, 9))
    store.forget_run(replace(RUN, id="r-3"))
    assert [run.id for run in store.runs("c-3")] == []


def test_a_run_that_is_refused_is_not_recorded(store: Store) -> None:
    def refuse(_sequence: int) -> RunRecord:
        raise InputError("the results directory holds other files")

    with pytest.raises(InputError):
        store.add_run(refuse)
    assert store.runs() == ()


def test_a_state_file_without_its_tables_is_reported_as_what_it_is(tmp_path: Path, store: Store) -> None:
    with sqlite3.connect(tmp_path / "home/state.sqlite") as database:
        database.execute("DROP TABLE past")
    with pytest.raises(StateError, match="no such table: past") as caught:
        store.next_cluster_id("default")
    assert "another directory" in str(caught.value.next_step)
    assert "space" not in str(caught.value.next_step)


def test_an_intent_is_there_before_its_outcome(store: Store) -> None:
    store.save_intent(INTENT)
    assert store.resources("ab12") == (Resource("ab12", "node", "node-1", ""),)
    made = Resource("ab12", "node", "node-1", "id-7")
    store.save_resource(made)
    store.save_intent(replace(INTENT, recorded_s=9.0))
    (known,) = store.resources("ab12")
    assert (known, known.recorded_s) == (made, 9.0), "it is sent again, and its id is kept"
    store.forget_resource(made)
    assert store.resources("ab12") == ()


def test_a_forgotten_cluster_leaves_its_runs_and_gives_another_id_next_time(store: Store) -> None:
    first = store.next_cluster_id("default")
    assert store.next_cluster_id("default") == first
    assert store.next_cluster_id("other") != first
    store.save_cluster(CLUSTER)
    store.save_intent(INTENT)
    store.save_run(RUN)
    store.forget_cluster(CLUSTER)
    assert store.cluster("default") is None
    assert store.resources("ab12") == ()
    assert store.runs("default") == (RUN,)
    assert store.next_cluster_id("default") != first


def test_a_new_state_file_is_another_home_however_soon_it_comes(tmp_path: Path, store: Store) -> None:
    earlier = store.next_cluster_id("default")
    (tmp_path / "home/state.sqlite").unlink()
    assert not Store(tmp_path / "home").made(earlier)


def test_an_id_tells_the_home_that_gave_it(tmp_path: Path, store: Store) -> None:
    given = store.next_cluster_id("default")
    assert store.made(given)
    assert not Store(tmp_path / "another").made(given)
    store.save_cluster(replace(CLUSTER, id=given))
    store.forget_cluster(replace(CLUSTER, id=given))
    assert store.made(given)
    assert not any(store.made(odd) for odd in ("", given[:5], f"{given}0", "ab12"))


def test_only_the_owner_can_read_the_file(tmp_path: Path, store: Store) -> None:
    store.save_cluster(CLUSTER)
    assert (tmp_path / "home/state.sqlite").stat().st_mode & 0o777 == 0o600


def test_a_newer_state_file_is_refused_and_left_as_it_is(tmp_path: Path, store: Store) -> None:
    store.save_cluster(CLUSTER)
    path = tmp_path / "home/state.sqlite"
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {VERSION + 1}")
    database.close()
    before = path.read_bytes()
    with pytest.raises(StateError, match="newer rain-deploy"):
        Store(tmp_path / "home")
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    path.write_bytes(b"garbage" * 500)
    with pytest.raises(StateError, match="is not a state file"):
        Store(tmp_path)
    assert path.read_bytes() == b"garbage" * 500


def _hold(
    home: Path, holding: multiprocessing.synchronize.Event, ended: multiprocessing.synchronize.Event
) -> None:
    with Store(home).lock("default", "up"):
        holding.set()
        ended.wait(30)


def test_a_second_changer_is_told_who_holds_the_cluster(tmp_path: Path, store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    holding, ended = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "home", holding, ended))
    holder.start()
    try:
        assert holding.wait(30)
        with pytest.raises(Locked, match=rf"`up` \(process {holder.pid} on "), store.lock("default", "down"):
            pass
        with store.lock("other", "down"):
            pass
        at_work = store.holder("default")
        assert at_work
        assert (at_work.verb, at_work.pid, store.holder("other")) == ("up", holder.pid, None)
        holder.kill()
        holder.join(30)
        assert store.holder("default") is None
        with store.lock("default", "down"):
            pass
    finally:
        holder.kill()
        holder.join(30)


def test_a_lock_whose_cluster_is_gone_leaves_no_file_and_still_excludes(tmp_path: Path, store: Store) -> None:
    inside: list[int] = []

    def change() -> None:
        for _ in range(20):
            with contextlib.suppress(Locked), store.lock("gone", "down"):
                inside.append(1)
                assert len(inside) == 1
                inside.pop()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(change) for _ in range(4)]:
            future.result(60)
    assert list((tmp_path / "home" / "locks").iterdir()) == []


def full(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(bytes(1 << 20))


LARGE = replace(RUN, args=("x" * 400_000,))


@pytest.mark.root
def test_a_full_disk_is_reported_and_what_was_recorded_stays(small_disk: Path) -> None:
    home = small_disk / "home"
    store = Store(home)
    store.save_cluster(CLUSTER)
    full(small_disk)
    with store.lock("default", "up"), pytest.raises(StateError, match="the disk is full"):
        store.save_run(LARGE)
    assert Store(home).cluster("default") == CLUSTER


@pytest.mark.root
@pytest.mark.parametrize("lock", [None, "gone", "default"])
def test_what_only_looks_or_ends_goes_on_where_nothing_can_be_written(
    small_disk: Path, lock: str | None
) -> None:
    """It alone sees its changes, it is told once, and a change that must last fails."""
    home, told = small_disk / "home", list[StateError]()
    with Store(home).lock("default", "up"):
        Store(home).save_cluster(CLUSTER)
    full(small_disk)
    store = Store(home, told.append)
    with store.lock(lock, "down", ending=True) if lock else contextlib.nullcontext():
        store.save_run(LARGE)
        assert store.update_cluster("default", lambda now: replace(now, up=not now.up)).up != CLUSTER.up
        assert store.runs() == (LARGE,)
        store.forget_cluster(CLUSTER)
        assert store.clusters() == ()
    assert [error.message for error in told] == [store.unrecorded and store.unrecorded.message]
    assert "the disk is full" in told[0].message
    assert (Store(home).clusters(), Store(home).runs()) == ((CLUSTER,), ())
    with pytest.raises(StateError, match="the disk is full"), store.lock("default", "up"):
        pytest.fail("an up must record what it makes")


def test_a_home_that_cannot_be_written_is_read_by_who_has_no_root(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Store(home).save_cluster(CLUSTER)

    def look() -> None:
        store = Store(home)
        assert store.cluster("default") == CLUSTER
        with store.lock("default", "down", ending=True):
            store.forget_cluster(CLUSTER)
            assert store.clusters() == ()
        with pytest.raises(StateError, match="cannot be written"), store.lock("default", "up"):
            pytest.fail("an up must record what it makes")

    home.chmod(0o500)
    without_root(home, look)
    home.chmod(0o700)
    assert Store(home).clusters() == (CLUSTER,)


OLD_SETTINGS = {
    "hosts": [],
    "trust": ["10.0.0.0/8"],
    "addresses": [["a", "10.0.0.1"]],
    "ssh_port": 2222,
    "cloud": {"zone": "z", "disk_size_gib": 50, "template": None},
}
OLD_ROW = {
    "id": "ab12",
    "name": "default",
    "provider": "exoscale",
    "created_s": 1.5,
    "nodes": [],
    "up": True,
    "account": "EXOkey",
    "limit_s": 9.0,
    "ttl_limit_s": 9.5,
    "max_cost": 3.0,
    "owner": "me",
    "meters": [{"name": "node-1", "machine": "m", "since_s": 1.0, "per_hour": 2.0, "until_s": None}],
    "quote": dataclasses.asdict(QUOTE),
    "spec_json": json.dumps(OLD_SETTINGS),
}


def test_a_cluster_that_an_earlier_version_recorded_keeps_its_machines_and_its_bill(store: Store) -> None:
    store.save_cluster(CLUSTER)
    with sqlite3.connect(store._file.path) as database:  # noqa: SLF001 - no command writes the old shape now
        database.execute("UPDATE clusters SET body = ?", (json.dumps(OLD_ROW),))
    cluster = store.cluster("default")
    assert cluster is not None
    assert cluster.bill is not None
    assert (cluster.bill.account, cluster.limit_s, cluster.bill.max_cost) == ("EXOkey", 9.0, 3.0)
    assert (cluster.bill.per_hour, cluster.bill.quote.stopped_per_hour) == (2.0, QUOTE.stopped_per_hour)
    assert cluster.machines == Machines(
        zone="z",
        disk_size_gib=50,
        trust_networks=("10.0.0.0/8",),
        host_addresses=(("a", "10.0.0.1"),),
        ssh_port=2222,
    )
