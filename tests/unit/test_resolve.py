"""resolve: what the user asks for becomes versions with hashes, or one clear message."""

from __future__ import annotations

import hashlib
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.core.spec import EnvironmentSpec
from rain_deploy.errors import InputError
from rain_deploy.parts.software import node_lock
from rain_deploy.parts.supply.resolve import asked, resolve


def wheel(directory: Path, name: str = "six-1.17.0-py3-none-any.whl") -> Path:
    """A wheel of one module, under any file name."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("six.py", "mine = True\n")
        archive.writestr(
            "six-1.17.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: six\nVersion: 1.17.0\n"
        )
        archive.writestr("six-1.17.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("six-1.17.0.dist-info/RECORD", "")
    return path


def versions(lock: str) -> dict[str, str]:
    return dict(re.findall(r"(?m)^([a-z0-9-]+)==(\S+) ", lock))


def refused(spec: EnvironmentSpec) -> InputError:
    with pytest.raises(InputError) as caught:
        resolve(spec, node_lock())
    assert caught.value.exit_code == 10
    return caught.value


def test_without_requirements_the_locked_set_is_the_answer() -> None:
    spec = EnvironmentSpec(apt=("libgomp1",))
    resolved = resolve(spec, node_lock())
    assert (resolved.lock_text, resolved.wheels, resolved.apt) == (node_lock(), (), ("libgomp1",))


def test_requirements_packages_and_wheels_are_worked_into_the_locked_set(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("iniconfig\n")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# of the user\nnumpy<2.4\n-r more.txt\n")
    own = wheel(tmp_path)
    locked = re.sub(r"(?m)^idna==.*", r"idna==3.10 \\", node_lock())  # not the newest
    resolved = resolve(EnvironmentSpec(requirements, ("toml==0.10.2",), (own,)), locked)
    before, after = versions(locked), versions(resolved.lock_text)
    assert after["numpy"].startswith("2.3.")
    assert after["toml"] == "0.10.2"
    assert set(after) == set(before) | {"iniconfig", "toml"}
    assert {name for name in before if before[name] != after[name]} == {"numpy"}
    assert "://" not in resolved.lock_text
    # The user's six and no other six of that version:
    digest = hashlib.sha256(own.read_bytes()).hexdigest()
    assert f"\nsix==1.17.0 \\\n    --hash=sha256:{digest}\ntensorflow==" in resolved.lock_text
    assert resolved.wheels == ((own.name, own.read_bytes()),)


def test_requirements_that_do_not_fit_name_their_line_and_what_uv_said(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("iniconfig\ntensorflow==1.0\n")
    error = refused(EnvironmentSpec(requirements))
    assert f"{requirements}, line 2" in error.message
    assert "tensorflow" in (error.details or "")


@pytest.mark.parametrize(
    ("text", "line"), [("iniconfig\n==bad\n", 2), ("iniconfig\n\na b c\n", 3)], ids=["no name", "three names"]
)
def test_a_line_that_is_no_requirement_is_named(tmp_path: Path, text: str, line: int) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(text)
    assert f"{requirements}, line {line}" in refused(EnvironmentSpec(requirements)).message


@pytest.mark.parametrize(
    "line",
    [
        "-e .",
        "--index-url https://x.example",
        "-f wheels",
        "--no-index",
        "./a.whl",
        "git+https://x.example/a",
        ".",
        ".[test]",
        "..",
        "../mine",
        "mine/",
        "mine-1.0.tar.gz",
    ],
)
def test_lines_that_nodes_cannot_use_are_refused_also_in_nested_files(tmp_path: Path, line: str) -> None:
    (tmp_path / "nested.txt").write_text(f"iniconfig\n{line}\n")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("-r nested.txt\n")
    message = refused(EnvironmentSpec(requirements)).message
    assert f"{tmp_path / 'nested.txt'}, line 2: {line.split(maxsplit=1)[0]} " in message


@pytest.mark.parametrize(
    "line", ["six-1.17.0-py3-none-any.whl", "six @ file:///wheels/six-1.17.0-py3-none-any.whl"]
)
def test_a_wheel_in_the_requirements_is_sent_to_with(tmp_path: Path, line: str) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"{line}\n")
    error = refused(EnvironmentSpec(requirements))
    assert f"line 1: {line.rpartition(' ')[2]} cannot be used here" in error.message
    assert "--with FILE" in (error.next_step or "")


def test_requirements_that_cannot_be_read(tmp_path: Path) -> None:
    assert "is a directory" in refused(EnvironmentSpec(tmp_path)).message
    assert "No such file" in refused(EnvironmentSpec(tmp_path / "none.txt")).message
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"iniconfig\n# caf\xe9\n")
    assert f"{latin}, line 2, is not UTF-8" in refused(EnvironmentSpec(latin)).message
    assert "setup: " in refused(EnvironmentSpec(setup=tmp_path)).message


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("six.whl", "is not named like a wheel"),
        ("six-1.17.0-cp312-cp312-manylinux_2_17_x86_64.whl", "Python 3.11"),
        ("six-1.17.0-py3-none-macosx_11_0_arm64.whl", "x86-64 Linux"),
        ("six-1.17.0-py2-none-any.whl", "Python 3.11"),
    ],
)
def test_a_wheel_that_does_not_fit_is_refused(tmp_path: Path, name: str, complaint: str) -> None:
    assert complaint in refused(EnvironmentSpec(wheels=(wheel(tmp_path, name),))).message


def test_a_wheel_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "six-1.17.0-py3-none-any.whl"
    assert "cannot be read: No such file" in refused(EnvironmentSpec(wheels=(path,))).message
    path.write_bytes(b"no archive")
    assert "is not a wheel" in refused(EnvironmentSpec(wheels=(path,))).message
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("six.py", "")
    assert "it has no package metadata" in refused(EnvironmentSpec(wheels=(path,))).message


def test_a_package_that_is_no_name(tmp_path: Path) -> None:
    assert "'no such name'" in refused(EnvironmentSpec(packages=("no such name",))).message


def test_a_kept_resolution_holds_until_something_that_it_came_from_changes(tmp_path: Path) -> None:
    nested = tmp_path / "nested.txt"
    nested.write_text("iniconfig\n")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("-r nested.txt\n")
    spec = EnvironmentSpec(requirements, ("toml",), (wheel(tmp_path / "a"),))
    first = asked(spec, node_lock())
    assert asked(replace(spec, upgrade=True), node_lock()) == first
    assert asked(spec, node_lock() + "\n") != first
    assert asked(replace(spec, packages=("toml==0.10.2",)), node_lock()) != first
    nested.write_text("iniconfig>=2\n")
    assert asked(spec, node_lock()) != first


def test_a_local_project_is_refused_with_the_way_to_send_it(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    for line in (".", "-e ./mine", "mine/"):
        requirements.write_text(f"{line}\n")
        assert "pip wheel --no-deps" in (refused(EnvironmentSpec(requirements)).next_step or "")
    assert "pip wheel --no-deps" in (refused(EnvironmentSpec(packages=(str(tmp_path),))).next_step or "")


def test_what_uv_takes_for_a_project_here_is_refused(tmp_path: Path) -> None:
    """The line names no path: uv itself finds the project, as it might find others that we do not know."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/pyproject.toml").write_text("[project]\nname = 'mine'\nversion = '1'\n")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("mine @ mine\n")
    assert "requirements" in refused(EnvironmentSpec(requirements)).message


