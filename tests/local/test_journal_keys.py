"""Keys of real Rain's tasks, computed without a server.  Each script runs in a process of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.local.command_line import LocalCluster
from tests.local.conftest import Installation
from tests.unit.companion_python import NodePython

START = """\
import abc, collections, dataclasses, enum, functools, os, pathlib, random, sys, time
from rain.client import Input, Output, OutputDir, Program, blob, directory, pickled, remote, tasks
from rain.client.data import DataObject
from rain.client.session import Session
from rain.client.task import Task
session = Session(client=None, session_id=1)
session.__enter__()
"""
END = """
import hashlib, json
sys.path.append(os.environ["RAIN_DEPLOY_COMPANION"])
from rain_deploy_companion.journal.keys import Keys
keys = Keys(os.environ.get("SWEEP", "sweep"), os.getcwd())
found = keys.of_tasks(session._tasks)
keyed = [(t.name, found[t.id]) for t in session._tasks]
found = [[name, getattr(key, "hex", None), getattr(key, "reason", None)] for name, key in keyed]
print(json.dumps({"found": found, "read": keys._pickles.read}))
"""

HELPER = """
def helper(x):
    return x * SCALE + len(os.listdir(HERE))
"""
KINDS = """\
import numpy as np

SCALE = 3
HERE = os.path.dirname(__file__)
#HELPER
class Base(abc.ABC):
    @abc.abstractmethod
    def go(self): ...

class Model(Base):
    __slots__ = ("depth",)
    kinds = {"one", "two", "three"}
    def __init__(self, depth):
        self.depth = depth
    def go(self):
        return helper(self.depth) in {"a", "b", "c"}

@dataclasses.dataclass(frozen=True)
class Point:
    x: int = 1
    more: list = dataclasses.field(default_factory=list)

class Colour(enum.Enum):
    RED = 1
    BLUE = 2

Pair = collections.namedtuple("Pair", "left right")

def made(factor):
    def inner(ctx, x):
        return str(x * factor)
    return inner

@remote()
def run(ctx, x, *more, y=1, **options):
    return str(helper(x)) + __file__ + str([Model(x), Point(x), Colour.RED, Pair(1, 2)])

@remote()
def typed(ctx, data: Input(load=True)) -> (Output(encode="pickle"),):
    return os.path.join(HERE, "x")

@remote(outputs=2)
def two(ctx, x):
    return {"out0": "", "out1": os.path.abspath("data.csv")}

closure = remote()(made(4))
small = remote()(lambda ctx, x: str(x + SCALE))
ARGUMENTS = {
    "int": 1, "text": "adam", "none": None, "set": {"a", "b", "ccc"}, "frozen": frozenset({"q", "r"}),
    "array": np.arange(6).reshape(2, 3).T, "partial": functools.partial(helper, 3),
    "lambda": lambda z: z + SCALE, "instance": Model(3), "dataclass": Point(2, [1]), "enum": Colour.BLUE,
    "pair": Pair(1, "x"), "class": Model, "bound": Model(1).go,
    "abspath": os.path.abspath("data.csv"), "file": __file__, "bytes": os.fsencode(HERE),
    "path": pathlib.Path(__file__).resolve().parent / "data.csv",
    "paths": [pathlib.Path("a/b"), pathlib.Path.cwd()],
    "deep": {"a": [Point(1), (Colour.RED, [Point(1)])]}, "random": random.Random(1),
}
for name, value in ARGUMENTS.items():
    run(value, name=name)
first = run(1, 2, 3, y=4, z=[5], name="first")
typed(blob("x"), name="typed")
pair = two(1, name="two")
closure(2, name="closure")
small(2, name="small")
run([blob("q"), {"k": first, "l": pair.outputs[1]}], blob("r"), name="objects")
run(pickled([Point(3), HERE]), name="pickled")
run(directory("d"), name="directory")
tasks.Execute(["cat", first, os.path.abspath("d/1")], stdin=pair.outputs[0], stdout=True, name="execute")
concat = tasks.Concat([first, pair.outputs[1]], name="concat")
tasks.Execute(["cat", concat, Output("o")], input_paths=[Input("in", dataobj=first), directory("d")],
    output_paths=["p"], name="unlabelled")
