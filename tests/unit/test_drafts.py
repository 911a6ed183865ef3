"""What killed commands leave on the operator's machine does not pile up, and nothing else is touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rain_deploy.core.layout import TEMPORARY
from rain_deploy.results.partial import partial_places
from rain_deploy.state.drafts import clear_drafts, clear_noted, draft_next_to, noted
from rain_deploy.wiring import context

DRAFTS = (
    "home/.state-ab12",
    "home/cache/uv/00ff/.new-x1",
    "home/cache/engine/x86_64-glibc2.36/00ff/.new-x2",
    f"tmp/{TEMPORARY}ab_12xyz",
)
OTHERS = (
    "home/state.sqlite",
    "home/cache/uv/00ff/uv",
    "home/clusters/ab12/id_ed25519",
    f"tmp/{TEMPORARY}of-mine",
    "tmp/rain-deploy-checkout",
    "tmp/ab_12xyz",
)


def made(top: Path, name: str, age_s: float) -> Path:
    path = top / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.startswith((".new-", TEMPORARY)):
        path.mkdir()
        (path / "inside").touch()
    else:
        path.touch()
    then_s = time.time() - age_s
    os.utime(path, (then_s, then_s))
    return path


@pytest.mark.parametrize("name", DRAFTS)
def test_a_draft_goes_once_nobody_can_work_on_it(tmp_path: Path, name: str) -> None:
    fresh = made(tmp_path, name, 60)
    assert clear_drafts(tmp_path / "home", tmp_path / "tmp") == ()
    assert fresh.exists()
    os.utime(fresh, (0, 0))
    assert clear_drafts(tmp_path / "home", tmp_path / "tmp") == (fresh,)
    assert not fresh.exists()


def test_nothing_else_goes(tmp_path: Path) -> None:
    paths = [made(tmp_path, name, 1e6) for name in OTHERS]
    outside = made(tmp_path, "outside", 1e6)
    (tmp_path / "home" / ".state-link").symlink_to(outside)
    assert clear_drafts(tmp_path / "home", tmp_path / "tmp") == ()
    assert all(path.exists() for path in (*paths, outside))


def test_a_home_that_is_not_there_is_no_fault(tmp_path: Path) -> None:
    assert clear_drafts(tmp_path / "home", tmp_path / "tmp") == ()


# ---- outside the home: known by name while somebody works on them

WORKS = """
import pathlib, sys, time
from rain_deploy.state.drafts import draft_next_to, noted
home, place, how = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
if how == "fetch":
    draft = draft_next_to(home, place)
else:
    from rain_deploy.results.partial import partial_directory, partial_places
    kept = noted(home, *partial_places(place))
    kept.__enter__()
    draft = partial_directory(place, print)
path = draft.__enter__()
(path / "half").touch()
print(path, flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize("how", ["fetch", "pull", "pull again"])
def test_what_a_killed_command_noted_goes_with_the_next_one(tmp_path: Path, how: str) -> None:
    place = tmp_path / "results/r1"
    (place if how == "pull again" else place.parent).mkdir(parents=True)
    command = [sys.executable, "-c", WORKS, str(tmp_path / "home"), str(place), how]
    (tmp_path / "home").mkdir()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as working:
        assert working.stdout
        draft = Path(working.stdout.readline().strip())
        assert clear_noted(tmp_path / "home") == (), "it is at work"
        assert (draft / "half").exists()
        working.send_signal(signal.SIGKILL)
    assert clear_noted(tmp_path / "home") == (draft,)
    assert not draft.exists()
    assert list((tmp_path / "home/locks").iterdir()) == []


def test_a_command_of_any_kind_removes_it(tmp_path: Path) -> None:
    left = tmp_path / "results/.r1.partial"
    left.mkdir(parents=True)
    (tmp_path / "home/locks").mkdir(parents=True)
    (tmp_path / "home/locks/draft-00ff").write_text(json.dumps([str(left)]))
    with context(tmp_path / "home", lambda _: None, lambda _: True):
        assert not left.exists()


def test_a_directory_in_which_another_command_works_by_now_stays(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "results").mkdir()
    command = [sys.executable, "-c", WORKS, str(tmp_path / "home"), str(tmp_path / "results/r1"), "pull"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout
        draft = Path(first.stdout.readline().strip())
        first.kill()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as second:
        assert second.stdout
        assert Path(second.stdout.readline().strip()) == draft
        assert clear_noted(tmp_path / "home") == ()
        assert (draft / "half").exists()
        second.kill()
    assert clear_noted(tmp_path / "home") == (draft,)


def test_a_command_that_ends_leaves_neither_draft_nor_note(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    with draft_next_to(tmp_path / "home", tmp_path / "x") as draft:
        (draft / "half").touch()
        assert len(list((tmp_path / "home/locks").iterdir())) == 1
    assert list((tmp_path / "home/locks").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


def test_where_no_note_can_be_written_the_command_goes_on(tmp_path: Path) -> None:
    with noted(tmp_path / "not" / "there", *partial_places(tmp_path / "x")):
        pass
    assert list(tmp_path.iterdir()) == []
