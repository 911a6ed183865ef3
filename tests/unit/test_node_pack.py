"""What goes home: everything the run made, nothing that was shipped, with sums of what was sent."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from rain_deploy.node.files import write_json
from rain_deploy.node.pack import Measured, pack
from rain_deploy.node.run import Run, load_run


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


def _packed(run: Run) -> bytes:
    output = io.BytesIO()
    assert pack(run.path, output) == 0
    return output.getvalue()


def _contents(data: bytes) -> dict[str, bytes | None]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {
            member.name: file.read() if (file := tar.extractfile(member)) else None
            for member in tar.getmembers()
        }


def test_what_was_shipped_and_not_changed_stays(run: Run) -> None:
    (run.path / "files" / "out.txt").write_text("new")
    (run.path / "files" / "data" / "in.csv").write_text("1,2,3")
    assert list(_contents(_packed(run))) == [
        "stdout.log",
        "stderr.log",
        "figures/figure-1.png",
        "files/out.txt",
        "files/data/in.csv",
        "sums.json",
    ]


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


def test_links_pipes_and_caches_stay_and_nothing_waits_for_them(run: Run) -> None:
    files = run.path / "files"
    (files / "link").symlink_to("/etc/passwd")
    (files / "linked").symlink_to("/etc")
    os.mkfifo(files / "pipe")
    (files / "__pycache__").mkdir()
    (files / "__pycache__" / "m.pyc").touch()
    (files / "empty").mkdir()
    assert [name for name in _contents(_packed(run)) if name.startswith("files")] == ["files/empty"]


def test_names_of_any_bytes_come_home(run: Run) -> None:
    names = [b"a\nb", b"\xff\xfe", "ü".encode(), b"-rf", b"x" * 200]
    for name in names:
        Path(os.fsdecode(os.fsencode(run.path / "files") + b"/" + name)).write_bytes(name)
    found = {os.fsencode(name) for name in _contents(_packed(run))}
    assert {b"files/" + name for name in names} <= found


@pytest.mark.parametrize(("content", "sent"), [(b"123456789", b"12345"), (b"123", b"123\0\0")])
def test_a_file_that_changes_while_it_is_read_has_the_announced_size(content: bytes, sent: bytes) -> None:
    measured = Measured(io.BytesIO(content), 5)
    assert measured.read(4) + measured.read(4) + measured.read(4) == sent
    assert measured.sum.hexdigest() == _sha(sent)