@pytest.fixture(scope="module")
def toml_hashes() -> list[str]:
    """Digests of the files of toml 0.10.2, as the index has them: a wheel and a source."""
    lock = resolve(EnvironmentSpec(packages=("toml==0.10.2",)), node_lock()).lock_text
    return hashes_of(lock, "toml")


def hashes_of(lock: str, name: str) -> list[str]:
    block = re.search(rf"(?m)^{name}==.*\n((?:    --hash.*\n)+)", lock)
    assert block
    return re.findall(r"sha256:[0-9a-f]{64}", block[1])


WRONG = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    "text", ["toml==0.10.2 --hash={0}", "TOML==0.10.2 \\\n    --hash={1} \\\n    --hash={0}"]
)
def test_only_files_with_the_hashes_of_the_requirements_are_installed(
    tmp_path: Path, toml_hashes: list[str], text: str
) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(text.format(toml_hashes[0], WRONG) + "\n")
    lock = resolve(EnvironmentSpec(requirements), node_lock()).lock_text
    assert len(toml_hashes) > 1
    assert hashes_of(lock, "toml") == toml_hashes[:1]
    assert hashes_of(lock, "numpy") == hashes_of(node_lock(), "numpy")


@pytest.mark.parametrize("nested", [False, True])
def test_a_hash_that_no_file_has_is_refused_by_its_line(tmp_path: Path, nested: bool) -> None:
    requirements = tmp_path / "requirements.txt"
    own = tmp_path / "own.txt" if nested else requirements
    requirements.write_text("-r own.txt\n")
    own.write_text(f"iniconfig\ntoml==0.10.2 --hash={WRONG}\n")
    message = refused(EnvironmentSpec(requirements)).message
    assert f"{own}, line 2: no file of toml 0.10.2" in message


HERE = "https://files.example/toml-0.10.2-py2.py3-none-any.whl"
LOCK = "{0} \\\n    --hash=sha256:" + "a" * 64 + "\n"


@pytest.mark.parametrize(
    ("line", "locked"),
    [
        (f"toml @ {HERE}", f"toml @ {HERE}"),
        (f"TOML@{HERE}", f"toml @ {HERE}"),
        (f"toml[x] @ {HERE} ; python_version > '3'", f"toml[x] @ {HERE} ; python_version > '3'"),
        (HERE, f"toml @ {HERE}"),
        ("toml[x]==0.10.2", "toml[x]==0.10.2"),
    ],
)
def test_the_hash_of_a_file_that_is_named_by_its_address_holds_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, locked: str
) -> None:
    """No index is asked: the lock is what uv writes for such a line."""
    other = "six==1.17.0 \\\n    --hash=sha256:" + "c" * 64 + "\n"
    lock = LOCK.format(locked) + other
    monkeypatch.setattr(
        "rain_deploy.parts.supply.resolve.run_uv",
        lambda *words, **_: Path(words[words.index("--output-file") + 1]).write_text(lock) and Done,
    )
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"{line} --hash=sha256:{'a' * 64} --hash={WRONG}\n")
    assert resolve(EnvironmentSpec(requirements), node_lock()).lock_text == lock
    requirements.write_text(f"{line} --hash={WRONG}\n")
    message = refused(EnvironmentSpec(requirements)).message
    assert message.startswith(f"requirements: {requirements}, line 1: ")
    assert message.endswith("the hash given there")
    assert (f"{HERE} does not have" in message) == (HERE in locked)


