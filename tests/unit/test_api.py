"""The Python API without a cluster: what an import costs, what is refused, and what is sent of a function."""

from __future__ import annotations

import ast
import functools
import importlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest

import rain_deploy
from rain_deploy.api.call import settings_of
from rain_deploy.api.calls import ClusterKeywords, Common, RunKeywords, SweepKeywords
from rain_deploy.api.function import function_script
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.machine import Host
from rain_deploy.core.spec import FunctionScript, RunSpec
from rain_deploy.runs.finish import RunResult
from rain_deploy.runs.shipping import collect
from rain_deploy.state.store import Store

ROOT = Path(__file__).parents[2]
HELPERS = "def twice(x):\n    return 2 * x\n"
SEARCH = """\
import helpers
from pathlib import Path

FACTOR = 10
TABLE = "data/table.txt"


def search(x):
    return {"x": helpers.twice(x) * FACTOR, "table": Path(TABLE).read_text()}
"""


def test_the_import_loads_nothing_else() -> None:
    ask = "import sys; before = set(sys.modules); import rain_deploy; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) - {"__future__"} == {"rain_deploy"}


def test_every_name_of_the_api_is_there_and_no_other() -> None:
    for name in rain_deploy.__all__:
        assert getattr(rain_deploy, name)
    assert set(rain_deploy.__all__) <= set(dir(rain_deploy))
    with pytest.raises(AttributeError, match="upp"):
        rain_deploy.upp  # type: ignore[attr-defined]  # noqa: B018


def test_the_help_of_a_function_lists_its_settings() -> None:
    assert "max_cost: Power the machines off before" in str(rain_deploy.up.__doc__)
    assert "then_off: " in str(rain_deploy.run.__doc__)
    assert "cluster, home, cwd, config, progress, yes, confirm" in str(rain_deploy.sweep.__doc__)
    assert "disk_size: " not in str(rain_deploy.run.__doc__)


@pytest.mark.parametrize(
    ("verb", "keywords"), [("up", ClusterKeywords), ("run", RunKeywords), ("sweep", SweepKeywords)]
)
def test_an_editor_knows_every_setting(verb: str, keywords: type) -> None:
    common = set(Common.__annotations__)
    assert set(keywords.__annotations__) == common | set(settings_of(verb))


def test_the_page_shows_the_example_and_names_only_what_there_is() -> None:
    page = (ROOT / "docs/python.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert blocks[0] == (ROOT / "examples/search.py").read_text("utf-8")
    for block in blocks:
        compile(block, "docs/python.md", "exec")
        assert set(re.findall(r"rain_deploy\.(\w+)", block)) <= set(rain_deploy.__all__)
    functions = {name for name in rain_deploy.__all__ if isinstance(getattr(rain_deploy, name), FunctionType)}
    assert set(re.findall(r"^\| `(\w+)\(", page, flags=re.MULTILINE)) == functions


# ---- keywords


def planned(tmp_path: Path, **keywords: Any) -> rain_deploy.PlanResult:
    """A plan for hosts that nobody connects to."""
    return rain_deploy.plan(provider="hosts", hosts=["a@127.107.0.1"], home=tmp_path, **keywords)


def test_a_plan_is_made_of_keywords_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "packages.txt").write_text("attrs\n")
    seen: list[object] = []
    plan = planned(
        tmp_path, cluster="mine", cwd=tmp_path, requirements=Path("packages.txt"), progress=seen.append
    )
    assert (plan.cluster, plan.provider, len(plan.hosts)) == ("mine", "hosts", 1)
    assert any(isinstance(event, rain_deploy.events.Notice) for event in seen)


def test_the_file_of_the_working_directory_counts_and_keywords_win(tmp_path: Path) -> None:
    (tmp_path / "rain-deploy.toml").write_text('hosts = ["b@127.107.0.2"]\ncpus_per_node = 0\n')
    with pytest.raises(rain_deploy.InputError, match="cpus_per_node"):
        planned(tmp_path, cwd=tmp_path)
    (tmp_path / "rain-deploy.toml").write_text('hosts = ["b@127.107.0.2"]\n')
    assert "127.107.0.1" in planned(tmp_path, cwd=tmp_path).hosts[0].label


@pytest.mark.parametrize(
    ("keywords", "error", "told"),
    [
        ({"max_costs": 3}, rain_deploy.UsageError, "max_cost"),
        ({"env": {"A": "1"}}, rain_deploy.UsageError, "settings: nodes"),
        ({"nodes": "two"}, rain_deploy.InputError, "a whole number"),
        ({"cluster": "No Name"}, rain_deploy.InputError, "lower-case letters"),
        ({"requirements": "none.txt"}, rain_deploy.InputError, "none.txt"),
        ({"cwd": "/nowhere"}, rain_deploy.InputError, "/nowhere"),
        ({"config": "none.toml"}, rain_deploy.InputError, "none.toml"),
    ],
)
def test_a_wrong_keyword_is_refused_with_what_is_right(
    tmp_path: Path, keywords: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error) as caught:
        planned(tmp_path, **keywords)
    assert told in f"{caught.value} {getattr(caught.value, 'next_step', '')}"


def test_a_provider_is_not_assumed_where_nobody_is_asked(tmp_path: Path) -> None:
    with pytest.raises(rain_deploy.UsageError, match="no provider given"):
        rain_deploy.up(home=tmp_path)


def test_an_error_shows_its_next_step_in_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(rain_deploy.InputError) as caught:
        rain_deploy.status(home=tmp_path)
    assert f"next: {caught.value.next_step}" in caught.value.__notes__


