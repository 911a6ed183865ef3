"""What a node sends to ``fetch`` goes below the destination and nowhere else, however often it is asked."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rain_deploy.core.machine import Host
from rain_deploy.core.step import Command, CommandResult
from rain_deploy.errors import InputError, UnsafeResults
from rain_deploy.verbs.copy import CopyResult, fetch
from tests.unit.fake_cloud import World

Sent = dict[str, str | bytes | None]
"""A file's content, a link's target, or None for a directory, by name."""


def tar_of(sent: Sent) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, what in sent.items():
            member = tarfile.TarInfo(name)
            if isinstance(what, bytes):
                member.size, member.mode = len(what), 0o755
                tar.addfile(member, io.BytesIO(what))
                continue
            member.type, member.linkname = (tarfile.SYMTYPE, what) if what else (tarfile.DIRTYPE, "")
            tar.addfile(member)
    return buffer.getvalue()


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.at(tmp_path)
    world.cluster()
    hook = world.ctx.cwd / ".git/hooks/pre-commit"
    hook.parent.mkdir(parents=True)
    hook.write_text("good")
    return world


def fetched(world: World, monkeypatch: pytest.MonkeyPatch, sent: Sent) -> CopyResult:
    """The node sends this, whatever it is asked for."""

    def run(host: Host, command: Command, on_stdout: Callable[[bytes], None]) -> CommandResult:
        del host, command
        on_stdout(tar_of(sent))
        return CommandResult(0, b"", b"")

    monkeypatch.setattr(world.ctx.transport, "run", run)
    return fetch(world.ctx, "one", "/root/data", Path())


@pytest.mark.parametrize("target", ["../.git/hooks", "inner", "../../work/.git/hooks", "/etc"])
def test_no_link_of_a_node_is_made_and_two_fetches_write_nowhere_else(
    world: World, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    link: Sent = {"data": None, "data/inner": None, "data/l": target, "data/ok": b"1"}
    with pytest.raises(UnsafeResults, match="1 entry was not copied"):
        fetched(world, monkeypatch, link)
    fetched(world, monkeypatch, {"data": None, "data/l": None, "data/l/pre-commit": b"evil"})
    cwd = world.ctx.cwd
    assert (cwd / ".git/hooks/pre-commit").read_text() == "good"
    assert not any(path.is_symlink() for path in (cwd / "data").rglob("*"))
    assert (cwd / "data/ok").exists()
    assert (cwd / "data/l/pre-commit").read_text() == "evil"


@pytest.mark.parametrize("name", ["data", "data/l", "data/l/deep"])
def test_a_link_that_is_there_is_not_followed(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    link = world.ctx.cwd / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(world.ctx.cwd / ".git/hooks")
    with pytest.raises(InputError, match=f"cannot write {link}: there is a link"):
        fetched(world, monkeypatch, {f"{name}/pre-commit": b"evil"})
    assert [path.read_text() for path in (world.ctx.cwd / ".git/hooks").iterdir()] == ["good"]


def test_a_file_takes_the_place_of_a_link(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.ctx.cwd / "data").mkdir()
    (world.ctx.cwd / "data/f").symlink_to("../.git/hooks/pre-commit")
    fetched(world, monkeypatch, {"data/f": b"new"})
    assert (world.ctx.cwd / "data/f").read_text() == "new"
    assert (world.ctx.cwd / ".git/hooks/pre-commit").read_text() == "good"
