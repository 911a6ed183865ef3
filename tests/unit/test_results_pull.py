"""A pull brings all of a run home, or leaves what was there and says how to go on."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rain_deploy.core.run import RunRecord
from rain_deploy.core.step import CommandResult
from rain_deploy.errors import InputError, PullFailed, RainDeployError, Unreachable, UnsafeResults
from rain_deploy.node.wire import Limits
from rain_deploy.results.manifest import listed_paths, read_manifest
from rain_deploy.results.pull import PulledRun, Stream, check_target, pull, pulled_before
from tests.support.results import verify
from tests.support.waiting import wait_for

AGAIN = "rain-deploy pull r1 -c default"
STATE = {
    "state": "finished",
    "outcome": "done",
    "exit_code": 0,
    "attempt": 1,
    "started_s": 10.0,
    "ended_s": 12.5,
    "nodes": ["node-1"],
    "missing": [],
    "versions": {"rain": "0.4.0"},
}
ROW = {"task": 7, "name": "lr=1", "parameters": {"lr": 1}, "value": 0.5, "state": "finished", "point": True}
FILES = {
    "stdout.log": b"hello\n",
    "stderr.log": b"",
    "points.jsonl": json.dumps(ROW).encode() + b"\n",
    "state.json": json.dumps(STATE).encode(),
    "figures/figure-1.png": b"png",
    "figures/figure-1.svg": b"svg",
    "files/model/weights.bin": bytes(range(256)) * 40,
    "attempts/1/stdout.log": b"earlier\n",
    "tasks/1-7-lr=1/output.log": b"of a task\n",
}


def run_record(out: Path, run: str = "r1") -> RunRecord:
    return RunRecord(run, "c1", "default", 1, 7230, "a.py", ("-n", "2"), "0" * 64, 1.0, out)


def tar_of(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    content = {**files, **{name: target.encode() for name, target in (links or {}).items()}}
    sums = {name: [len(data), hashlib.sha256(data).hexdigest()] for name, data in content.items()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, target in (links or {}).items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        for name, data in (*files.items(), ("sums.json", json.dumps(sums).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


class Node:
    """Sends its tar; ``loses`` connections at these positions first."""

    def __init__(self, data: bytes, *loses: int, exit_status: int = 0) -> None:
        self._data = data
        self._loses = list(loses)
        self._exit_status = exit_status
        self.asked = 0

    def __call__(self, sink: Callable[[bytes], None]) -> CommandResult:
        self.asked += 1
        end = self._loses.pop(0) if self._loses else None
        for start in range(0, len(self._data[:end]), 1000):
            sink(self._data[:end][start : start + 1000])
        if end is not None:
            raise Unreachable("the connection was lost")
        return CommandResult(self._exit_status, b"", b"no space")


def brought(out: Path, stream: Stream | None = None, run: str = "r1") -> PulledRun:
    return pull(stream or Node(tar_of(FILES)), run_record(out, run))


def names(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}


def read(out: Path) -> dict[str, object]:
    found = read_manifest(out)
    assert found is not None
    return found


HOME = {*FILES, "points.csv", "points.json", "manifest.json"} - {"state.json"}


@pytest.mark.parametrize("exists", [False, True])
def test_everything_comes_home_and_the_manifest_verifies(tmp_path: Path, exists: bool) -> None:
    out = tmp_path / "results" / "r1"
    if exists:
        out.mkdir(parents=True)
    done = brought(out)
    assert names(tmp_path / "results") == {f"r1/{name}" for name in HOME}
    assert (out / "files/model/weights.bin").read_bytes() == FILES["files/model/weights.bin"]
    assert verify(out) == ()
    assert listed_paths(read(out)) == HOME - {"manifest.json"}
    assert (done.files, done.figures, done.points, done.failed_points, done.finished) == (1, 1, 1, 0, True)


def test_the_manifest_says_where_results_came_from(tmp_path: Path) -> None:
    brought(tmp_path / "r1")
    told = {key: value for key, value in read(tmp_path / "r1").items() if key != "files"}
    assert told == {
        "version": 1,
        "run": "r1",
        "script": "a.py",
        "script_sha256": "0" * 64,
        "args": ["-n", "2"],
        "exit_code": 0,
        "outcome": "done",
        "warnings": [],
        "complete": True,
        "versions": {"rain": "0.4.0"},
        "started_s": 10.0,
        "ended_s": 12.5,
        "nodes": ["node-1"],
        "missing_nodes": [],
        "attempts": 1,
        "cost": "",
        "links": [],
        "left_on_node": [],
        "left_on_node_unnamed": 0,
    }


def test_a_changed_a_missing_and_a_linked_file_do_not_verify(tmp_path: Path) -> None:
    out = tmp_path / "r1"
    brought(out)
    (out / "stdout.log").write_bytes(b"hellO\n")
    (out / "stderr.log").unlink()
    (out / "points.csv").rename(tmp_path / "elsewhere")
    (out / "points.csv").symlink_to(tmp_path / "elsewhere")
    problems = verify(out)
    assert [problem.partition(":")[0] for problem in problems] == ["points.csv", "stderr.log", "stdout.log"]


def test_what_was_pulled_is_all_here_while_everything_that_the_manifest_names_is(tmp_path: Path) -> None:
    links = {"files/link": "nowhere"}
    for name in (*HOME, *links):
        run = run_record(tmp_path / name.replace("/", "-"))
        assert pulled_before(run) is None
        pull(Node(tar_of(FILES, links)), run)
        found = pulled_before(run)
        assert found
        status, results = found
        assert (status.state, status.outcome, status.ended_s) == ("finished", "done", 12.5)
        assert (results.points, results.finished) == (1, True)
        (run.out / name).unlink()
        assert pulled_before(run) is None, name


@pytest.mark.parametrize(
    "edited",
    [{"exit_code": "0"}, {"files": 7}, {"files": ["stdout.log"]}, {"files": [{"path": "stdout.log"}]}],
)
def test_a_manifest_that_somebody_edited_says_nothing(tmp_path: Path, edited: dict[str, object]) -> None:
    run = run_record(tmp_path / "r1")
    brought(run.out)
    (run.out / "manifest.json").write_text(json.dumps(read(run.out) | edited))
    assert pulled_before(run) is None


def test_a_pull_in_mid_run_is_marked_and_the_next_one_replaces_it(tmp_path: Path) -> None:
    out = tmp_path / "r1"
    early = {**FILES, "state.json": b'{"state": "running"}', "files/scratch/old.tmp": b"x"}
    assert not brought(out, Node(tar_of(early))).finished
    assert verify(out) == ("it was pulled before the run had ended",)
    (out / "notes.txt").write_bytes(b"mine")
    assert brought(out).finished
    assert verify(out) == ()
    assert names(out) == {*HOME, "notes.txt"}
    assert not (out / "files/scratch").exists()


def test_a_run_that_never_began_comes_home_with_a_header_alone(tmp_path: Path) -> None:
    done = brought(tmp_path / "r1", Node(tar_of({"stdout.log": b""})))
    assert not done.finished
    assert (
        tmp_path / "r1/points.csv"
    ).read_text() == "task,name,value,state,cached,node,started,duration_s,reason\n"
    assert json.loads((tmp_path / "r1/points.json").read_text()) == []


@pytest.mark.parametrize("holds", ["photo.jpg", "manifest of another run", "it is a file"])
def test_a_directory_that_holds_other_files_is_refused_and_untouched(tmp_path: Path, holds: str) -> None:
    out = tmp_path / "out"
    if holds == "photo.jpg":
        out.mkdir()
        (out / holds).write_bytes(b"mine")
    elif holds == "it is a file":
        out.write_bytes(b"mine")
    else:
        brought(out, run="r0")
    before = names(tmp_path)
    node = Node(tar_of(FILES))
    with pytest.raises(InputError, match=r"holds other files|is a file") as refused:
        brought(out, node)
    assert "--out" in (refused.value.next_step or "")
    assert node.asked == 0
    assert names(tmp_path) == before
    with pytest.raises(InputError):
        check_target(out, "r1")


def test_a_file_of_the_user_in_the_way_of_a_new_one_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "r1"
    brought(out, Node(tar_of({"stdout.log": b"", "state.json": b"{}"})))
    (out / "files").mkdir()
    (out / "files/mine").write_bytes(b"mine")
    before = names(out)
    with pytest.raises(InputError, match="files/mine"):
        brought(out, Node(tar_of({**FILES, "files/mine": b"theirs"})))
    assert names(out) == before
    assert (out / "files/mine").read_bytes() == b"mine"


def test_a_lost_connection_is_tried_again(tmp_path: Path) -> None:
    data = tar_of(FILES)
    node = Node(data, len(data) // 2, 100)
    assert brought(tmp_path / "r1", node).finished
    assert node.asked == 3
    assert names(tmp_path) == {f"r1/{name}" for name in HOME}
    assert verify(tmp_path / "r1") == ()


@pytest.mark.parametrize("cut", [(600,), (600, 3000)])
def test_each_new_attempt_is_reported(tmp_path: Path, cut: tuple[int, ...]) -> None:
    told: list[str] = []
    pull(Node(tar_of(FILES), *cut), run_record(tmp_path / "r1"), tell=told.append)
    assert [text.rpartition(", ")[2] for text in told] == [
        f"attempt {number} of 3" for number in range(2, len(cut) + 2)
    ]


FAILURES: dict[str, tuple[Callable[[], Node], type[RainDeployError]]] = {
    "connection lost again and again": (lambda: Node(tar_of(FILES), 10, 600, 3000), Unreachable),
    "end missing": (lambda: Node(tar_of(FILES)[:-14_000]), PullFailed),
    "hash differs": (lambda: Node(tar_of(FILES).replace(b"hello", b"hullo")), PullFailed),
    "node cannot pack": (lambda: Node(tar_of(FILES), exit_status=1), PullFailed),
    "limit": (lambda: Node(tar_of({f"files/{n}": b"" for n in range(200)})), UnsafeResults),
}


@pytest.mark.parametrize("why", FAILURES)
@pytest.mark.parametrize("earlier", [False, True])
def test_a_failed_pull_leaves_what_was_there(tmp_path: Path, why: str, earlier: bool) -> None:
    out = tmp_path / "r1"
    if earlier:
        brought(out)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    make, error = FAILURES[why]
    with pytest.raises(error) as failed:
        pull(make(), run_record(out), Limits(files=100))
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == (["r1"] if earlier else [])
    if error is PullFailed:
        assert failed.value.next_step == AGAIN


def test_what_is_refused_is_named_and_the_rest_is_home(tmp_path: Path) -> None:
    done = brought(tmp_path / "r1", Node(tar_of({**FILES, "../\x1b[2Jout": b"", "manifest.json": b"{}"})))
    said = {one.path: one.why for one in done.left.left}
    assert said == {"../%1B[2Jout": "path that leads out", "manifest.json": "not a part of results"}
    assert names(tmp_path) == {f"r1/{name}" for name in HOME}
    assert verify(tmp_path / "r1") == ("some of the results stay on the node",)


LEFT = {
    "left": [
        {"path": "files/big", "kind": "much", "why": "it has 30 GB"},
        {"path": "files/caf\udce9", "kind": "of a newer version", "why": "for a good\nreason"},
    ],
    "more": 3,
}


def test_what_the_node_leaves_is_in_the_result_and_in_the_manifest(tmp_path: Path) -> None:
    done = brought(tmp_path / "r1", Node(tar_of({**FILES, "left.json": json.dumps(LEFT).encode()})))
    assert names(tmp_path) == {f"r1/{name}" for name in HOME}
    assert (len(done.left), done.left.hold, done.finished) == (5, True, True)
    made = read(tmp_path / "r1")
    assert made["complete"] is False
    assert made["left_on_node"] == [
        {"path": "files/big", "why": "it has 30 GB"},
        {"path": "files/caf%E9", "why": "for a good%0Areason"},
    ]
    assert made["left_on_node_unnamed"] == 3
    assert brought(tmp_path / "r1").left.left == (), "the next pull brings it"
    assert verify(tmp_path / "r1") == ()


def test_a_list_of_what_stays_that_cannot_be_parsed_is_no_empty_list(tmp_path: Path) -> None:
    for text in (b"", b"[]", b'{"left": [1]}'):
        with pytest.raises(PullFailed, match=r"left\.json cannot be parsed"):
            brought(tmp_path / "r1", Node(tar_of({**FILES, "left.json": text})))


def test_a_link_and_a_directory_may_change_places_between_two_pulls(tmp_path: Path) -> None:
    out = tmp_path / "r1"
    for target in ("model", "files", ""):
        brought(out, Node(tar_of(FILES, {"files/latest": target} if target else {})))
        listed = read(out)["links"]
        assert listed == ([{"path": "files/latest", "target": target}] if target else [])
        assert (out / "files/latest").is_symlink() == bool(target)
        assert verify(out) == ()
    brought(out, Node(tar_of({**FILES, "files/latest/a": b"a"})))
    assert (out / "files/latest/a").read_bytes() == b"a"
    brought(out, Node(tar_of(FILES, {"files/latest": "model"})))
    assert (out / "files/latest/weights.bin").read_bytes() == FILES["files/model/weights.bin"]


def test_a_hostile_state_becomes_a_manifest_that_parses(tmp_path: Path) -> None:
    deep = b'{"state": "finished", "versions": ' + b'{"a":' * 300 + b"NaN" + b"}" * 301
    brought(tmp_path / "r1", Node(tar_of({**FILES, "state.json": deep})))
    assert verify(tmp_path / "r1") == ("it was pulled before the run had ended",)
    assert read(tmp_path / "r1")["versions"] == {}


def test_names_of_any_bytes_stand_in_a_manifest_that_any_reader_reads(tmp_path: Path) -> None:
    odd = {"files/caf\udce9": b"1", "files/a\nb": b"2", "files/-rf": b"3", "files/A": b"4", "files/a": b"5"}
    brought(tmp_path / "r1", Node(tar_of({**FILES, **odd})))
    text = (tmp_path / "r1/manifest.json").read_text(encoding="ascii")
    assert "\\ud" not in text
    assert listed_paths(read(tmp_path / "r1")) >= odd.keys()
    assert verify(tmp_path / "r1") == ()


def test_two_pulls_of_one_run_take_turns(tmp_path: Path) -> None:
    out = tmp_path / "r1"
    inside, go_on = threading.Event(), threading.Event()
    slow = Node(tar_of(FILES))

    def waiting(sink: Callable[[bytes], None]) -> CommandResult:
        inside.set()
        assert go_on.wait(10)
        return slow(sink)

    first = threading.Thread(target=brought, args=(out, waiting))
    first.start()
    assert inside.wait(10)
    told: list[str] = []
    of_second = (Node(tar_of(FILES)), run_record(out), None, told.append)
    second = threading.Thread(target=pull, args=of_second)
    second.start()
    wait_for(lambda: told)
    assert second.is_alive()
    assert "waiting for another command" in told[0]
    go_on.set()
    first.join(10)
    second.join(10)
    assert len(told) == 1
    assert verify(out) == ()
    assert names(tmp_path) == {f"r1/{name}" for name in HOME}


def test_what_a_killed_pull_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".r1.partial/files").mkdir(parents=True)
    (tmp_path / ".r1.partial/files/half").write_bytes(b"ha")
    brought(tmp_path / "r1")
    assert names(tmp_path) == {f"r1/{name}" for name in HOME}


@pytest.fixture
def megabyte(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.root
@pytest.mark.parametrize("inside", ["results/r1", "."])
def test_a_full_disk_leaves_nothing_half_made_and_names_out(megabyte: Path, inside: str) -> None:
    out = megabyte / inside
    with pytest.raises(PullFailed, match="disk is full") as failed:
        brought(out, Node(tar_of({**FILES, "files/big": bytes(2_000_000)})))
    assert failed.value.next_step == f"{AGAIN} --out DIR"
    assert names(megabyte) == set()
    brought(out)
    assert verify(out) == ()


@pytest.mark.root
def test_a_place_that_cannot_be_written_names_out(megabyte: Path) -> None:
    remount = ["mount", "-o", "remount,ro", str(megabyte)]
    subprocess.run(remount, check=True)
    with pytest.raises(PullFailed, match="cannot be written") as failed:
        brought(megabyte / "results" / "r1")
    assert failed.value.next_step == f"{AGAIN} --out DIR"
    assert isinstance(failed.value.__cause__, OSError)
    assert failed.value.__cause__.errno == errno.EROFS
