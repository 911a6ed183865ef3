"""Tasks at home, on real Rain: the script asks for them as its companion would."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.companion.mirror import LARGEST_COPY_BYTES
from rain_deploy.companion.wire import NAME
from tests.local.bare_rain import BareRain, bare_rain
from tests.local.conftest import Installation
from tests.unit.companion_python import NodePython

START = f"""\
import base64, json, os, subprocess, sys, time
from pathlib import Path
from rain.client import Client, Input, Output, OutputDir, remote, tasks
from rain.client.data import DataObject

def home(task):
    hidden = DataObject("", session=session)
    task._spec.outputs = [*task._spec.outputs, hidden.id]
    task._spec.config["encode_outputs"] = [*task._spec.config["encode_outputs"], None]
    task._spec.user = {{"{NAME}": {{"soft": True, "home": True}}}}
    task.hidden = hidden
    return task

def tell(task):
    task.update()
    left = task.hidden.fetch().get_bytes()
    return {{"info": task.info._to_json(), "left": base64.b64encode(left).decode(),
            "results": [str(one.fetch().get_bytes()) if one.info is None or "{NAME}" not in one.info.user
                        else "" for one in task.outputs]}}

session = Client("localhost", 7210).new_session("s")
with session:
    def run(*tasks):
        session.keep_all()
        session.submit()
        session.wait_all()
        print(json.dumps([tell(task) for task in tasks]))

"""

FILES = {
    "work/script.py": "",
    "work/data/a/numbers.txt": "1 2 3",
    "work/data/b.txt": "b",
    "work/out.txt": "of an earlier run",
    "shared.txt": "shared",
    "work/big.bin": "x" * (LARGEST_COPY_BYTES + 1),
}


@dataclass(frozen=True, slots=True)
class Left:
    """What the test is told of a task."""

    results: list[str]
    info: dict[str, Any]
    files: dict[str, bytes]

    @property
    def ours(self) -> dict[str, Any]:
        return dict(self.info.get("user", {}).get(NAME, {}))

    @property
    def printed(self) -> str:
        return self.files["output.log"].decode()


@pytest.fixture(scope="module")
def python(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> NodePython:
    return NodePython.of(tmp_path_factory.mktemp("node"), installation.env)


def ship(run: Path, files: dict[str, str], cwd: str) -> None:
    (run / "run.json").write_text(json.dumps({"cwd": cwd}))
    (run / "shipped.json").write_text(json.dumps(dict.fromkeys(files, "")))
    for name, text in files.items():
        path = run / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture(scope="module")
def run_dir(python: NodePython) -> Path:
    run = python.run_dir("run")
    ship(run, FILES, "work")
    return run


@pytest.fixture(scope="module")
def rain(
    installation: Installation, python: NodePython, run_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BareRain]:
    place = tmp_path_factory.mktemp("rain")
    with bare_rain(installation.engine, installation.env, place, **python.of_tasks(run_dir)) as rain:
        yield rain


def left(rain: BareRain, place: Path, script: str) -> list[Left]:
    (place / "script.py").write_text(f"{START}    {script.strip()}\n")
    found = []
    for task in json.loads(rain.run(place / "script.py").stdout.splitlines()[-1]):
        content = base64.b64decode(task["left"])
        assert task["info"].get("user", {}).get(NAME, {}).get("home", 0) == len(content)
        files = {}
        if content:
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                for member in tar:
                    opened = tar.extractfile(member)
                    assert opened is not None, member.name
                    files[member.name] = opened.read()
        found.append(Left(task["results"], task["info"], files))
    return found


def test_a_task_reads_the_runs_files_as_the_script_does(rain: BareRain, tmp_path: Path) -> None:
    script = """\
@remote()
    def reads(ctx):
        assert ctx.spec.user == {} and len(ctx.spec.outputs) == 1, ctx.spec
        assert ctx.spec.config["encode_outputs"] == [None]
        texts = [open(name).read() for name in ("data/a/numbers.txt", "data/b.txt", "../shared.txt")]
        return " ".join([*texts, str(os.path.getsize("big.bin")), *sorted(os.listdir())])

    run(*[home(reads()) for _ in range(8)])
"""
    for task in left(rain, tmp_path, script):
        assert task.results == [f"b'1 2 3 b shared {LARGEST_COPY_BYTES + 1} big.bin data out.txt script.py'"]
        assert task.files == {}
        assert task.ours == {}


def test_what_a_task_does_to_its_files_changes_no_other_task(
    rain: BareRain, tmp_path: Path, run_dir: Path
) -> None:
    script = """\
@remote()
    def writes(ctx, n):
        before = open("out.txt").read() + str(os.path.exists("new"))
        with open("out.txt", "a") as file:
            file.write(f" and {n}")
        os.remove("data/b.txt")
        os.makedirs("new/deep")
        Path("new/deep/n").write_text(str(n))
        os.symlink("/etc", "link")
        Path("../beside").write_text("1")
        os.rename("script.py", "moved.py")
        return before

    run(*[home(writes(n)) for n in range(8)])
