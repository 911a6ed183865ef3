"""The cache of programs: which engine fits where, and that a damaged file is never handed out."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from uv import find_uv_bin

from rain_deploy.errors import InputError, StateError
from rain_deploy.parts.supply.cache import EngineCache, uv_pin, uv_program

RAIN, SHA256 = b"an engine", hashlib.sha256(b"an engine").hexdigest()


def test_an_engine_fits_where_the_c_library_is_as_new(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    assert cache.store("ours", "x86_64", "2.36", RAIN) == SHA256
    assert (tmp_path / f"cache/engine/x86_64-glibc2.36/{SHA256}/rain").read_bytes() == RAIN
    for glibc in ("2.36", "2.40", "3.0"):
        assert cache.find("ours", "x86_64", glibc) == (SHA256, RAIN)
    for arch, glibc in (("x86_64", "2.35"), ("x86_64", "2.4"), ("x86_64", ""), ("aarch64", "2.36")):
        assert cache.find("ours", arch, glibc) is None


def test_an_engine_from_elsewhere_is_another_engine(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    cache.store("theirs", "x86_64", "2.36", RAIN)
    assert cache.find("ours", "x86_64", "2.36") is None


def test_the_newest_that_fits_is_taken(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    for glibc in ("2.9", "2.31", "2.36"):
        cache.store("ours", "x86_64", glibc, glibc.encode())
    found = cache.find("ours", "x86_64", "2.34")
    assert found
    assert found[1] == b"2.31"


def test_a_damaged_engine_is_absent_and_goes(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    cache.store("ours", "x86_64", "2.36", RAIN)
    path = tmp_path / f"cache/engine/x86_64-glibc2.36/{SHA256}/rain"
    path.write_bytes(RAIN[:3])
    assert cache.find("ours", "x86_64", "2.36") is None
    assert not path.exists()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StateError, match=r"cache/engine/x86_64-glibc2\.36.* cannot be written"):
        EngineCache(tmp_path).store("ours", "x86_64", "2.36", RAIN)


def test_uv_of_this_installation_is_used_when_it_is_the_pinned_one(tmp_path: Path) -> None:
    mine = Path(find_uv_bin()).read_bytes()
    pin = replace(uv_pin(), binary_sha256=hashlib.sha256(mine).hexdigest())
    assert uv_program(tmp_path, pin) == mine
    assert list(tmp_path.iterdir()) == []


def test_another_uv_is_fetched_once_for_the_nodes_and_kept(tmp_path: Path) -> None:
    older = replace(
        uv_pin(),
        version="0.8.0",
        wheel_sha256="fb939490ce24d5f88ddebf2ceaf30c613b2bd27f2e67ae62ec0960baa5f8412d",
        binary_sha256="19af10f031be0587a0f8352375e15ea46740df9346843d834333a3e491899bd0",
    )
    program = uv_program(tmp_path, older)
    kept = tmp_path / f"cache/uv/{older.binary_sha256}/uv"
    assert kept.read_bytes() == program
    assert hashlib.sha256(program).hexdigest() == older.binary_sha256
    # Without an index now:
    nowhere = replace(older, wheel_sha256="0" * 64)
    assert uv_program(tmp_path, nowhere) == program


def test_a_uv_with_another_hash_is_refused(tmp_path: Path) -> None:
    wrong = replace(uv_pin(), wheel_sha256="0" * 64, binary_sha256="0" * 64)
    with pytest.raises(InputError, match="cannot be fetched") as caught:
        uv_program(tmp_path, wrong)
    assert "0" * 64 in (caught.value.details or "")
    wrong = replace(uv_pin(), binary_sha256="0" * 64)
    with pytest.raises(InputError, match="is not the program that is pinned"):
        uv_program(tmp_path, wrong)
    assert not (tmp_path / "cache").exists()
