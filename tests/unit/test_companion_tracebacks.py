"""The exception that ends a script is shown as its author knows it, in stderr.log and on the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.companion_python import FAULT, NodePython

RAIN = """\
class TaskException(Exception):
    pass

def wait(text):
    def check():
        raise TaskException("Task <Task 1/18> failed\\nMessage: " + text)
    check()
"""
REMOTE = """\
Traceback (most recent call last):
  File "/env/lib/python3.11/site-packages/rain/executor/executor.py", line 147, in unpack_and_run_task
    task_results = self.run_task(task_context, inputs, outputs)
                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/env/lib/python3.11/site-packages/rain/executor/executor.py", line 205, in run_task
    result = fn(context, *args, **kwargs)
  File "{files}/lib/model.py", line 7, in train
    raise ValueError("bad rate")
ValueError: bad rate

Task failed in executor
"""
SCRIPT = "from rain import wait\nimport os\ndef main():\n    wait(os.environ['TEXT'])\nmain()\n"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> NodePython:
    made = NodePython.make(tmp_path_factory.mktemp("node"))
    (made.packages / "rain").mkdir()
    (made.packages / "rain" / "__init__.py").write_text(RAIN)
    return made


def test_rains_frames_are_folded_and_paths_are_the_users(python: NodePython) -> None:
    run = python.run_dir("task")
    done = python.run(SCRIPT, run, TEXT=REMOTE.format(files=run / "files"))
    assert (done.returncode, done.stderr.splitlines()) == (
        1,
        [
            "Traceback (most recent call last):",
            '  File "script.py", line 5, in <module>',
            "    main()",
            '  File "script.py", line 4, in main',
            "    wait(os.environ['TEXT'])",
            "  (2 calls inside Rain)",
            "rain.TaskException: Task <Task 1/18> failed",
            "Message: Traceback (most recent call last):",
            "  (2 calls inside Rain)",
            '  File "lib/model.py", line 7, in train',
            '    raise ValueError("bad rate")',
            "ValueError: bad rate",
            "",
            "Task failed in executor",
            "",
        ],
    )


LOST = """\
from capnp.lib.capnp import KjException
class Session:
    def __enter__(self):
        return self
    def __exit__(self, *_):
        raise KjException("capnp/rpc.c++:2421: disconnected: Peer disconnected. stack: 7f3b 7f3c")
with Session():
    {body}
"""


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("pass", ["script.py line 6: the script lost its connection to Rain's server and ends here"]),
        ("raise ValueError('mine')", ["Traceback (most recent call last):", "ValueError: mine"]),
    ],
)
def test_a_lost_server_is_one_line_and_hides_no_other_exception(
    python: NodePython, body: str, told: list[str]
) -> None:
    package = python.packages / "capnp" / "lib"
    package.mkdir(parents=True, exist_ok=True)
    (package / "capnp.py").write_text("class KjException(Exception): pass\n")
    run = python.run_dir(f"lost {body}")
    lines = python.run(LOST.format(body=body), run).stderr.splitlines()
    assert [lines[0], lines[-1]] == [told[0], told[-1]]
    assert ("Peer" in "".join(lines), len(lines) == 1) == (False, body == "pass")


def test_an_exception_without_rain_stays_whole(python: NodePython) -> None:
    script = "import json\ntry:\n json.loads('{')\nexcept ValueError as e:\n raise KeyError('x') from e\n"
    plain = python.run(script).stderr
    done = python.run(script, python.run_dir("plain"))
    assert done.stderr == plain.replace(f"{python.home / 'files'}/", "")
    assert "direct cause" in done.stderr


@pytest.mark.parametrize("line", ["    text = ", "    inside, hidden ="])
def test_where_folding_fails_python_shows_the_exception(python: NodePython, line: str) -> None:
    script, run = "raise ValueError('mine')", python.run_dir(f"broken {line}")
    site = python.broken_site("tracebacks.py", line)
    done = python.run(script, run, RAIN_DEPLOY_COMPANION=site)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "ValueError: mine")
    assert FAULT in (run / "companion" / "faults.log").read_text()


def test_a_script_with_a_hook_of_its_own_keeps_it(python: NodePython, tmp_path: Path) -> None:
    script = "import sys\nsys.excepthook = lambda *_: print('own')\nraise ValueError"
    done = python.run(script, python.run_dir(tmp_path.name))
    assert (done.stdout, done.stderr) == ("own\n", "")