tasks.Execute(["cat", concat, "|", "wc"], shell=True, stdout="n", name="shell")
Program(["cat", Input("given")], stdout=True)(given=concat, name="program")
tasks.Sleep(first, 0.5, name="sleep")
tasks.Load(os.path.abspath("data.csv"), name="load")
tasks.MakeDirectory({"x": first, "y": concat}, name="make")
tasks.SliceDirectory(directory("d"), "1", name="slice")
"""


@pytest.fixture(scope="module")
def node(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> NodePython:
    return NodePython.of(tmp_path_factory.mktemp("keys"), installation.env)


class Found(dict[str, list[str]]):
    """The keys of tasks by their names, or the doubts; ``read`` says how many pickles were read op by op."""

    read: int = 0


def _keys(node: NodePython, run: str, script: str, **variables: str) -> Found:
    """Run a script, in a process that shares nothing with another."""
    return _found(_run(node, run, START + script + END, variables)[0])


def _run(node: NodePython, run: str, text: str, variables: dict[str, str]) -> list[str]:
    place = node.run_dir(run)
    (place / "files" / "d").mkdir(parents=True, exist_ok=True)
    (place / "files" / "d" / "1").write_text("one")
    (place / "files" / "d" / "2").write_text("two")
    (place / "files" / "data.csv").write_text("1")
    done = node.run(text, place, **{"PYTHONHASHSEED": "0", "RAIN_DEPLOY_SCRIPT": "", **variables})
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def _found(line: str) -> Found:
    answer = json.loads(line)
    found = Found()
    for name, key, reason in answer["found"]:
        found.setdefault(name, []).append(key or f"doubt: {reason}")
    found.read = answer["read"]
    return found


FORKS = """
import json
globals_of_script = {"__name__": "__main__", "__package__": None, "__file__": __file__}
for text in json.load(open("scripts.json")):
    sys.stdout.flush()
    if pid := os.fork():
        assert os.waitpid(pid, 0)[1] == 0
    else:
        exec(compile(text, "script.py", "exec"), dict(globals_of_script))
        sys.stdout.flush()
        os._exit(0)
"""


def _forked(node: NodePython, run: str, scripts: list[str]) -> list[Found]:
    """Run scripts in processes that have imported Rain already: for keys that shall not be equal."""
    place = node.run_dir(run) / "files"
    place.mkdir(exist_ok=True)
    (place / "scripts.json").write_text(json.dumps([START + script + END for script in scripts]))
    return [_found(line) for line in _run(node, run, START + FORKS, {})]


def _changed(before: Found, after: Found) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def test_equal_tasks_have_equal_keys_in_every_run_directory_and_whatever_moved(node: NodePython) -> None:
    one = _keys(node, "a", KINDS.replace("#HELPER", HELPER))
    assert all(len(key) == 64 for keys in one.values() for key in keys)
    assert len({key for keys in one.values() for key in keys}) == len(one) > 30
    commented = HELPER.replace("    return", "    # why\n\n    return")
    moved = KINDS.replace("#HELPER", "# a comment\n").replace("closure =", f"{commented}\nclosure =")
    os.utime(node.run_dir("a") / "files" / "d" / "1", (1, 1))
    other = _keys(node, "much/longer-than-that/b", f"import xml.dom.minidom\n# moved\n\n{moved}")
    assert _changed(one, other) == set()
    assert one.read > 10


BASE = """\
import helpers
import concurrent.futures
RATE = 0.1
UNUSED = 1

def shared(x):
    return x + RATE

def lonely(x):
    return x

class Model:
    size = 3

@remote()
def uses(ctx, x, y=2):
    return str(shared(x))

@remote()
def alone(ctx, x):
    return str(lonely(x))

@remote()
def classy(ctx, x):
    return str(Model.size)

a = uses(1, name="uses")
uses(5, name="again")
alone(1, name="alone")
classy(1, name="classy")
alone(a, name="after")
tasks.Execute(["echo", "x"], stdout=True, name="execute")
"""
CHANGES = {
    "a comment": ("RATE = 0.1", "# comment\nRATE = 0.1  # more", set()),
    "an unused global": ("UNUSED = 1", "UNUSED = 2", set()),
    "a global": ("RATE = 0.1", "RATE = 0.2", {"uses", "again", "after"}),
    "a helper": ("return x + RATE", "return x - RATE", {"uses", "again", "after"}),
    "another helper": (
        "def lonely(x):\n    return x",
        "def lonely(x):\n    return x + 1",
        {"alone", "after"},
    ),
    "a default": ("y=2", "y=3", {"uses", "again", "after"}),
    "a body": ("return str(Model.size)", "return str(Model.size + 1)", {"classy"}),
    "a class": ("size = 3", "size = 4", {"classy"}),
    "an argument": ("uses(5,", "uses(6,", {"again"}),
    "an argument's type": ("uses(5,", "uses(5.0,", {"again"}),
    "an argument's name": ("uses(5,", "uses(x=5,", {"again"}),
    "a chain": ("a = uses(1,", "a = uses(2,", {"uses", "after"}),
    "a program": ('"echo", "x"', '"echo", "y"', {"execute"}),
    "resources": ('stdout=True, name="execute"', 'stdout=True, name="execute", cpus=2', {"execute"}),
    "the same in other words": ("a = uses(1,", "a = uses(2 - 1,", set()),
    "moved imports": (
        "import helpers\nimport concurrent.futures",
        "import concurrent.futures\nimport helpers",
        set(),
    ),
    "another task before": ("a = uses", 'alone(77, name="classy")\na = uses', {"classy"}),
}


def test_a_change_changes_the_keys_of_those_that_use_it_and_no_others(node: NodePython) -> None:
    (node.run_dir("base") / "files").mkdir()
    (node.run_dir("base") / "files" / "helpers.py").write_text("")
    assert all(BASE.count(before) == 1 for before, _after, _changes in CHANGES.values())
    scripts = [BASE.replace(before, after) for before, after, _changes in CHANGES.values()]
    base, *found = _forked(node, "base", [BASE, *scripts])
    changed = {change: _changed(base, after) for change, after in zip(CHANGES, found, strict=True)}
    assert changed == {change: expected for change, (_before, _after, expected) in CHANGES.items()}
    assert _changed(base, _keys(node, "base", BASE)) == set()
    assert _changed(base, _keys(node, "base", BASE, SWEEP="another")) == set(base)


EQUAL = """\
@remote()
def f(ctx, x):
    return str(x)
