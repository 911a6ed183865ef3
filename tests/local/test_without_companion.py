"""``--no-companion``: a script does what it does on a Rain that was started by hand."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from tests.local.bare_rain import BareRain, environment
from tests.local.command_line import LocalCluster

SCRIPT = """\
import json, sys
from rain.client import Client, remote

@remote()
def seen(ctx):
    import json, os, sys
    ours = sorted(name for name in sys.modules if "companion" in name)
    paths = [path for path in sys.path if "companion" in path]
    is_set = "RAIN_DEPLOY_COMPANION" in os.environ
    return json.dumps([ours, paths, is_set, len(ctx.spec.outputs), ctx.spec.user, os.listdir()])

@remote()
def failing(ctx, x):
    raise ValueError(f"bad {x}")

with Client("localhost", 7210).new_session("bare") as session:
    task = seen()
    task.output.keep()
    session.submit()
    session.wait_all()
    print(task.output.fetch().get_str(), [name for name in sys.modules if "rain_deploy_companion" in name])
    bad = failing(3, name="bad x=3")
    bad.output.keep()
    session.submit()
    bad.output.fetch()
"""


def test_a_script_with_a_failing_task_is_as_on_bare_rain(
    shared: LocalCluster, bare_rain: BareRain, tmp_path: Path
) -> None:
    (tmp_path / "bare.py").write_text(SCRIPT)
    here = subprocess.run(
        [bare_rain.python, "bare.py"],
        cwd=tmp_path,
        env=environment(bare_rain.python) | {"RAIN_DEPLOY_SERVER": bare_rain.server, "PWD": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told = shared("run", "--json", "--no-companion", "bare.py")
    results = Path(told.result["results_dir"])
    assert (told.exit_code, told.result["exit_code"], here.returncode) == (42, 1, 1)
    assert (results / "stdout.log").read_text() == here.stdout
    assert json.loads(here.stdout.rpartition(" [")[0]) == [[], [], False, 1, {}, []]
    assert _same_places((results / "stderr.log").read_text()) == _same_places(here.stderr)
    assert "ValueError: bad 3" in here.stderr


def _same_places(text: str) -> list[str]:
    """The lines of a traceback without directories and ids."""
    return re.sub(r'File "[^"]*/', 'File "', re.sub(r"\b\d+/\d+\b|\[\d+, \d+\]", "id", text)).splitlines()
