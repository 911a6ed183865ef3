"""What is in the repository is in the wheel, and what is said twice is said alike."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import rain_deploy
from rain_deploy.parts.software import BUILD_PACKAGES

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SHIPPED = (
    "rain_deploy/**/*.py",
    "rain_deploy/py.typed",
    "rain_deploy/companion/**/*.pth",
    "rain_deploy/parts/locks/*",
    "templates/*.j2",
)
SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file())


def _python(*arguments: str | Path, cwd: Path) -> str:
    environment = os.environ | {"RAIN_DEPLOY_HOME": str(cwd / "home")}
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution, as an index would serve the two."""
    built = tmp_path_factory.mktemp("dist")
    _python("-m", "build", "--no-isolation", "--outdir", built, ROOT, cwd=built)
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the unpacked wheel, far from the checkout."""
    folder = tmp_path_factory.mktemp("elsewhere")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def test_the_wheel_holds_every_module_template_lock_and_pth_and_nothing_else(wheel: Path) -> None:
    files = {path.relative_to(ROOT).as_posix() for pattern in SHIPPED for path in ROOT.glob(pattern)}
    expected = {re.sub(r"^templates/", "rain_deploy/templates/", name) for name in files}
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == expected


def test_the_installed_wheel_finds_its_templates_without_the_checkout(elsewhere: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from rain_deploy.parts.shell import templates_directory; print(templates_directory())"
    )
    found = _python("-I", "-c", program, elsewhere, cwd=elsewhere).strip()
    assert found == str(elsewhere / "rain_deploy/templates")


def _installed(elsewhere: Path, *arguments: str) -> str:
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1));"
        "from rain_deploy.cli.main import main; sys.exit(main())"
    )
    return _python("-I", "-c", program, elsewhere, *arguments, cwd=elsewhere)


def test_the_installed_wheel_answers_its_version(elsewhere: Path) -> None:
    assert rain_deploy.__version__ in _installed(elsewhere, "--version")


@pytest.mark.smoke
def test_the_installed_wheel_plans_a_cluster_from_its_own_files(elsewhere: Path) -> None:
    """A plan renders the templates and reads the locks, node code and companion."""
    plan = _installed(elsewhere, "up", "-v", "--dry-run", "--provider", "hosts", "--hosts", "a@127.107.0.1")
    assert "uv" in plan
    assert str(ROOT) not in plan


def _pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ;]+)", text, flags=re.MULTILINE))


def test_all_locked_requirements_agree() -> None:
    laptop, dev = _pins("laptop.txt"), _pins("dev.txt")
    assert laptop.items() <= dev.items()
    assert _pins("uv.txt").items() <= laptop.items()


@pytest.mark.parametrize("extra", ["", "dev"])
def test_every_dependency_is_locked(extra: str) -> None:
    wanted = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    names = {re.split(r"[<>=]", requirement)[0] for requirement in wanted}
    assert names <= _pins("dev.txt" if extra else "laptop.txt").keys()


def test_no_index_is_named_in_what_is_locked() -> None:
    locks = [*(ROOT / "requirements").iterdir(), *(ROOT / "rain_deploy/parts/locks").iterdir()]
    assert not [path.name for path in locks if re.search(r"index-url|https?://", path.read_text("utf-8"))]


def test_the_set_up_brings_every_package_that_the_engine_is_built_with() -> None:
    packages = {package for packages in BUILD_PACKAGES.values() for package in packages}
    assert packages <= set((ROOT / "scripts/setup").read_text("utf-8").split())


def test_the_changelog_opens_with_this_version() -> None:
    versions = re.findall(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), flags=re.MULTILINE)
    assert rain_deploy.__version__ in versions[:2]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_executable_and_posix_sh(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert script.read_text("utf-8").startswith("#!/bin/sh\n")
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0


def _imported(package: Path) -> set[str]:
    """Return the top-level modules that a package imports, without what runs on nodes only."""
    found = set()
    for path in package.rglob("*.py"):
        if {"companion", "node"} & set(path.relative_to(package).parts):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"rain_deploy"}


def test_what_the_package_declares_it_imports_and_what_it_imports_it_declares() -> None:
    brought = {"invoke": "fabric", "urllib3": "requests"}  # parts of these, whose errors they raise
    declared = {re.split(r"[^\w-]", dependency)[0] for dependency in PROJECT["dependencies"]}
    assert declared == {brought.get(name, name) for name in _imported(ROOT / "rain_deploy")}


def test_the_package_says_what_it_is_and_for_which_pythons() -> None:
    supported = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert PROJECT["requires-python"] == f">={supported[0]}"
    assert supported == sorted(supported, key=lambda version: int(version.partition(".")[2]))
    assert "Typing :: Typed" in PROJECT["classifiers"]
    assert all(url.startswith("https://") for url in PROJECT["urls"].values())


def test_python_m_is_the_command(elsewhere: Path) -> None:
    asked = ("--version",)
    assert _python("-m", "rain_deploy", *asked, cwd=elsewhere) == _python(
        "-m", "rain_deploy.cli.main", *asked, cwd=elsewhere
    )
    assert "Usage: " in _python("-m", "rain_deploy", "up", "--help", cwd=elsewhere)
