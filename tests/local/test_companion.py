"""The companion in scripts that run on real Rain: what it notes, and that nothing else is different."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.local.conftest import Installation
from tests.local.rained_on import RainedOn, rained_on
from tests.support.network import WORKER
from tests.unit.companion_python import FAULT

ADDRESS = f"127.103.{WORKER}.1"
EXAMPLES = Path(__file__).parents[2] / "examples"

SCRIPT = """\
import numpy as np
from rain.client import Client, blob, remote, tasks

@remote(auto_encode="pickle")
def scaled(ctx, a, rate=0.5, *more, **options):
    return a * rate

@remote(auto_encode="pickle")
def shaped(ctx, data, size, note="small"):
    return np.array(size) if size > 2 else {"size": size}

class Own:
    def __reduce__(self):
        return (print, ("opened in the script's process",))

with Client("localhost", 7210).new_session("s") as session:
    shown = [scaled(3, name="n"), scaled(np.float64(2), np.float32(0.25), 7, mode="fast", deep=[1]),
             shaped(blob("data"), np.int64(4)), shaped("x" * 1000, 1, note=None), scaled(float("inf"), True),
             tasks.Execute("echo 42", stdout=True), tasks.Execute("echo 4 2", stdout=True)]
    unseen = shaped(Own(), 5)
    for task in shown:
        task.output.keep()
    session.submit()
    for task in shown[:5]:
        instance = task.output.fetch()
        print(instance.load(), instance.load())
    for task in shown[5:]:
        print(task.output.fetch().get_str())
    try:
        unseen.output.fetch()
    except Exception as error:
        print(error)
"""

PARAMETERS = [
    ({"a": 3, "rate": 0.5}, True),
    ({"a": 2.0, "rate": 0.25, "more[0]": 7, "mode": "fast"}, True),
    ({"size": 4, "note": "small"}, True),
    ({"size": 1}, True),
    ({"a": float("inf"), "rate": True}, True),
    ({}, True),
    ({}, True),
    ({"size": 5, "note": "small"}, False),
]

BREAKS = {
    "at the hook of an import": ("__init__.py", "                        _hook_after_loading("),
    "at the import of points": ("points.py", "NUMPY ="),
    "at the import of the journal": ("journal/sending.py", "BATCH_BYTES ="),
    "at hooking Rain": ("journal/session.py", "    run_dir = Path("),
    "at looking for kept results": ("journal/keyed.py", "    found = keys.of_tasks("),
    "at watching tasks": ("journal/sending.py", "    outputs = [\n"),
    "at trying what tasks may do": ("journal/wishes.py", "        from .. import executor"),
    "at deciding which failures end the session": ("journal/wishes.py", "    soft: set[Any] = set()"),
    "at deciding what to run": ("journal/session.py", "        hits, withheld = decided("),
    "at deciding what tasks may do": ("journal/wishes.py", "            python = ["),
    "at holding tasks back": ("journal/alone.py", "        others, held, names ="),
    "at noting tasks": ("points.py", "    functions = {"),
    "at reading arguments": ("points.py", '    if task.spec.task_type != "py/":'),
    "at hooking load": ("points.py", "    method = getattr("),
    "at noting a value": ("points.py", "        task = _producers.pop("),
    "at writing": ("__init__.py", "    descriptor = os.open"),
}


@pytest.fixture(scope="module")
def rain(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RainedOn]:
    with rained_on(installation, tmp_path_factory.mktemp("rain")) as rain:
        yield rain


@pytest.fixture(scope="module")
def plain(rain: RainedOn) -> subprocess.CompletedProcess[str]:
    """The script without a companion."""
    done = rain.run(SCRIPT, None)
    assert done.returncode == 0, done.stderr
    return done


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_parameters_and_loaded_numbers_are_noted_and_the_output_is_the_same(
    rain: RainedOn, plain: subprocess.CompletedProcess[str]
) -> None:
    run = rain.python.run_dir("points")
    done = rain.run(SCRIPT, run)
    assert (done.returncode, _without_ids(done.stdout), done.stderr) == (0, _without_ids(plain.stdout), "")
    tasks = _lines(run / "companion" / "tasks.jsonl")
    assert [(task["parameters"], task["kept"]) for task in tasks] == PARAMETERS
    values = _lines(run / "companion" / "values.jsonl")
    order = [task["task"] for task in tasks]
    noted = [(order.index(note["task"]), note.get("value", note.get("values"))) for note in values]
    assert noted == [(0, 1.5), (1, 0.5), (2, 4), (3, {"size": 1}), (4, float("inf")), (5, 42), (6, "4 2")]
    assert {line["session"] for line in tasks + values} == {tasks[0]["session"]}
    assert not (run / "companion" / "faults.log").exists()


RETURNS = """\
import json
import numpy as np
from rain.client import Client, remote