for _ in range(5):
    f(1, name="equal")
f(random.random(), name="random")
f(time.time_ns(), name="time")
f(object(), name="object")
tasks.Concat([f(random.random(), name="chance")], name="after")
task = f(2, name="user")
task.spec.user = {"a": __USER__}
f(3, name="other")
"""


def test_equal_calls_have_keys_of_their_own_and_chance_gives_other_keys(node: NodePython) -> None:
    one, two = (_keys(node, "equal", EQUAL.replace("__USER__", user)) for user in ("1", "2"))
    assert len(set(one["equal"])) == 5
    assert _changed(one, two) == {"random", "time", "chance", "after", "user"}


DOUBTS = """\
@remote()
def f(ctx, x):
    return str(x)
tasks.Store(blob("x"), "/tmp/x", name="store")
used = DataObject("o")
Task([], [used], task_type="own/x", name="fresh")
Task([], [used], task_type="own/x", name="twice")
Task([], [blob("x")], task_type="own/x", name="constant")
unknown = DataObject("u")
f(unknown, name="unknown")
tasks.Concat([session._tasks[-1]], name="after")
Task([], [Output("o")], task_type="own/x", config={"odd": {1, 2}}, name="odd")
f(1, name="good")
"""


def test_a_doubtful_task_has_a_sentence_instead_of_a_key(node: NodePython) -> None:
    found = {name: keys[0] for name, keys in _keys(node, "doubts", DOUBTS).items()}
    assert len(found.pop("fresh")) == len(found.pop("good")) == 64
    exists = "doubt: Its output is an object that exists already."
    unknown = "It uses an object that no earlier task made."
    assert found == {
        "store": "doubt: ",
        "twice": exists,
        "constant": exists,
        "unknown": f"doubt: It needs the result of a task that has no key. {unknown}",
        "after": f"doubt: It needs the result of a task that has no key. {unknown}",
        "odd": "doubt: Its key cannot be computed (TypeError: Object of type set is not JSON serializable).",
    }


MANY = """\
@remote()
def f(ctx, x, rate=0.5, kind="adam"):
    return str(x)
for i in range(3_000):
    f(i, rate=i / 7, kind="adam")
"""


def test_scalars_are_not_read_op_by_op(node: NodePython) -> None:
    found = _keys(node, "many", MANY)
    assert len(set(found["f"])) == 3_000
    assert found.read == 1  # the function


PLAIN = """\
import hashlib
class Odd:
    dumps = 0
    def __getstate__(self):
        Odd.dumps += 1
        return {"dumps": Odd.dumps}
@remote()
def f(ctx, x, y):
    return str(x)
before = Odd()
f([blob("x"), before], {"b": [blob("y"), Path]}, name="f") if (Path := pathlib.Path.cwd()) else None
"""


def test_nothing_of_the_user_runs_and_what_rain_sends_stays_as_it_is(node: NodePython) -> None:
    check = """
from rain.client import pycode
sent = [json.dumps(t.spec._to_json()) for t in session._tasks], [o._data for o in session._dataobjs]
keys.of_tasks(session._tasks)
assert sent == ([json.dumps(t.spec._to_json()) for t in session._tasks], [o._data for o in session._dataobjs])
assert Odd.dumps == 1 and pycode._global_pickle_inputs is None
"""
    place = node.run_dir("plain")
    (place / "files" / "d").mkdir(parents=True, exist_ok=True)
    done = node.run(START + PLAIN + END + check, place, PYTHONHASHSEED="0", RAIN_DEPLOY_SCRIPT="")
    assert done.returncode == 0, done.stderr


def _printed(cluster: LocalCluster, *arguments: str) -> str:
    return (cluster.run(*arguments) / "stdout.log").read_text().strip()


def test_a_script_gets_the_id_of_its_sweep(shared: LocalCluster, tmp_path: Path) -> None:
    script, helper = tmp_path / "sweep.py", tmp_path / "of_sweep.py"
    helper.write_text("A = 1")
    text = "import os\nimport of_sweep\nprint(os.environ['RAIN_DEPLOY_SWEEP'])\n"
    script.write_text(text)
    first = _printed(shared, "sweep.py")
    script.write_text(f"# edited\n{text}")
    assert _printed(shared, "sweep.py", "--grid", "2") == first
    assert len({first, *(_printed(shared, "--env", f"A={a}", "sweep.py") for a in "12")}) == 3
    helper.write_text("A = 2")
    assert _printed(shared, "sweep.py") != first
    assert _printed(shared, "--no-companion", "sweep.py") == ""
    assert all(first not in path.read_text() for path in shared.directory.glob("runs/*/run.json"))
