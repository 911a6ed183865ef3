"""user-data: what a machine is told at its first boot, and that its mark means what it says."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import rain_deploy
from rain_deploy.parts.machine import user_data
from rain_deploy.parts.shell import templates_directory
from rain_deploy.providers.keys import public_key

PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
PUBLIC = "ssh-ed25519 AAAA"


def told(limit_s: float | None = 1_800_000_000.9, idle_s: float | None = 3600.0) -> dict[str, Any]:
    text = user_data(host_key_private=PRIVATE, host_key_public=PUBLIC, limit_s=limit_s, idle_s=idle_s)
    first, rest = text.split(b"\n", 1)
    assert first == b"#cloud-config"
    value: dict[str, Any] = json.loads(rest)
    return value


def files(**times: float | None) -> dict[str, dict[str, str]]:
    return {file["path"]: file for file in told(**times)["write_files"]}


def test_a_real_key_survives_and_everything_fits_what_the_cloud_takes(tmp_path: Path) -> None:
    public = public_key(tmp_path / "key")
    private = (tmp_path / "key").read_text(encoding="ascii")
    text = user_data(host_key_private=private, host_key_public=public, limit_s=None, idle_s=None)
    assert len(text) < 24 * 1024
    assert len(base64.b64encode(text)) < 32768
    assert json.loads(text.partition(b"\n")[2])["ssh_keys"] == {
        "ed25519_private": private,
        "ed25519_public": public,
    }


def test_the_machine_has_our_host_key_alone_and_nobody_logs_in_with_a_password() -> None:
    assert told()["ssh_keys"] == {"ed25519_private": PRIVATE, "ed25519_public": PUBLIC}
    assert told()["ssh_deletekeys"] is True
    assert told()["ssh_pwauth"] is False


def test_the_host_key_is_the_only_secret() -> None:
    value = told()
    del value["ssh_keys"]["ed25519_private"]
    assert "PRIVATE" not in json.dumps(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1_800_000_000.9, "1800000000\n"), (None, "none\n"), (float("inf"), "none\n")],
)
def test_limits_are_whole_seconds_or_none(seconds: float | None, text: str) -> None:
    machine = "/var/lib/rain-deploy-machine"
    written = files(limit_s=seconds, idle_s=seconds)
    assert written[f"{machine}/limit"]["content"] == text
    assert written[f"{machine}/idle"]["content"] == text


def test_the_program_can_be_started_and_is_posix_sh(tmp_path: Path) -> None:
    program = files()["/usr/local/sbin/rain-deploy-limit"]
    assert program["permissions"] == "0755"
    (tmp_path / "program").write_text(program["content"], encoding="utf-8")
    shell = shutil.which("dash") or "/bin/sh"
    assert subprocess.run([shell, "-n", tmp_path / "program"], check=False).returncode == 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_the_units_are_right_in_the_eyes_of_systemd(tmp_path: Path) -> None:
    units = []
    for path, file in files().items():
        place = tmp_path / path.rpartition("/")[2]
        # The program lies elsewhere while the unit is looked at.
        content = file["content"].replace("/usr/local/sbin", str(tmp_path))
        place.write_text(content, encoding="utf-8")
        place.chmod(int(file["permissions"], 8))
        units += [place] if "/systemd/" in path else []
    assert len(units) == 2
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(("systemd_works", "marked"), [(True, True), (False, False)])
def test_the_mark_is_written_once_the_timer_is_armed(
    tmp_path: Path, systemd_works: bool, marked: bool
) -> None:
    stub, asked = tmp_path / "systemctl", tmp_path / "asked"
    stub.write_text(f'#!/bin/sh\necho "$@" >>{asked}\n{str(systemd_works).lower()}\n', encoding="utf-8")
    stub.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RAIN_DEPLOY_MACHINE": str(tmp_path)}
    for command in told()["runcmd"]:
        subprocess.run(command, env=environment, check=False)
    assert (tmp_path / "mark").exists() is marked
    assert not systemd_works or "enable --now rain-deploy-limit.timer" in asked.read_text(encoding="utf-8")


def test_every_later_boot_arms_the_timer_again() -> None:
    (boot,) = told()["bootcmd"]
    assert "systemctl enable --now --no-block rain-deploy-limit.timer" in boot[2]


def test_nothing_else_of_ours_can_power_a_machine_off() -> None:
    package = Path(rain_deploy.__file__).parent
    sources = [*package.rglob("*.py"), *templates_directory().iterdir()]
    words = ("poweroff", "shutdown -", "systemctl halt", "init 0")
    able = {path.name for path in sources if any(word in path.read_text(encoding="utf-8") for word in words)}
    assert able == {"limit.sh.j2"}