@remote(auto_encode="pickle")
def fitted(ctx, kind):
    return {
        "dict": {"acc": np.float32(0.5), "loss": float("nan"), "model": object(), "note": "ok"},
        "tuple": (0.25, 3),
        "list": [1.5, "text"],
        "data": list(range(1000)),
    }[kind]

@remote()
def said(ctx):
    return json.dumps({"acc": 0.75})

with Client("localhost", 7210).new_session("s") as session:
    shown = [fitted(kind) for kind in ("dict", "tuple", "list", "data")] + [said()]
    for task in shown:
        task.output.keep()
    session.submit()
    for task in shown[:4]:
        task.output.fetch().load()
    shown[4].output.fetch().get_str()
"""


def test_values_of_dicts_tuples_and_lists_are_noted_by_name(rain: RainedOn) -> None:
    run = rain.python.run_dir("returns")
    done = rain.run(RETURNS, run)
    assert (done.returncode, done.stderr) == (0, "")
    noted = [note["values"] for note in _lines(run / "companion" / "values.jsonl")]
    assert str(noted) == str(
        [
            {"acc": 0.5, "loss": float("nan"), "note": "ok"},
            {"value_0": 0.25, "value_1": 3},
            {"value_0": 1.5, "value_1": "text"},
            {"acc": 0.75},
        ]
    )
    assert not (run / "companion" / "faults.log").exists()


@pytest.mark.parametrize("break_", BREAKS)
def test_a_fault_changes_nothing_for_the_script_and_is_noted(
    rain: RainedOn, plain: subprocess.CompletedProcess[str], break_: str
) -> None:
    run = rain.python.run_dir(break_)
    module, line = BREAKS[break_]
    done = rain.run(SCRIPT, run, RAIN_DEPLOY_COMPANION=rain.python.broken_site(module, line))
    assert (done.returncode, _without_ids(done.stdout), done.stderr) == (0, _without_ids(plain.stdout), "")
    noted = run / "companion" / "faults.log"
    assert (FAULT in noted.read_text()) if break_ != "at writing" else not noted.exists()


def _without_ids(text: str) -> str:
    """Rain numbers the sessions of a server; its messages have the number in them."""
    return "\n".join(line.partition(" id=")[0] for line in text.splitlines())


@pytest.mark.parametrize("companion", [False, True])
def test_external_programs_print_the_same_with_and_without(rain: RainedOn, *, companion: bool) -> None:
    run = rain.python.run_dir("execute") if companion else None
    example = EXAMPLES / "execute.py"
    done = rain.run(f"import runpy\nrunpy.run_path({str(example)!r})\n", run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "rain   5 times in 4 lines\nriver  3 times in 3 lines\nroad   3 times in 3 lines\n"
        "wheel  2 times in 2 lines\nsnow   0 times in 0 lines\n\nLines with any of them:\n1:The rain began"
    )
    if run:
        assert [line["value"] for line in _lines(run / "companion" / "values.jsonl")] == [5, 3, 3, 2, 0]


THREADS = """\
import os
import tensorflow as tf
if wanted := int(os.environ["OWN_SETTING"]):
    tf.config.threading.set_intra_op_parallelism_threads(wanted)
x = tf.random.normal((300, 300))
tf.function(lambda a: tf.reduce_sum(tf.matmul(a, a)))(x)
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.tensorflow
@pytest.mark.slow
def test_tensorflow_obeys_the_limits_of_its_environment_and_the_users_own_setting_wins(
    rain: RainedOn,
) -> None:
    def threads(in_environment: int, own: int) -> int:
        inter = {"OMP_NUM_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OWN_SETTING": str(own)}
        return int(rain.run(THREADS, None, TF_NUM_INTRAOP_THREADS=str(in_environment), **inter).stdout)

    limited = threads(1, own=0)
    assert threads(9, own=0) == limited + 8
    assert threads(1, own=9) == limited + 8
