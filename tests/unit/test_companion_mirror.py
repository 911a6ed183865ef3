"""The run's files in the directory of tasks: which are copies, and what a task did to them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rain_deploy.companion import mirror as module
from rain_deploy.companion.mirror import Mirror


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name, size in {"a": 10, "b/c": 20, "b/d/e": 30, "f": 40}.items():
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_text("x" * size)
    (tmp_path / "root").mkdir()
    return tmp_path / "files"


def mirror(source: Path) -> Mirror:
    return Mirror(source.parent / "root", source, ["a", "b/c", "b/d/e", "f"])


def links(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink()}


@pytest.mark.parametrize(
    ("largest", "most", "linked"),
    [(100, 1000, set()), (25, 1000, {"b/d/e", "f"}), (100, 60, {"f"}), (100, 0, {"a", "b/c", "b/d/e", "f"})],
)
def test_files_that_are_too_large_by_themselves_or_together_are_links(
    source: Path, monkeypatch: pytest.MonkeyPatch, largest: int, most: int, linked: set[str]
) -> None:
    monkeypatch.setattr(module, "LARGEST_COPY_BYTES", largest)
    monkeypatch.setattr(module, "MOST_COPIED_BYTES", most)
    mirror(source).reset()
    root = source.parent / "root"
    assert links(root) == linked
    assert (root / "b/d/e").read_text() == "x" * 30


def test_untouched_copies_stay_and_all_else_is_as_it_was_shipped(source: Path) -> None:
    files, root = mirror(source), source.parent / "root"
    files.reset()
    kept = (root / "b/c").stat().st_ino
    (root / "a").write_text("changed")
    (root / "f").unlink()
    (root / "b/d/e").unlink()
    (root / "b/d/e").mkdir()
    (root / "b/new").mkdir()
    (root / "b/new/file").write_text("new")
    (root / "link").symlink_to("/etc", target_is_directory=True)
    assert sorted(files.written()) == [("a", 7), ("b/new/file", 3)]
    files.reset()
    assert sorted(files.written()) == []
    assert (root / "b/c").stat().st_ino == kept
    assert {str(path.relative_to(root)) for path in root.rglob("*")} == {
        "a", "b", "b/c", "b/d", "b/d/e", "f"
    }  # fmt: skip
    assert (root / "a").read_text() == "x" * 10


def test_a_copy_that_looks_the_same_but_was_written_to_is_made_again(source: Path) -> None:
    files, root = mirror(source), source.parent / "root"
    files.reset()
    before = (root / "a").stat()
    (root / "a").write_text("y" * 10)
    os.utime(root / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    files.reset()
    assert (root / "a").read_text() == "x" * 10
