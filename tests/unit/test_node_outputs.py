"""What attempts leave: set aside, trimmed, brought back; and one stream of output over all attempts."""

from __future__ import annotations

from pathlib import Path

import pytest

from rain_deploy.node.files import write_json
from rain_deploy.node.follow import Output
from rain_deploy.node.run import Run, the_run
from rain_deploy.node.service import outputs
from rain_deploy.node.service.outputs import bring_back, clean_files, copy_tree, set_aside
from rain_deploy.node.wire import RunDescription


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run in its first attempt, whose script wrote a file, changed one and left one as it was."""
    path = tmp_path / "r1"
    write_json(path / "run.json", RunDescription(run="r1", sequence=1, port=1, script="s.py"))
    (path / "files").mkdir()
    for name in ("s.py", "data"):
        (path / "files" / name).write_text("shipped")
    found = the_run(path)
    found.update(attempt=1)
    copy_tree(path / "files", clean_files(found))
    (path / "files" / "data").write_text("changed")
    (path / "files" / "made").write_text("made")
    (path / "stdout.log").write_text("said")
    write_json(path / "job.json", {})
    return found


def tree(path: Path) -> dict[str, str]:
    return {str(one.relative_to(path)): one.read_text() for one in path.rglob("*") if one.is_file()}


SHIPPED = {"s.py": "shipped", "data": "shipped"}
WRITTEN = {"data": "changed", "made": "made"}


def test_what_an_attempt_left_is_set_aside_and_the_next_has_clean_files(run: Run) -> None:
    assert set_aside(run) == []
    assert tree(run.path / "files") == SHIPPED
    assert tree(run.path / "attempts/1/files") == WRITTEN
    assert tree(run.path / "attempts/1")["stdout.log"] == "said"
    assert not (run.path / "job.json").exists()
    assert not (run.path / "stdout.log").exists()


@pytest.mark.parametrize("interrupted", range(1, 12))
def test_setting_aside_goes_on_where_it_was_interrupted(
    run: Run, monkeypatch: pytest.MonkeyPatch, interrupted: int
) -> None:
    """Interrupted at each of its changes of the disk."""
    left = interrupted

    def counted(name: str, change: object) -> object:
        def instead(*args: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt(name)
            return change(*args, **options)  # type: ignore[operator]

        return instead

    with monkeypatch.context() as patched:
        for name in ("rename", "unlink"):
            patched.setattr(Path, name, counted(name, getattr(Path, name)))
        patched.setattr(outputs, "copy_tree", counted("copy_tree", copy_tree))
        try:
            set_aside(run)
        except KeyboardInterrupt:
            pass
        else:
            assert interrupted > 6, "fewer changes than there must be"
    set_aside(run)
    assert tree(run.path / "files") == SHIPPED
    assert tree(run.path / "attempts/1/files") == WRITTEN


def test_of_many_bytes_the_small_files_are_kept_and_the_others_named(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "_MOST_BYTES", 20)
    (run.path / "files" / "large").write_bytes(bytes(15))
    assert set_aside(run) == ["large, 15 bytes"]
    assert tree(run.path / "attempts/1/files") == WRITTEN
    assert (run.path / "attempts/1/not-kept.txt").read_text() == "large, 15 bytes\n"


def test_an_attempt_that_started_no_script_leaves_the_results_of_the_one_before(run: Run) -> None:
    set_aside(run)
    run.update(attempt=2)
    bring_back(run)
    assert tree(run.path / "files") == WRITTEN
    assert (run.path / "stdout.log").read_text() == "said"


def read(output: Output, attempt: int) -> list[tuple[bytes, bool]]:
    found = []
    while (piece := output.read(attempt))[0]:
        found.append(piece)
    return found


def prints(run: Run, attempt: int, text: str) -> None:
    path = run.path / "stdout.log"
    if attempt > run.status().attempt:
        set_aside(run)
        run.update(attempt=attempt)
    path.write_text(text)


def test_what_a_later_attempt_prints_alike_is_sent_once(run: Run) -> None:
    output = Output(run.path, "stdout.log", "0")
    prints(run, 1, "one two")
    assert read(output, 1) == [(b"one two", False)]
    prints(run, 2, "one")
    assert read(output, 2) == []
    prints(run, 2, "one two three")
    assert read(output, 2) == [(b" three", False)]
    assert output.attempt == 2


def test_what_an_attempt_prints_otherwise_is_sent_from_its_beginning(run: Run) -> None:
    output = Output(run.path, "stdout.log", "0")
    prints(run, 1, "one two")
    assert read(output, 1) == [(b"one two", False)]
    prints(run, 2, "one")
    assert read(output, 2) == []
    prints(run, 2, "one three")
    assert read(output, 2) == [(b"one three", True)]
    prints(run, 3, "one three four")
    assert read(output, 3) == [(b" four", False)]


def test_the_rest_of_a_lost_attempt_is_sent_before_the_next(run: Run) -> None:
    output = Output(run.path, "stdout.log", "1:4")
    prints(run, 1, "one two")
    prints(run, 2, "one two three")
    assert read(output, 2) == [(b"two", False), (b" three", False)]


@pytest.mark.parametrize(
    ("sent", "expected"), [("1:3", []), ("2:3", [(b"b", False)]), ("1:4", [(b"xxxb", True)])]
)
def test_a_reader_that_comes_back_says_how_much_of_which_attempt_it_has(
    run: Run, sent: str, expected: list[tuple[bytes, bool]]
) -> None:
    prints(run, 1, "xxxa" if sent == "1:4" else "xxx")
    prints(run, 2, "xxx" if sent == "1:3" else "xxxb")
    assert read(Output(run.path, "stdout.log", sent), 2) == expected
