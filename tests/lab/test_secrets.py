"""A secret is where it is meant to be and nowhere else: on no disk, in no argument, in nothing sent."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import FIRST_UP_S
from tests.lab.lab import Lab
from tests.local.command_line import CommandLine
from tests.local.scripts import WAITS
from tests.support.files import files_with
from tests.support.waiting import wait_for

CANARY = "canary-77ab3f"


def written_with(secret: str, root: Path) -> set[Path]:
    """What was written by anybody; what all tests share stays out of it."""
    found = files_with(secret.encode(), root)
    return {path for path in found if "cache" not in path.relative_to(root).parts}


def arguments_with(secret: str) -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                if secret.encode() in line:
                    yield line.decode(errors="replace")


def sent_with(secret: str, lab: Lab) -> list[str]:
    told = [(str(request), request.body + repr(request.headers).encode()) for request in lab.log]
    told += [(f"user-data of {vm.name}", vm.user_data.encode()) for vm in lab.instances()]
    return [where for where, said in told if secret.encode() in said]


@pytest.mark.slow
def test_secrets_are_nowhere_but_where_they_are_meant_to_be(
    light_lab: Lab, user: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "waits.py").write_text(WAITS)
    user.well("up", "--nodes", "2", "--yes", "-v", timeout_s=FIRST_UP_S)
    run = user.start("run", "--env", "TOKEN", "waits.py", str(tmp_path / "go"), env={"TOKEN": CANARY})
    run.wait_for("begun")

    (login,) = user.home.rglob("id_ed25519")
    login_key = login.read_text().splitlines()[2]
    host_keys = [path.read_text().splitlines()[2] for path in user.home.rglob("host_keys/node-?")]
    assert len(host_keys) == 2
    for secret in (CANARY, light_lab.secret, login_key, *host_keys):
        assert list(arguments_with(secret)) == []
    kept = written_with(CANARY, tmp_path)
    assert {path.name for path in kept} == {"env.json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    assert written_with(light_lab.secret, tmp_path) == set()
    assert written_with(login_key, tmp_path) == {login}
    for secret in (CANARY, light_lab.secret, login_key):
        assert sent_with(secret, light_lab) == []

    (tmp_path / "go").touch()
    ended = run.ended()
    assert ended.exit_code == 0
    wait_for(lambda: written_with(CANARY, tmp_path) == set())
    down = user.well("down", "--yes", "-v")
    for secret in (CANARY, light_lab.secret, login_key):
        assert secret not in ended.stdout + ended.stderr + down.stdout + down.stderr
        assert written_with(secret, tmp_path) == set()
