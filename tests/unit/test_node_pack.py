"""What goes home: everything the run made, nothing that was shipped, with sums of what was sent."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rain_deploy.node.files import write_json
from rain_deploy.node.pack import Content, pack, segments_of
from rain_deploy.node.run import Run, load_run
from rain_deploy.node.wire import LeftKind, LeftOuts, Limits, read
from rain_deploy.results.unpack import Unpacked, receive


@pytest.fixture
def run(tmp_path: Path) -> Run:
    path = tmp_path / "r1"
    write_json(path / "run.json", {"run": "r1", "sequence": 1, "port": 7230, "script": "s.py"})
    write_json(path / "shipped.json", {"s.py": _sha(b"script"), "data/in.csv": _sha(b"1,2")})
    for name, content in {
        "files/s.py": b"script",
        "files/data/in.csv": b"1,2",
        "stdout.log": b"hello\n",
        "stderr.log": b"",
        "figures/figure-1.png": b"png",
        "env.json": b"{}",
        "epochs/1/server.log": b"not for home",
    }.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    loaded = load_run(path)
    assert loaded
    return loaded


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _packed(run: Run, limits: Limits | None = None) -> bytes:
    output = io.BytesIO()
    assert pack(run.path, output, limits) == 0
    return output.getvalue()


def _left(data: bytes) -> dict[str, str]:
    """What stays, and of which kind."""
    text = _contents(data)["left.json"]
    assert text is not None
    return {one.path: one.kind for one in read(LeftOuts, text).left}


def _received(data: bytes, target: Path, limits: Limits | None = None) -> Unpacked:
    """As the laptop takes it."""

    def send(sink: Callable[[bytes], None]) -> None:
        sink(data)

    return receive(send, target, limits)


def _contents(data: bytes) -> dict[str, bytes | None]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {
            member.name: file.read() if member.isreg() and (file := tar.extractfile(member)) else None
            for member in tar.getmembers()
        }


def test_what_was_shipped_and_not_changed_stays(run: Run) -> None:
    (run.path / "files" / "out.txt").write_text("new")
    (run.path / "files" / "data" / "in.csv").write_text("1,2,3")
    (run.path / "tasks" / "1-7-lr=1").mkdir(parents=True)
    (run.path / "tasks" / "1-7-lr=1" / "output.log").write_text("of a task")
    names = list(_contents(_packed(run)))
    assert set(names[:-2]) == {
        "stdout.log",
        "stderr.log",
        "figures/figure-1.png",
        "tasks/1-7-lr=1/output.log",
        "files/out.txt",
        "files/data/in.csv",
    }
    assert names[-2:] == ["left.json", "sums.json"]


def test_the_state_comes_first_so_that_what_follows_is_at_least_as_new(run: Run) -> None:
    run.update(state="finished")
    assert next(iter(_contents(_packed(run)))) == "state.json"


def test_the_sums_are_those_of_every_file_and_come_last(run: Run) -> None:
    contents = _contents(_packed(run))
    name, sums = contents.popitem()
    assert name == "sums.json"
    assert sums
    assert json.loads(sums) == {
        name: [len(data), _sha(data)] for name, data in contents.items() if data is not None
    }


def test_packing_twice_gives_the_same_bytes(run: Run) -> None:
    for number in (3, 1, 2):
        (run.path / "files" / f"out-{number}").write_text(str(number))
    assert _packed(run) == _packed(run)


def test_pipes_sockets_and_links_that_lead_out_stay_and_are_named(run: Run) -> None:
    files = run.path / "files"
    (files / "link").symlink_to("/etc/passwd")
    (files / "linked").symlink_to("/etc")
    (files / "away").symlink_to("../env.json")
    (files / "far").symlink_to("../../../x")
    os.mkfifo(files / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(files / "socket"))
    (files / "__pycache__").mkdir()
    (files / "__pycache__" / "m.pyc").touch()
    (files / "empty").mkdir()
    data = _packed(run)
    assert [name for name in _contents(data) if name.startswith("files")] == ["files/empty"]
    assert _left(data) == {
        "files/link": LeftKind.LINK,
        "files/linked": LeftKind.LINK,
        "files/away": LeftKind.LINK,
        "files/far": LeftKind.LINK,
        "files/pipe": LeftKind.SPECIAL,
        "files/socket": LeftKind.SPECIAL,
    }


def test_links_inside_come_as_links(run: Run, tmp_path: Path) -> None:
    files = run.path / "files"
    (files / "ckpt-3/deep").mkdir(parents=True)
    (files / "ckpt-3/deep/weights").write_bytes(b"w")
    for name, target in {
        "latest": "ckpt-3",
        "weights": "ckpt-3/deep/weights",
        "ckpt-3/deep/up": "../../ckpt-3",
        "absolute": str(files / "ckpt-3/deep"),
        "round": "ckpt-3/../ckpt-3/deep",
        "log": "../stdout.log",
        "nowhere": "is-not-there",
        "loop": "loop",
    }.items():
        (files / name).symlink_to(target)
    data = _packed(run)
    assert _left(data) == {}
    home = tmp_path / "home"
    assert _received(data, home).refused == {}
    for name in (
        "latest/deep/weights",
        "weights",
        "ckpt-3/deep/up/deep/weights",
        "absolute/weights",
        "round/weights",
    ):
        assert (home / "files" / name).read_bytes() == b"w", name
    assert (home / "files/log").read_text() == "hello\n"
    made = {path.name: str(path.readlink()) for path in (home / "files").iterdir() if path.is_symlink()}
    assert made == {
        "latest": "ckpt-3",
        "weights": "ckpt-3/deep/weights",
        "absolute": "ckpt-3/deep",
        "round": "ckpt-3/deep",
        "log": "../stdout.log",
        "nowhere": "is-not-there",
        "loop": "loop",
    }


@pytest.mark.root
def test_what_may_not_be_read_stays_and_is_named_and_the_rest_is_sent(run: Run) -> None:
    for name in ("secret", "hidden/inside", "listed/inside"):
        path = run.path / "files" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    with tempfile.TemporaryDirectory() as open_place:
        Path(open_place).chmod(0o755)
        copy = Run(Path(shutil.copytree(run.path, f"{open_place}/r1")), run.about)
        (copy.path / "files/secret").chmod(0)
        (copy.path / "files/hidden").chmod(0)
        (copy.path / "files/listed").chmod(0o644)  # its names can be read, its files not
        os.seteuid(65534)
        try:
            sent = _packed(copy)
        finally:
            os.seteuid(0)
    unreadable = ("files/secret", "files/hidden", "files/listed/inside")
    assert _left(sent) == dict.fromkeys(unreadable, LeftKind.UNREADABLE)
    assert _contents(sent)["stdout.log"] == b"hello\n"


SMALL = Limits(files=12, file_bytes=1 << 20, total_bytes=3 << 20)


def test_a_file_that_is_too_large_stays_and_no_byte_of_it_is_sent(run: Run, tmp_path: Path) -> None:
    (run.path / "files/r.csv").write_text("x")
    (run.path / "files/big").write_bytes(os.urandom((1 << 20) + 1))
    with (run.path / "files/huge").open("wb") as file:
        file.truncate(1 << 40)
    (run.path / "files/z.csv").write_text("z")
    data = _packed(run, SMALL)
    assert len(data) < 1 << 18
    assert _left(data) == dict.fromkeys(("files/big", "files/huge"), LeftKind.MUCH)
    done = _received(data, tmp_path / "home", SMALL)
    assert {"files/r.csv", "files/z.csv", "stdout.log"} <= {file.path for file in done.files}


def test_where_all_together_are_too_large_the_largest_stay(run: Run, tmp_path: Path) -> None:
    for number in range(4):
        (run.path / f"files/a{number}").write_bytes(os.urandom(1 << 20))
    (run.path / "files/z.csv").write_text("z")
    data = _packed(run, SMALL)
    left = _left(data)
    assert set(left) < {f"files/a{number}" for number in range(4)}
    assert len(left) == 2
    done = _received(data, tmp_path / "home", SMALL)
    assert "files/z.csv" in {file.path for file in done.files}


def test_where_there_are_too_many_files_the_others_are_sent(run: Run, tmp_path: Path) -> None:
    for number in range(20):
        (run.path / f"files/{number:02}").touch()
    (run.path / "files/link").symlink_to("00")
    data = _packed(run, SMALL)
    done = _received(data, tmp_path / "home", SMALL)
    sent = {file.path for file in done.files} - {"left.json"}
    assert len(sent) + len(done.links) == SMALL.files
    left = _left(data)
    assert len(left) == 20 + 1 + 3 - SMALL.files
    assert not {"files/s.py", "files/data/in.csv"} & set(left), "they are as they were shipped"
    assert {"stdout.log", "stderr.log", "figures/figure-1.png"} <= sent


def test_where_a_directory_has_too_many_files_the_other_directories_are_sent(run: Run) -> None:
    for name in [*(f"a-cache/{number}" for number in range(20)), "z/r.csv", "z/deep/s.csv"]:
        (run.path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / "files" / name).touch()
    data = _packed(run, SMALL)
    assert {"stdout.log", "files/z/r.csv", "files/z/deep/s.csv"} <= set(_contents(data))
    left = _left(data)
    assert set(left.values()) == {LeftKind.MANY}
    assert {Path(name).parent.name for name in left} == {"a-cache"}


@pytest.mark.parametrize("each", [1, 2, 3])
def test_many_directories_of_few_files_leave_no_file_of_the_run_behind(
    run: Run, tmp_path: Path, each: int
) -> None:
    own = {"state.json", "stdout.log", "stderr.log", "points.jsonl"}
    for name in own:
        (run.path / name).write_text("{}\n")
    for number in range(20 * each):
        path = run.path / f"files/{number % 20}/{number}.json"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    data = _packed(run, SMALL)
    assert not own & set(_left(data))
    done = _received(data, tmp_path / "home", SMALL)
    assert own <= {file.path for file in done.files}
    assert len(done.files) == SMALL.files + 1, "and left.json"


def test_a_list_of_what_stays_that_is_too_long_ends_with_a_number(run: Run) -> None:
    directory = run.path / "files" / ("d" * 200) / ("e" * 200) / ("f" * 200)
    directory.mkdir(parents=True)
    for number in range(15_000):
        (directory / f"{number}").touch()
    text = _contents(_packed(run, SMALL))["left.json"]
    assert text
    assert len(text) < 10_000_000
    left = read(LeftOuts, text)
    assert left.more > 1000
    assert len(left) == len(left.left) + left.more == 15_000 + 3 - SMALL.files


@pytest.mark.parametrize("end", [0, 100, 1 << 22])
def test_a_file_with_holes_is_sent_without_them(run: Run, tmp_path: Path, end: int) -> None:
    with (run.path / "files/sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(1 << 26)
        file.write(b"middle")
        file.truncate((1 << 26) + 6 + end)
    data = _packed(run)
    assert len(data) < 1 << 18
    home = tmp_path / "home"
    done = _received(data, home)
    brought = home / "files/sparse"
    assert brought.stat().st_blocks * 512 < 1 << 20
    with brought.open("rb") as here, (run.path / "files/sparse").open("rb") as there:
        sums = {hashlib.file_digest(file, "sha256").hexdigest() for file in (here, there)}
    assert sums == {file.sha256 for file in done.files if file.path == "files/sparse"}


def test_a_file_with_very_many_holes_has_a_short_list_of_them(tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as file:
        for number in range(20_000):
            os.pwrite(file.fileno(), b"x", number << 18)
        found = segments_of(file.fileno(), 20_000 << 18)
    assert len(found) < 10_000
    ends = [offset + size for offset, size in found]
    assert all(end < offset for end, (offset, _) in zip(ends, found[1:], strict=False))


def test_names_of_any_bytes_come_home(run: Run) -> None:
    names = [b"a\nb", b"\xff\xfe", "ü".encode(), b"-rf", b"x" * 200]
    for name in names:
        Path(os.fsdecode(os.fsencode(run.path / "files") + b"/" + name)).write_bytes(name)
    found = {os.fsencode(name) for name in _contents(_packed(run))}
    assert {b"files/" + name for name in names} <= found


@pytest.mark.parametrize("length", [1, 4096, 1 << 20, (1 << 20) + 1])
@pytest.mark.parametrize("grown", [1 << 21, 1 << 30])
def test_a_file_with_holes_that_grows_has_no_part_beyond_its_length(
    tmp_path: Path, length: int, grown: int
) -> None:
    with (tmp_path / "grows").open("wb") as file:
        file.truncate(length)
        os.pwrite(file.fileno(), b"x" * 4096, grown)
        found = segments_of(file.fileno(), length)
    assert all(0 <= offset <= offset + size <= length for offset, size in found)


def test_a_file_whose_holes_are_not_known_is_read_as_a_whole() -> None:
    here, there = os.pipe()
    try:
        assert segments_of(here, 1 << 30) == [(0, 1 << 30)]
    finally:
        os.close(here)
        os.close(there)


@pytest.mark.parametrize(
    ("content", "sent", "fault"),
    [(b"123456789", b"12345", ""), (b"123", b"123\0\0", "shorter"), (b"", bytes(5), "shorter")],
)
def test_a_file_that_changes_while_it_is_read_has_the_announced_size(
    content: bytes, sent: bytes, fault: str
) -> None:
    read = Content(io.BytesIO(content), [(0, 5)])
    assert read.read(4) + read.read(4) + read.read(4) == sent
    assert read.sum.hexdigest() == _sha(sent)
    assert bool(read.fault) == bool(fault)
    assert fault in read.fault


def test_a_file_that_cannot_be_read_to_its_end_is_named_and_does_not_end_the_others() -> None:
    class Broken(io.BytesIO):
        def read(self, _size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    content = Content(Broken(), [(0, 5)])
    assert content.read() == bytes(5)
    assert content.fault == "it cannot be read to its end: Input/output error"
