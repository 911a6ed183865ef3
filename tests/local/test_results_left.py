"""What cannot be pulled is named and stays, all else is pulled, and the commands that are named work."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from tests.local.command_line import LocalCluster
from tests.support.results import verify

MAKES = """
import os
open("r.csv", "w").write("x")
open("huge", "wb").truncate(1 << 40)
with open("holes", "wb") as file:
    file.seek(3 << 30)
    file.write(b"end")
os.makedirs("ckpt-3")
open("ckpt-3/w", "w").write("w")
os.symlink("ckpt-3", "latest")
os.symlink("/etc/passwd", "out")
os.mkfifo("pipe")
print("made")
"""


def test_what_stays_is_named_and_the_commands_that_are_named_work(
    shared: LocalCluster, tmp_path: Path
) -> None:
    (tmp_path / "makes.py").write_text(MAKES)
    told = shared("run", "--json", "makes.py")
    assert told.exit_code == 51
    out = Path(told.result["results_dir"])
    assert {one["path"] for one in told.result["left"]["left"]} == {"files/huge", "files/out", "files/pipe"}
    assert (out / "stdout.log").read_text() == "made\n"
    assert (out / "files/latest/w").read_text() == "w"
    holes = (out / "files/holes").stat()
    assert (holes.st_size, holes.st_blocks * 512 < 1 << 20) == ((3 << 30) + 3, True)
    assert verify(out) == ("some of the results stay on the node",)
    assert json.loads((out / "manifest.json").read_text())["complete"] is False
    first, last = told.error["next"].split("; ")
    assert last == f"rain-deploy down -c {shared.name} --discard-results deletes what stays"
    verb, _, _, *words = shlex.split(first)[1:]
    shared.well(verb, *words)
    assert (tmp_path / "huge").stat().st_size == 1 << 40
    again = shared("pull")
    assert again.exit_code == 51
    assert "not pulled: files/out: it is a link to /etc/passwd" in again.stdout
