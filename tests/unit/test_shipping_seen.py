"""What goes along beside literal paths, what is seen and stays, and which modules the nodes must have."""

from __future__ import annotations

from pathlib import Path

import pytest

from rain_deploy.core.run import Shipment, Unsent
from rain_deploy.core.spec import FunctionScript, RunSpec
from rain_deploy.runs.shipping import collect
from tests.unit.project_files import HOME, lay, names, of, runs


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tmp_path / "project"


@pytest.mark.parametrize(
    "args", [("--config", "configs/a.json"), ("--config=configs/a.json",), ("configs/a.json", "4")]
)
def test_a_file_that_an_argument_names_goes_along(project: Path, args: tuple[str, ...]) -> None:
    lay(project, {"main.py": "", "configs/a.json": "{}", "configs/b.json": "{}"})
    assert names(with_arguments(project, *args)) == ["configs/a.json", "main.py"]


def test_an_argument_outside_the_directory_keeps_its_place(project: Path, tmp_path: Path) -> None:
    lay(tmp_path, {"shared/a.json": "{}"})
    lay(project, {"main.py": ""})
    assert names(with_arguments(project, "../shared/a.json")) == ["project/main.py", "shared/a.json"]


def test_an_argument_that_cannot_go_as_it_is_is_reported(project: Path, tmp_path: Path) -> None:
    lay(tmp_path, {"far.json": ""})
    lay(project, {"main.py": "", "a.json": "", "data/1.csv": "12", "data/deep/2.csv": "3"})
    shipment = with_arguments(project, str(project / "a.json"), str(tmp_path / "far.json"), "data", "5", "")
    near, far = shipment.missing
    assert (f"{project}/a.json has another path" in near, "write a.json" in near) == (True, True)
    assert (f"{tmp_path}/far.json" in far, "copy it here" in far) == (True, True)
    assert shipment.unsent == (Unsent("data/", 2, 3, "data"),)
    assert names(shipment) == ["main.py"]


def with_arguments(project: Path, *args: str) -> Shipment:
    return collect(RunSpec(Path("main.py"), args=args), project, HOME)


PATTERNS = [
    "open(f'data/{n}.csv')",
    "open('data/%d.csv' % n)",
    "open('data/{:d}.csv'.format(n))",
    "open('data/' + str(n) + '.csv')",
    "open(f'{D}/{n}.csv')",
    "import os\nos.path.join('data', 'x')\nopen(os.path.join(D, f'{n}.csv'))",
]


@pytest.mark.parametrize("text", PATTERNS)
def test_files_whose_names_are_made_at_run_time_are_seen(project: Path, text: str) -> None:
    lay(
        project, {"main.py": f"D = 'data'\nn = 1\n{text}", "data/1.csv": "1", "data/2.csv": "2", "other": "x"}
    )
    shipment = of(project, "main.py")
    assert names(shipment) == ["main.py"]
    (unsent,) = shipment.unsent
    assert (unsent.files, unsent.flag) == (2, "data")
    assert of(project, "main.py", "data").unsent == ()


@pytest.mark.parametrize(
    "text", ["open(f'out/{n}.csv', 'w')", "f'{n}'", "open(f'{n}{n}')", "open(f'no/{n}.csv')"]
)
def test_a_text_that_is_no_input_is_not_seen(project: Path, text: str) -> None:
    lay(project, {"main.py": f"n = 1\n{text}", "1.csv": ""})
    shipment = of(project, "main.py")
    assert (names(shipment), shipment.unsent, shipment.missing) == (["main.py"], (), ())


@pytest.mark.parametrize("text", ["open(f'{D}/1.csv')", "open(D + '/1.csv')", "D2 = f'{D}/1.csv'\nopen(D2)"])
def test_a_text_that_is_always_the_same_is_a_path(project: Path, text: str) -> None:
    lay(project, {"main.py": f"D = 'data'\n{text}", "data/1.csv": ""})
    assert names(of(project, "main.py")) == ["data/1.csv", "main.py"]


def test_a_file_of_results_goes_along_if_it_is_read(project: Path) -> None:
    lay(project, {"main.py": "open('results/x.csv')", "results/x.csv": "1", "results/big": "123"})
    shipment = of(project, "main.py")
    assert names(shipment) == ["main.py", "results/x.csv"]
    lay(project, {"main.py": "import os\nos.listdir('results')"})
    assert of(project, "main.py").unsent == (Unsent("results/", 2, 4, "results"),)


