"""What killed commands leave on the operator's machine does not pile up, and nothing else is touched."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from rain_deploy.core.layout import TEMPORARY
from rain_deploy.state.drafts import clear_drafts

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
