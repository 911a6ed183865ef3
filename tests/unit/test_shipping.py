"""What goes along with a script: what it imports and names, at the places where it will look."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from rain_deploy.core.run import Unsent
from rain_deploy.core.spec import RunSpec
from rain_deploy.core.step import PayloadFile
from rain_deploy.errors import InputError
from rain_deploy.runs.shipping import collect, payload
from tests.unit.project_files import lay, names, of, runs


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tmp_path / "project"


IMPORTS = {
    "a module": ("import helper", {"helper.py"}),
    "its module": ("import outer", {"outer.py", "helper.py"}),
    "inside a function": ("def f():\n    import helper\nf()", {"helper.py"}),
    "a package": (
        "import pkg.mod",
        {"pkg/__init__.py", "pkg/mod.py", "pkg/sibling.py", "pkg/deep/__init__.py"},
    ),
    "a name of a package": ("from pkg import deep", {"pkg/__init__.py", "pkg/deep/__init__.py"}),
    "a namespace": ("from space import thing", {"space/thing.py"}),
    "by literal": (
        "import importlib\nimportlib.import_module('pkg.deep')",
        {"pkg/__init__.py", "pkg/deep/__init__.py"},
    ),
    "from sys.path": ("import sys\nsys.path.insert(0, 'lib')\nimport inlib", {"lib/inlib.py"}),
    "from beside the script": (
        (
            "import sys\nfrom os.path import *\n"
            "sys.path.append(join(dirname(abspath(__file__)), 'lib'))\nimport inlib"
        ),
        {"lib/inlib.py"},
    ),
    "the standard library": ("import json, os.path", set[str]()),
    "what is not there": ("try:\n    import missing.module\nexcept ImportError:\n    pass", set[str]()),
}


@pytest.mark.parametrize("what", IMPORTS)
def test_imports_are_followed_and_work_where_they_are_laid(project: Path, tmp_path: Path, what: str) -> None:
    text, expected = IMPORTS[what]
    lay(
        project,
        {
            "main.py": text + "\nprint('fine')",
            "helper.py": "import main",
            "outer.py": "import helper",
            "pkg/__init__.py": "",
            "pkg/mod.py": "from . import sibling\nfrom .deep import name",
            "pkg/sibling.py": "",
            "pkg/deep/__init__.py": "name = 1",
            "space/thing.py": "",
            "lib/inlib.py": "",
            "unused.py": "",
        },
    )
    shipment = of(project, "main.py")
    assert set(names(shipment)) == {"main.py", *expected}
    assert runs(shipment, tmp_path / "node") == "fine\n" * runs_of(text)
    assert shipment.missing == ()


def runs_of(text: str) -> int:
    """The helper imports the script again, under its own name."""
    return 2 if "helper" in text or "outer" in text else 1


FILES = {
    "a literal": "open('data/a.csv')",
    "joined": "import os\nopen(os.path.join('data', 'a.csv'))",
    "a path": "from pathlib import Path\n(Path('data') / 'a.csv').open()",
    "through names": "from pathlib import Path\nDATA = Path('data')\nopen(DATA / 'a.csv')",
    "beside the script": "from pathlib import Path\n"
    "HERE = Path(__file__).resolve().parent\nopen(HERE / 'data' / 'a.csv')",
    "os.path of the script": "import os\nopen(os.path.join(os.path.dirname(__file__), 'data', 'a.csv'))",
    "an argument of anything": "class x:\n    @staticmethod\n    def f(name): open(name)\nx.f('data/a.csv')",
}


@pytest.mark.parametrize("what", FILES)
def test_files_that_are_named_go_along(project: Path, tmp_path: Path, what: str) -> None:
    lay(project, {"main.py": FILES[what], "data/a.csv": "1", "data/b.csv": "2"})
    shipment = of(project, "main.py")
    assert names(shipment) == ["data/a.csv", "main.py"]
    assert runs(shipment, tmp_path / "node") == ""


def test_a_file_that_a_module_names_goes_along(project: Path) -> None:
    lay(project, {"main.py": "import helper", "helper.py": "NAME = 'table.txt'", "table.txt": ""})
    assert "table.txt" in names(of(project, "main.py"))


def test_started_from_above_files_are_found_from_both_places(project: Path) -> None:
    lay(
        project,
        {"src/main.py": "'near.csv', 'top.csv'\nimport helper", "src/helper.py": "", "src/near.csv": ""},
    )
    lay(project, {"top.csv": ""})
    shipment = of(project, "src/main.py")
    assert (shipment.root, shipment.cwd, shipment.script) == (project, ".", "src/main.py")
    assert names(shipment) == ["src/helper.py", "src/main.py", "src/near.csv", "top.csv"]


def test_started_from_elsewhere_all_keep_their_places(project: Path, tmp_path: Path) -> None:
    lay(project, {"main.py": "import helper\nprint(open('here.txt').read())", "helper.py": ""})
    lay(tmp_path / "elsewhere", {"here.txt": "text"})
    shipment = of(project, "../project/main.py", cwd=tmp_path / "elsewhere")
    assert (shipment.root, shipment.cwd, shipment.script) == (tmp_path, "elsewhere", "project/main.py")
    assert runs(shipment, tmp_path / "node") == "text\n"


def test_a_file_above_lifts_the_root_and_not_what_is_shipped(project: Path, tmp_path: Path) -> None:
    lay(tmp_path, {"shared/x.txt": "text", "secret.txt": "no"})
    lay(project, {"main.py": "print(open('../shared/x.txt').read())"})
    shipment = of(project, "main.py")
    assert (shipment.root, shipment.cwd) == (tmp_path, "project")
    assert names(shipment) == ["project/main.py", "shared/x.txt"]
    assert runs(shipment, tmp_path / "node") == "text\n"


def test_a_linked_script_brings_what_lies_beside_it(project: Path, tmp_path: Path) -> None:
    lay(project, {"src/main.py": "import helper", "src/helper.py": ""})
    (project / "main.py").symlink_to("src/main.py")
    shipment = of(project, "main.py")
    assert names(shipment) == ["src/helper.py", "src/main.py"]
    assert runs(shipment, tmp_path / "node") == ""


def test_directories_that_the_script_writes_to_are_made(project: Path, tmp_path: Path) -> None:
    lay(project, {"main.py": "open('out/new.txt', 'w').close()", "out/old.txt": "", "results/r1/x": ""})
    shipment = of(project, "main.py")
    assert names(shipment) == ["main.py"]
    assert "out" in shipment.directories
    assert shipment.missing == ()
    assert runs(shipment, tmp_path / "node") == ""


def test_some_places_are_never_searched(project: Path) -> None:
    never = [".git/config", "results/r1/x.csv", "__pycache__/m.pyc", ".venv/bin/x", "home/key"]
    lay(project, dict.fromkeys(never, ""))
    lay(project, {"main.py": repr(never)})
    shipment = collect(RunSpec(Path("main.py"), files=(Path(),)), project, project / "home")
    assert names(shipment) == ["main.py"]
    with pytest.raises(InputError, match="belongs to rain-deploy"):
        collect(RunSpec(Path("main.py"), files=(Path("home/key"),)), project, project / "home")


def test_a_project_below_such_a_name_is_a_project(tmp_path: Path) -> None:
    lay(tmp_path / ".venv" / "project", {"main.py": "'x.csv'", "x.csv": ""})
    assert names(of(tmp_path / ".venv" / "project", "main.py")) == ["main.py", "x.csv"]


def test_what_files_names_goes_whole(project: Path, tmp_path: Path) -> None:
    lay(project, {"main.py": "", "tool": "#!/bin/sh", "data/a": "1", "data/deep/b": "2", "data/.hidden": "3"})
    (project / "tool").chmod(0o750)
    (project / "data/empty").mkdir()
    lay(tmp_path, {"outside.txt": "content"})
    (project / "data/link").symlink_to(tmp_path / "outside.txt")
    (project / "data/circle").symlink_to(project / "data")
    os.mkfifo(project / "data/pipe")
    shipment = of(project, "main.py", "tool", "data")
    assert names(shipment) == ["data/.hidden", "data/a", "data/deep/b", "data/link", "main.py", "tool"]
    assert "data/empty" in shipment.directories
    content = {file.path: file for file in payload(shipment)}
    assert content["data/link"] == PayloadFile("data/link", b"content")
    assert content["tool"].mode == 0o755
    assert shipment.total_bytes == len("#!/bin/sh123content")


def test_results_named_themselves_go_along(project: Path) -> None:
    lay(project, {"main.py": "", "results/r1/model": "x"})
    assert names(of(project, "main.py", "results/r1")) == ["main.py", "results/r1/model"]


def test_an_absolute_path_elsewhere_has_no_place_on_nodes(project: Path, tmp_path: Path) -> None:
    lay(project, {"main.py": "", "in.txt": ""})
    lay(tmp_path, {"out.txt": ""})
    assert names(of(project, "main.py", str(project / "in.txt"))) == ["in.txt", "main.py"]
    with pytest.raises(InputError, match="lies outside"):
        of(project, "main.py", str(tmp_path / "out.txt"))


MISSING = {
    "open": "open('data/train.csv')",
    "numpy": "import numpy as np\nnp.load('data/train.csv', allow_pickle=True)",
    "pandas": "import pandas as pd\npd.read_csv('data/train.csv')",
    "a path": "from pathlib import Path\nPath('data/train.csv').read_text()",
    "joined": "import os\nopen(os.path.join('data', 'train.csv'), mode='rb')",
}


@pytest.mark.parametrize("what", MISSING)
def test_a_file_that_is_read_and_not_here_names_files(project: Path, what: str) -> None:
    lay(project, {"main.py": MISSING[what]})
    (sentence,) = of(project, "main.py").missing
    line = MISSING[what].count("\n") + 1
    assert (
        sentence
        == f"main.py, line {line} reads data/train.csv, which does not exist here; --files sends more"
    )


@pytest.mark.parametrize(
    "text",
    [
        "open('new.csv', 'w')",
        "open('new.csv', mode='a')",
        "import numpy as np\nnp.save('new.npy', 1)\nnp.load('new.npy')",
        "open('new.csv', 'x')\nopen('new.csv')",
        "open('https://example.org/x.csv')",
        "open('/etc/hosts.conf')",
        "open(input())",
    ],
)
def test_what_the_script_makes_itself_is_not_missing(project: Path, text: str) -> None:
    lay(project, {"main.py": text})
    assert of(project, "main.py").missing == ()


def test_an_absolute_file_and_a_directory_that_are_read_are_reported(project: Path, tmp_path: Path) -> None:
    lay(tmp_path, {"abs.csv": ""})
    lay(project, {"main.py": f"import os\nopen('{tmp_path}/abs.csv')\nos.listdir('data')", "data/a": ""})
    shipment = of(project, "main.py")
    assert names(shipment) == ["main.py"]
    (sentence,) = shipment.missing
    assert "--files" in sentence
    assert shipment.unsent == (Unsent("data/", 1, 0, "data"),)


BAD: dict[str, tuple[bytes, str]] = {
    "does not parse": (b"def f(:\n", "main.py is not Python 3.11: line 1: "),
    "newer Python": (b"x = 1\ntype X = int\n", "main.py is not Python 3.11: line 2: "),
    "null bytes": (b"x\0", "main.py is not Python"),
    "not UTF-8": (b"# \xff\n", "main.py is not Python"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_script_that_cannot_be_one_is_refused_with_its_line(project: Path, what: str) -> None:
    data, says = BAD[what]
    project.mkdir()
    (project / "main.py").write_bytes(data)
    with pytest.raises(InputError, match=says):
        of(project, "main.py")


@pytest.mark.parametrize(
    ("script", "extra", "says"),
    [
        ("gone.py", (), "script .*gone.py cannot be read: No such file"),
        ("folder", (), "script .*folder cannot be read: Is a directory"),
        ("main.py", ("gone",), "cannot read .*gone"),
        ("main.py", ("pipe",), "neither a file nor a directory"),
    ],
)
def test_what_is_named_and_cannot_be_shipped_is_refused(
    project: Path, script: str, extra: tuple[str, ...], says: str
) -> None:
    lay(project, {"main.py": "", "folder/x": ""})
    os.mkfifo(project / "pipe")
    with pytest.raises(InputError, match=says):
        of(project, script, *extra)


def test_a_module_that_does_not_parse_goes_as_it_is(project: Path) -> None:
    lay(project, {"main.py": "try:\n    import bad\nexcept SyntaxError:\n    pass", "bad.py": "def f(:"})
    assert names(of(project, "main.py")) == ["bad.py", "main.py"]


def test_odd_literals_and_names_do_no_harm(project: Path) -> None:
    odd = [
        "",
        ".",
        "..",
        "/",
        "x" * 5000,
        "y" * 300 + ".csv",
        "\0",
        "a\nb",
        "\ud800.csv",
        "~/x.csv",
        "//",
        "main.py/x",
    ]
    lay(project, {"main.py": f"for name in {odd!r}: pass\nopen('{'y' * 300}.csv')", "caf\udce9.txt": ""})
    shipment = of(project, "main.py", ".")
    assert names(shipment) == ["caf\udce9.txt", "main.py"]


def test_a_file_that_changes_on_the_way_is_not_shipped_as_something_else(project: Path) -> None:
    lay(project, {"main.py": ""})
    shipment = of(project, "main.py")
    (project / "main.py").write_text("changed")
    with pytest.raises(InputError, match="changed while"):
        payload(shipment)


def test_digests_are_of_what_is_sent(project: Path) -> None:
    lay(project, {"src/main.py": "x = 1\n"})
    shipment = of(project, "src/main.py")
    sent = {file.path: hashlib.sha256(file.data).hexdigest() for file in payload(shipment)}
    assert {file.path: file.sha256 for file in shipment.files} == sent
    assert shipment.script_sha256 == sent["src/main.py"]