# ---- functions


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A directory with a module that imports another and reads a file; ``search`` is imported from it."""
    (tmp_path / "helpers.py").write_text(HELPERS)
    (tmp_path / "search.py").write_text(SEARCH)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/table.txt").write_text("rain")
    sys.path.insert(0, str(tmp_path))
    yield tmp_path
    sys.path.remove(str(tmp_path))
    for name in ("helpers", "search", "package", "package.tools", "package.deep"):
        sys.modules.pop(name, None)


def answer(place: Path, made: FunctionScript, cwd: Path) -> Any:
    """Run a script as a node does, in a directory that holds what was sent and nothing else."""
    shipment = collect(RunSpec(place, function=made), cwd, cwd / "home")
    far = cwd / "node"
    for file in shipment.files:
        path = far / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.source if isinstance(file.source, bytes) else file.source.read_bytes())
    script = far / shipment.script
    subprocess.run([sys.executable, "-I", "-c", _RUN, script], cwd=far, check=True, timeout=60)
    return json.loads(script.with_suffix(".json").read_text())


_RUN = "import runpy, sys; sys.path.insert(0, '.'); runpy.run_path(sys.argv[1], run_name='__main__')"


def test_a_function_goes_with_its_globals_its_modules_and_the_files_it_names(project: Path) -> None:
    search: ModuleType = importlib.import_module("search")
    search.FACTOR = 7  # type: ignore[attr-defined]
    place, made = function_script(search.search, (3,), project)
    assert place == project / "search-function.py"
    assert answer(place, made, project) == {"x": 42, "table": "rain"}


def test_a_function_of_a_package_finds_the_modules_beside_it(project: Path) -> None:
    package = project / "package"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from package import tools\n\n\ndef first():\n    return tools.one()\n"
    )
    (package / "tools.py").write_text("def one():\n    return 1\n")
    (package / "deep.py").write_text("from . import tools\n\n\ndef second():\n    return tools.one() + 1\n")
    for name, function, value in (("package", "first", 1), ("package.deep", "second", 2)):
        place, made = function_script(getattr(importlib.import_module(name), function), (), project)
        assert place.parent == project
        assert answer(place, made, project) == value


def test_a_closure_and_numbers_of_numpy_come_back_as_json(tmp_path: Path) -> None:
    scale = 1.5

    def table(count: int) -> object:
        return {"all": np.arange(count) * scale, "best": np.float32(2)}

    place, made = function_script(functools.partial(table), (3,), tmp_path)
    sent = FunctionScript(made.content, None)  # without this test's own module
    assert answer(tmp_path / place.name, sent, tmp_path) == {"all": [0.0, 1.5, 3.0], "best": 2.0}


@pytest.mark.parametrize(
    "function", [lambda: 1, functools.partial(print, "x"), RunResult], ids=["lambda", "partial", "class"]
)
def test_whatever_can_be_called_has_a_name_for_its_script(
    function: Callable[..., object], tmp_path: Path
) -> None:
    place, _ = function_script(function, (), tmp_path)
    assert place.name in {"lambda-function.py", "print-function.py", "RunResult-function.py"}


def test_a_python_whose_functions_the_nodes_cannot_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(rain_deploy.InputError, match=r"this is Python 3\.13") as caught:
        function_script(print, (), tmp_path, python=(3, 13))
    assert "use Python 3.11 here" in str(caught.value.next_step)


def test_what_cannot_be_pickled_is_refused(tmp_path: Path) -> None:
    lock = threading.Lock()
    with pytest.raises(rain_deploy.InputError, match="cannot pickle") as caught:
        function_script(lambda: lock, (), tmp_path)
    assert "inside the function" in str(caught.value.next_step)


# ---- values


def ended(out: Path, outcome: str = "done", exit_code: int = 0) -> RunResult:
    return RunResult("one", "r1", "finished", outcome, exit_code, out, 1.0)


def test_the_value_of_a_function_is_read_from_its_results(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"run": "r1", "script": "a/search-function.py"}')
    (tmp_path / "files/a").mkdir(parents=True)
    (tmp_path / "files/a/search-function.json").write_text('{"best": 0.9}')
    assert ended(tmp_path).value == {"best": 0.9}


def test_a_run_without_a_value_says_so(tmp_path: Path) -> None:
    with pytest.raises(rain_deploy.InputError, match="has no value here"):
        ended(tmp_path).value  # noqa: B018
    with pytest.raises(rain_deploy.ScriptFailed):
        ended(tmp_path, "failed", 1).value  # noqa: B018


def test_what_a_type_checker_sees_is_what_the_package_offers() -> None:
    tree = ast.parse(Path(rain_deploy.__file__).read_text(encoding="utf-8"))
    (block,) = (each for each in tree.body if isinstance(each, ast.If))
    imports = (each for each in block.body if isinstance(each, ast.ImportFrom))
    assert sorted(name.name for each in imports for name in each.names) == sorted(rain_deploy.__all__)


def test_down_forgets_what_is_named_and_refuses_what_is_not_there(tmp_path: Path) -> None:
    host = Host("node-1", "127.0.0.1", 9, "me", ("ssh-ed25519 AAAA",))
    cluster = Cluster("ab12", "default", "hosts", 0.0, (Node("node-1", host),), base=str(tmp_path / "base"))
    Store(tmp_path).save_cluster(cluster)
    with pytest.raises(rain_deploy.InputError, match="no node-2; it has node-1"):
        rain_deploy.down(home=tmp_path, yes=True, forget=["node-2"])
    with pytest.raises(rain_deploy.UsageError):
        rain_deploy.down(home=tmp_path, forget=["node-1"])
    assert Store(tmp_path).clusters() == (cluster,)
    (left,) = rain_deploy.down(home=tmp_path, yes=True, forget=["node-1"]).forgotten
    assert str(tmp_path / "base/clusters/ab12") in left
    assert Store(tmp_path).clusters() == ()
