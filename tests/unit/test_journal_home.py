"""What a task left: plain files come out of its tar, and nothing else does, whatever it holds."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

import pytest

from rain_deploy.node.journal.home import unpack


def tar_of(*members: tuple[str, bytes, bytes]) -> bytes:
    """Name, type and content of each; the content of a link is its target."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind in {tarfile.SYMTYPE, tarfile.LNKTYPE}:
                member.linkname = content.decode()
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


PLAIN = (
    ("output.log", tarfile.REGTYPE, b"printed\n"),
    ("files/deep/é.txt", tarfile.REGTYPE, b"deep"),
    ("figures/01.png", tarfile.REGTYPE, b""),
)


def found(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_plain_files_are_unpacked_and_replace_those_of_an_earlier_attempt(tmp_path: Path) -> None:
    place = tmp_path / "tasks" / "1-12-train"
    unpack(tar_of(("files/old", tarfile.REGTYPE, b"old")), place)
    unpack(tar_of(*PLAIN), place)
    assert found(tmp_path / "tasks") == {
        "1-12-train/output.log": b"printed\n",
        "1-12-train/files/deep/é.txt": b"deep",
        "1-12-train/figures/01.png": b"",
    }


@pytest.mark.parametrize(
    ("name", "kind", "content"),
    [
        ("../beside", tarfile.REGTYPE, b"x"),
        ("files/../../beside", tarfile.REGTYPE, b"x"),
        ("/tmp/rain-deploy-beside", tarfile.REGTYPE, b"x"),
        ("link", tarfile.SYMTYPE, b"/etc/passwd"),
        ("link", tarfile.LNKTYPE, b"output.log"),
        ("pipe", tarfile.FIFOTYPE, b""),
        ("device", tarfile.CHRTYPE, b""),
        (".", tarfile.REGTYPE, b"x"),
    ],
)
def test_what_is_no_plain_file_below_is_left_out(
    tmp_path: Path, name: str, kind: bytes, content: bytes
) -> None:
    unpack(tar_of((name, kind, content), *PLAIN), tmp_path / "task")
    assert set(found(tmp_path)) == {f"task/{name}" for name, _, _ in PLAIN}
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink() or path.is_fifo()]
    assert not Path("/tmp/rain-deploy-beside").exists()


def test_a_link_of_the_tar_is_no_way_out_for_a_later_member(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    hostile = (("files", tarfile.SYMTYPE, b"../out"), ("files/x", tarfile.REGTYPE, b"x"))
    unpack(tar_of(*hostile), tmp_path / "task")
    assert found(tmp_path) == {"task/files/x": b"x"}


def test_a_damaged_tar_raises_no_other_error_and_leaves_nothing_half_made(tmp_path: Path) -> None:
    whole, chance = tar_of(*PLAIN), random.Random(5)  # noqa: S311 - not a secret
    outcomes = set()
    for size in range(0, 3000, 37):
        damaged = bytearray(whole[:size] if size % 2 else whole)
        for _ in range(size % 3):
            if damaged:
                damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        try:
            unpack(bytes(damaged), tmp_path / "task")
            outcomes.add("unpacked")
        except OSError:
            outcomes.add("refused")
        assert [path.name for path in tmp_path.iterdir()] in ([], ["task"])
    assert outcomes == {"unpacked", "refused"}