class Done:
    """Uv has ended well."""

    returncode, stderr = 0, ""


@pytest.mark.parametrize("line", ["-c limits.txt", "--constraint=limits.txt", "-r limits.txt"])
def test_every_file_that_is_read_is_part_of_the_question(tmp_path: Path, line: str) -> None:
    requirements, limits = tmp_path / "requirements.txt", tmp_path / "limits.txt"
    requirements.write_text(f"toml\n{line}\n")
    limits.write_text("toml==0.10.1\n")
    first = asked(EnvironmentSpec(requirements), node_lock())
    assert versions(resolve(EnvironmentSpec(requirements), node_lock()).lock_text)["toml"] == "0.10.1"
    limits.write_text("toml==0.10.2\n")
    assert asked(EnvironmentSpec(requirements), node_lock()) != first
    limits.unlink()
    assert "limits.txt cannot be read" in refused(EnvironmentSpec(requirements)).message


def test_a_file_of_the_web_is_refused(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("-c https://x.example/limits.txt\n")
    error = refused(EnvironmentSpec(requirements))
    assert f"{requirements}, line 1: https://x.example/limits.txt may change" in error.message


@pytest.mark.parametrize("name", ["uv.toml", "pyproject.toml", "above/pyproject.toml", "UV_CONSTRAINT"])
def test_what_uv_itself_reads_is_part_of_the_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    cwd = tmp_path / "above/cwd"
    cwd.mkdir(parents=True)
    monkeypatch.chdir(cwd)
    spec = EnvironmentSpec(packages=("toml",))
    questions = {asked(spec, node_lock())}
    without = asked(EnvironmentSpec(apt=("jq",)), node_lock())
    path = tmp_path / name if "/" in name else cwd / name
    (path.parent / "pyproject.toml").write_text("[project]\nname = 'of-the-user'\n")
    questions.add(asked(spec, node_lock()))
    assert len(questions) == 1
    monkeypatch.setenv("UV_CONSTRAINT", name if name.startswith("UV_") else "")
    for version in ("0.10.0", "0.10.1"):
        text = f'constraint-dependencies = ["toml=={version}"]\n'
        table = "[tool.uv]\n" if path.name == "pyproject.toml" else ""
        path.write_text(f"toml=={version}" if name.startswith("UV_") else table + text)
        questions.add(asked(spec, node_lock()))
    assert len(questions) == 3
    assert versions(resolve(spec, node_lock()).lock_text)["toml"] == "0.10.1"
    assert asked(EnvironmentSpec(apt=("jq",)), node_lock()) == without


@pytest.mark.parametrize(
    ("name", "value", "counts"),
    [
        ("UV_INDEX_STRATEGY", "unsafe-best-match", True),
        ("UV_DEFAULT_INDEX", "https://other.example/simple", True),
        ("UV_SOMETHING_NEW", "1", True),
        ("UV_INDEX_MINE_PASSWORD", "secret", False),
        ("UV_PUBLISH_TOKEN", "secret", False),
    ],
)
def test_every_variable_of_uv_is_part_of_the_question_but_no_credential(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, *, counts: bool
) -> None:
    spec = EnvironmentSpec(packages=("toml",))
    first = asked(spec, node_lock())
    monkeypatch.setenv(name, value)
    assert (asked(spec, node_lock()) != first) == counts
    if "://" in value:
        first = asked(spec, node_lock())
        monkeypatch.setenv(name, value.replace("//", "//me:secret@"))
        assert asked(spec, node_lock()) == first


@pytest.mark.parametrize("variable", ["HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "UV_CONFIG_FILE"])
def test_uvs_settings_of_the_user_and_the_system_are_part_of_the_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("XDG_CONFIG_HOME", "XDG_CONFIG_DIRS"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / (".config/uv/uv.toml" if variable == "HOME" else "uv/uv.toml")
    path.parent.mkdir(parents=True)
    monkeypatch.setenv(variable, str(path if variable == "UV_CONFIG_FILE" else tmp_path))
    spec = EnvironmentSpec(packages=("toml",))
    questions = {asked(spec, node_lock())}
    for version in ("0.10.0", "0.10.1"):
        path.write_text(f'constraint-dependencies = ["toml=={version}"]\n')
        questions.add(asked(spec, node_lock()))
    assert len(questions) == 3
    assert versions(resolve(spec, node_lock()).lock_text)["toml"] == "0.10.1"