def test_what_is_never_sent_is_not_counted_and_a_large_directory_is_not_read_to_its_end(
    project: Path,
) -> None:
    lay(project, {"main.py": "import os\nos.listdir('data')", "data/.git/x": "1", "data/home/x": "1"})
    lay(project, {"data/a/__pycache__/x": "1"})
    spec = RunSpec(Path("main.py"))
    assert collect(spec, project, project / "data/home").unsent == ()
    for number in range(10_000):
        (project / f"data/{number}").touch()
    (unsent,) = collect(spec, project, project / "data/home").unsent
    assert (unsent.files, unsent.more) == (10_000, True)


SEARCHED = [
    "sys.path.append(str(Path(__file__).resolve().parents[1]))",
    "sys.path += [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]",
    "sys.path.extend(['..'])",
    "import site\nsite.addsitedir('..')",
]


@pytest.mark.parametrize("text", SEARCHED)
def test_a_module_above_the_script_is_found(project: Path, tmp_path: Path, text: str) -> None:
    start = "import os, sys\nfrom pathlib import Path\n"
    lay(project, {"src/main.py": f"{start}{text}\nimport helper\nprint('fine')", "helper.py": ""})
    shipment = of(project / "src", "main.py")
    assert names(shipment) == ["helper.py", "src/main.py"]
    assert runs(shipment, tmp_path / "node") == "fine\n"


NEEDED = {
    "always": ("import tqdm", "", {("tqdm", "main.py, line 1", True)}),
    "from": ("import os\nfrom tqdm.auto import x", "", {("tqdm", "main.py, line 2", True)}),
    "in a function": ("def f():\n    import tqdm", "", {("tqdm", "main.py, line 2", False)}),
    "if": ("if 1:\n    import tqdm", "", {("tqdm", "main.py, line 2", False)}),
    "guarded": ("try:\n    import tqdm\nexcept ImportError:\n    import notqdm", "", set()),
    "for types": ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import tqdm", "", set()),
    "of a helper": ("import helper", "import tqdm", {("tqdm", "helper.py, line 1", True)}),
    "of a helper in a function": (
        ("def f():\n    import helper"),
        "import tqdm",
        {("tqdm", "helper.py, line 1", False)},
    ),
    "twice": ("def f(): import tqdm\nimport tqdm", "", {("tqdm", "main.py, line 2", True)}),
    "of a helper, by another": (
        "def f(): import helper\nimport other",
        "import tqdm",
        {("tqdm", "helper.py, line 1", True)},
    ),
    "nothing": ("import json, helper, space\nfrom . import x\nfrom __future__ import y", "", set()),
    "a place that is not known": (
        "import sys\nsys.path.append(input())\nimport tqdm",
        "",
        {("tqdm", "main.py, line 3", False)},
    ),
}


@pytest.mark.parametrize("what", NEEDED)
def test_modules_that_must_come_from_the_environment(project: Path, what: str) -> None:
    text, helper, expected = NEEDED[what]
    lay(project, {"main.py": text, "helper.py": helper, "other.py": "import helper", "space/x.txt": ""})
    found = {(one.name, one.where, one.sure) for one in of(project, "main.py").imports}
    assert found == expected


def test_where_else_python_looks_nothing_is_sure(project: Path) -> None:
    lay(project, {"main.py": "import tqdm"})
    spec = RunSpec(Path("main.py"), env=(("PYTHONPATH", "/opt/x"),))
    assert [one.sure for one in collect(spec, project, HOME).imports] == [False]


def test_the_imports_around_a_function_are_not_executed_on_the_nodes(project: Path) -> None:
    lay(project, {"mine.py": "import rain_deploy, helper\ndef f(): import tqdm", "helper.py": "import yaml"})
    spec = RunSpec(project / "f-function.py", function=FunctionScript(b"", project / "mine.py"))
    found = {(one.name, one.sure) for one in collect(spec, project, HOME).imports}
    assert found == {("tqdm", False), ("yaml", False)}


def test_a_long_sum_of_texts_is_read(project: Path) -> None:
    lay(project, {"main.py": "x = " + " + ".join(["'a'"] * 400)})
    assert names(of(project, "main.py")) == ["main.py"]