"""
    for n, task in enumerate(left(rain, tmp_path, script)):
        assert task.results == ["b'of an earlier runFalse'"]
        assert task.files == {
            "files/moved.py": b"",
            "files/new/deep/n": str(n).encode(),
            "files/out.txt": f"of an earlier run and {n}".encode(),
        }
    shipped = {str(path.relative_to(run_dir / "files")) for path in (run_dir / "files").rglob("*.*")}
    assert shipped == set(FILES)
    assert (run_dir / "files/work/out.txt").read_text() == "of an earlier run"


def test_what_is_staged_is_a_result_and_the_nodes_copy_stays(
    rain: BareRain, tmp_path: Path, run_dir: Path
) -> None:
    script = """\
@remote(outputs=[Output("big"), OutputDir("data"), Output("out"), Output("own")])
    def stages(ctx):
        Path("own").write_text("own")
        return [ctx.stage_file("big.bin"), ctx.stage_directory("data"), ctx.stage_file("out.txt"),
                ctx.stage_file("own")]

    run(*[home(stages()) for _ in range(4)])
"""
    for task in left(rain, tmp_path, script):
        big, data, out, own = task.results
        assert len(big) == len("b''") + LARGEST_COPY_BYTES + 1
        assert "1 2 3" in data
        assert (out, own) == ("b'of an earlier run'", "b'own'")
        assert task.files == {}
    assert not (run_dir / "files/work/big.bin").is_symlink()
    assert (run_dir / "files/work/data/b.txt").read_text() == "b"


def test_what_is_printed_is_kept_for_each_task_and_stays_in_rains_log(rain: BareRain, tmp_path: Path) -> None:
    script = """\
@remote()
    def prints(ctx, n):
        sys.stdout.write(f"out {n}\\n")
        print("err", n, file=sys.stderr)
        subprocess.run(f"echo child {n}; echo child error {n} >&2", shell=True)
        os.write(1, b"raw\\n")
        if n == 5:
            print("y" * 300_000)
        if n == 6:
            raise ValueError("six")
        return ""

    run(*[home(prints(n)) for n in range(7)])
"""
    tasks = left(rain, tmp_path, script)
    for n, task in [*enumerate(tasks[:5]), (6, tasks[6])]:
        assert task.printed == f"out {n}\nchild {n}\nraw\nerr {n}\nchild error {n}\n"
    assert tasks[6].ours["failed"].endswith("ValueError: six\n")
    assert tasks[5].printed.startswith("[the first ")
    assert 65_000 < len(tasks[5].printed) < 66_000
    logs = [log.read_text() for log in rain.place.glob("*.log/executors/executor-*.*")]
    assert sum(text.count("child 3\n") + text.count("err 3\n") for text in logs) == 2


def test_figures_belong_to_the_task_that_made_them(rain: BareRain, tmp_path: Path) -> None:
    script = """\
@remote()
    def draws(ctx, n):
        import matplotlib.pyplot as plt
        plt.plot(range(n + 2))
        lines = len(plt.gca().lines)
        if n % 2:
            plt.show()
        plt.figure()
        plt.savefig("own.png")
        return f"{lines}"

    run(*[home(draws(n)) for n in range(4)])
"""
    for task in left(rain, tmp_path, script):
        assert task.results == ["b'1'"]
        names = [f"figures/{n:02}.{kind}" for n in (1, 2) for kind in ("png", "svg")]
        assert sorted(task.files) == [*names, "files/own.png"]
        assert task.files["figures/01.png"].startswith(b"\x89PNG")


def test_what_is_too_large_is_named(rain: BareRain, tmp_path: Path) -> None:
    script = """\
@remote()
    def writes(ctx):
        for n in range(3):
            Path(f"{n}.bin").write_bytes(b"x" * 1_500_000)
        Path("large").write_bytes(b"x" * 5_000_000)
        Path("tiny").write_text("tiny")
        os.mkfifo("pipe")
        return ""

    run(home(writes()))
"""
    (task,) = left(rain, tmp_path, script)
    assert sorted(task.files) == ["files/0.bin", "files/1.bin", "files/tiny", "left.txt"]
    assert task.files["left.txt"].decode().splitlines() == [
        "files/2.bin: 1500000 bytes, beyond the 4 MB that are kept of a task",
        "files/large: 5000000 bytes, beyond the 4 MB that are kept of a task",
    ]


def test_a_task_that_writes_to_a_large_file_is_a_warning(
    rain: BareRain, tmp_path: Path, run_dir: Path
) -> None:
    script = """\
@remote()
    def writes(ctx):
        with open("big.bin", "r+") as file:
            file.write("z")
        return ""

    run(home(writes()))
"""
    (task,) = left(rain, tmp_path, script)
    text = "a task wrote to work/big.bin, a large file of the run, which tasks on a node share"
    assert task.ours["warnings"] == [text]
    (run_dir / "files/work/big.bin").write_text(FILES["work/big.bin"])
