from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from exoscale.api.v2 import Client

from tests.support.waiting import LONG_S, wait_for

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tests.lab", "--machines"]


def _exports(path: Path) -> dict[str, str]:
    shell = subprocess.run(
        ["sh", "-c", '. "$1"; env', "sh", str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=LONG_S,
    )
    return dict(line.split("=", 1) for line in shell.stdout.splitlines() if "=" in line)


def _start(exports: Path) -> subprocess.Popen[str]:
    command = [*COMMAND, "light", "--env", str(exports), "--ssh-port", "2299"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.mark.parametrize(("number", "leave"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_the_lab_in_the_foreground_tells_at_its_end_what_was_left(
    tmp_path: Path, number: signal.Signals, leave: bool
) -> None:
    exports = tmp_path / "lab.env"
    lab = _start(exports)
    try:
        wait_for(exports.exists, describe=lambda: "the lab is ready")
        assert exports.stat().st_mode & 0o777 == 0o600
        environ = _exports(exports)
        assert environ["RAIN_DEPLOY_PROVIDER"] == "exoscale"
        assert environ["RAIN_DEPLOY_SSH_PORT"] == "2299"
        assert environ["EXOSCALE_ZONE"] == "ch-dk-2"
        client = Client(
            environ["EXOSCALE_API_KEY"], environ["EXOSCALE_API_SECRET"], url=environ["EXOSCALE_API_ENDPOINT"]
        )
        if leave:
            client.create_security_group(name="rain")
        assert client.list_instances() == {"instances": []}
        client.http_client.close()
        lab.send_signal(number)
        printed, _ = lab.communicate(timeout=LONG_S)
    finally:
        lab.kill()
        lab.wait()
    assert lab.returncode == (3 if leave else 0)
    assert ("not deleted: security-group rain" in printed) is leave


def test_a_lab_that_starts_again_is_the_same_account(tmp_path: Path) -> None:
    exports, keys = tmp_path / "lab.env", []
    for _ in range(2):
        lab = _start(exports)
        try:
            assert lab.stdout is not None
            assert "The lab serves" in lab.stdout.readline()  # the file is written before
            environ = _exports(exports)
            keys.append((environ["EXOSCALE_API_KEY"], environ["EXOSCALE_API_SECRET"]))
            client = Client(*keys[0], url=environ["EXOSCALE_API_ENDPOINT"])
            assert client.list_instances() == {"instances": []}
            client.http_client.close()
            lab.send_signal(signal.SIGTERM)
            lab.communicate(timeout=LONG_S)
        finally:
            lab.kill()
            lab.wait()
    assert keys[0] == keys[1]


def test_real_machines_are_refused_with_a_sentence(tmp_path: Path) -> None:
    ended = subprocess.run(
        [*COMMAND, "real", "--env", str(tmp_path / "lab.env")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=LONG_S,
        env=os.environ,
    )

    assert ended.returncode == 2
    assert "no real machines yet" in ended.stderr
    assert not (tmp_path / "lab.env").exists()
