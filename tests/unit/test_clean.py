"""``clean``: caches are shown and removed after a yes; what a cluster uses or a command builds stays."""

from __future__ import annotations

import fcntl
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.core.spec import EngineSpec, ResolvedEnvironment
from rain_deploy.errors import UsageError
from rain_deploy.parts.software import code_bundle, engine_key, environment_digest, node_lock
from rain_deploy.parts.supply.cache import uv_pin
from rain_deploy.verbs.clean import clean
from tests.unit.fake_cloud import World

NEEDED = {
    "environment": f"local/cache/envs/{environment_digest(ResolvedEnvironment(node_lock()))}",
    "node code": f"local/cache/code/{code_bundle()[0]}",
    "uv": f"local/cache/uv/{uv_pin().binary_sha256}",
    "engine": f"cache/engine/x86_64-glibc2.36/{'e' * 64}",
}
USELESS = {
    "environment": "local/cache/envs/ab12",
    "node code": "local/cache/code/cd34",
    "uv": "cache/uv/ef56",
    "engine": f"local/cache/engine/{'f' * 64}",
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.at(tmp_path)
    home = world.ctx.home
    for name in (*NEEDED.values(), *USELESS.values()):
        entry(home / name)
    note = home / f"cache/engine/x86_64-glibc2.36/from/{engine_key(EngineSpec())}"
    note.parent.mkdir()
    note.write_text(f"{'e' * 64}\n")
    return world


def entry(path: Path, *, whole: bool = True) -> Path:
    path.mkdir(parents=True)
    (path / "content").write_bytes(bytes(1000))
    if whole:
        (path / ".ok").touch()
    return path


def there(world: World) -> set[str]:
    home = world.ctx.home
    return {name for name in (*NEEDED.values(), *USELESS.values()) if (home / name).exists()}


def test_what_the_next_up_needs_stays_and_the_rest_goes(world: World) -> None:
    result = clean(world.ctx, everything=False)
    assert there(world) == set(NEEDED.values())
    assert {line.what for line in result.lines} == set(NEEDED)
    assert (result.bytes_of("removed"), result.bytes_of("kept")) == (4000, 4000)
    assert clean(world.ctx, everything=False).bytes_of("removed") == 0


def test_all_means_all(world: World) -> None:
    assert clean(world.ctx, everything=True).bytes_of("removed") == 8000
    assert there(world) == set()


def test_sizes_are_the_same_everywhere_and_it_says_that_it_works(world: World) -> None:
    big = world.ctx.home / NEEDED["environment"] / "big"
    with big.open("wb") as file:
        file.truncate(2_483_800_000)
    asked: list[str] = []

    def confirm(question: str) -> bool:
        asked.append(question)
        return True

    clean(replace(world.ctx, confirm=confirm), everything=True)
    assert asked[0].endswith(" cache entries (2.5 GB)?")
    assert "(2.5 GB): the next up makes it again" in world.told
    assert "--all" not in world.told
    assert "removing 2.5 GB" in world.told


def test_nothing_goes_without_a_yes_to_what_was_shown(world: World) -> None:
    world.answers.append(False)
    with pytest.raises(UsageError, match="nothing was removed"):
        clean(world.ctx, everything=True)
    assert there(world) == {*NEEDED.values(), *USELESS.values()}
    assert all(name in world.told for name in there(world))


def test_what_a_cluster_uses_stays_whatever_is_asked(world: World) -> None:
    names = {what: Path(name).name for what, name in USELESS.items()}
    used = replace(
        world.cluster(),
        env_digest=names["environment"],
        engine_sha256=names["engine"],
        code_digest=names["node code"],
    )
    world.store.save_cluster(used)
    clean(world.ctx, everything=True)
    assert there(world) == set(USELESS.values()) - {USELESS["uv"]}


@pytest.mark.parametrize("name", ["local/cache/envs/0011", "local/cache/engine/.build"])
def test_what_is_being_built_stays_and_what_was_left_by_a_killed_build_goes(world: World, name: str) -> None:
    path = entry(world.ctx.home / name, whole=False)
    lock = path.with_name(".lock" if path.name == ".build" else f"{path.name}.lock")
    with lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        clean(world.ctx, everything=True)
        assert path.exists()
    (line,) = (line for line in clean(world.ctx, everything=False).lines if line.path == path)
    assert (line.action, line.reason) == ("removed", "unfinished build")
    assert not path.exists()


@pytest.mark.parametrize("began", ["a cluster", "a build", "a removal"])
def test_what_is_used_since_the_question_stays(world: World, began: str) -> None:
    path = world.ctx.home / USELESS["environment"]
    lock = path.with_name(f"{path.name}.lock")
    lock.touch()
    with lock.open("rb") as file:

        def meanwhile(_question: str) -> bool:
            if began == "a cluster":
                world.store.save_cluster(replace(world.cluster(), env_digest=path.name))
            elif began == "a build":
                fcntl.flock(file, fcntl.LOCK_EX)
            else:
                shutil.rmtree(path)
            return True

        result = clean(replace(world.ctx, confirm=meanwhile), everything=True)
    (line,) = (line for line in result.lines if line.path == path)
    assert line.action == ("removed" if began == "a removal" else "kept")
    assert path.exists() == (began != "a removal")
    assert lock.exists(), "who waits for it must not work beside another who makes a new one"
    assert sum(line.action == "removed" for line in result.lines) >= 7


def test_a_file_that_vanishes_while_sizes_are_added_up_counts_nothing(world: World) -> None:
    place = entry(world.ctx.home / "local/cache/envs/9a")
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for number in range(200):
                (place / str(number)).touch()
            for number in range(200):
                (place / str(number)).unlink()

    other = threading.Thread(target=churn)
    other.start()
    try:
        for _ in range(30):
            world.answers.append(False)
            with pytest.raises(UsageError):
                clean(world.ctx, everything=False)
    finally:
        stop.set()
        other.join()


def test_an_empty_home_has_nothing_to_clean(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    assert clean(world.ctx, everything=True).lines == ()
