"""The id of a sweep: what changes it, and what does not."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.node.files import write_json
from rain_deploy.node.run import load_run
from rain_deploy.node.sweep import sweep_id, sweep_parts
from tests.unit.test_node_runs import config_of, ship

FILES = {"s.py": "1a", "helper.py": "2b", "data/x.csv": "3c"}
VARIABLES = {"RATE": "0.1", "TOKEN": "12"}


def _id(
    place: Path,
    files: dict[str, str] = FILES,
    env: dict[str, str] = VARIABLES,
    packages: str = "e1",
    engine: str = "g1",
    **about: Any,
) -> str:
    run = ship(place, "r", 1, **about)
    write_json(run.path / "shipped.json", files)
    write_json(run.path / "env.json", env)
    config = config_of(place)
    return sweep_id(run, replace(config, env=Path("/envs", packages), engine=Path("/engine", engine, "rain")))


RENAMED = {"t.py": "1a", "helper.py": "2b", "data/x.csv": "3c"}
CHANGES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a helper module": {"files": FILES | {"helper.py": "9f"}},
    "a data file": {"files": FILES | {"data/x.csv": "9f"}},
    "one file more": {"files": FILES | {"new.py": "9f"}},
    "a file with another name": {"files": {"s.py": "1a", "helper.py": "2b", "data/y.csv": "3c"}},
    "two files with each other's content": {"files": FILES | {"helper.py": "3c", "data/x.csv": "2b"}},
    "another script of the same project": {"script": "helper.py"},
    "a renamed script": {"script": "t.py", "files": RENAMED},
    "another working directory": {"cwd": "data"},
    "a variable": {"env": VARIABLES | {"RATE": "0.2"}},
    "one variable more": {"env": VARIABLES | {"MORE": ""}},
    "no variables": {"env": {}},
    "a package": {"packages": "e2"},
    "the engine": {"engine": "g2"},
}
NO_CHANGES: dict[str, dict[str, Any]] = {
    "the script's text": {"files": FILES | {"s.py": "9f"}},
    "the order of files": {"files": dict(reversed(FILES.items()))},
    "the order of variables": {"env": dict(reversed(VARIABLES.items()))},
    "arguments": {"args": ["--grid", "2"]},
    "a time limit and nodes": {"timeout_s": 5.0, "nodes": ["node-1"]},
}


def test_each_change_gives_an_id_of_its_own(tmp_path: Path) -> None:
    ids = {change: _id(tmp_path, **shipped) for change, shipped in CHANGES.items()}
    assert len(set(ids.values())) == len(CHANGES)
    assert {len(one) for one in ids.values()} == {64}


@pytest.mark.parametrize("change", NO_CHANGES)
def test_what_results_do_not_depend_on_changes_nothing(tmp_path: Path, change: str) -> None:
    assert _id(tmp_path, **NO_CHANGES[change]) == _id(tmp_path)


def test_every_attempt_has_the_same_id_although_the_script_changed_its_files(tmp_path: Path) -> None:
    before = _id(tmp_path)
    run = load_run(tmp_path / "r")
    assert run
    run.update(attempt=2)
    (run.path / "files").mkdir()
    (run.path / "files" / "helper.py").write_text("written by the first attempt")
    config = replace(config_of(tmp_path), env=Path("/envs/e1"), engine=Path("/engine/g1/rain"))
    assert sweep_id(run, config) == before


def test_nobody_guesses_a_short_variable_from_the_id_by_hashing_quickly(tmp_path: Path) -> None:
    """All else in the id is known to who has the results; the variable is a number below 100."""
    known = [
        1,
        "s.py",
        ".",
        sorted((name, sha) for name, sha in FILES.items() if name != "s.py"),
        ["e1", "g1"],
    ]
    salt = hashlib.sha256(json.dumps(known).encode())
    assert _id(tmp_path, env={}) == salt.hexdigest()
    variables = json.dumps(sorted(VARIABLES.items())).encode()
    slow = hashlib.scrypt(variables, salt=salt.digest(), n=1 << 14, r=8, p=1, dklen=32).hex()
    assert _id(tmp_path) == slow


@pytest.mark.parametrize("files", [{}, {"other.py": "1a"}])
def test_without_a_list_of_what_was_shipped_there_is_no_id(tmp_path: Path, files: dict[str, str]) -> None:
    assert _id(tmp_path, files) == ""


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("a helper module", "files"),
        ("the engine", "software"),
        ("a package", "software"),
        ("a renamed script", "script"),
    ],
)
def test_its_parts_tell_what_changed(tmp_path: Path, change: str, part: str) -> None:
    def parts(place: Path, **changes: Any) -> dict[str, str]:
        sweep = _id(place, **changes)
        run = load_run(place / "r")
        assert run
        config = config_of(place)
        env, engine = changes.get("packages", "e1"), changes.get("engine", "g1")
        return sweep_parts(
            run, replace(config, env=Path("/envs", env), engine=Path("/engine", engine, "rain")), sweep
        )

    before, after = parts(tmp_path / "a"), parts(tmp_path / "b", **CHANGES[change])
    assert {name for name in before if before[name] != after[name]} == {part, "sweep"}
