"""parts/scripts/build_engine.py as a node runs it, with a cargo and a web server of the test's own."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rain_deploy.core.spec import EngineSpec
from rain_deploy.parts.shell import step
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "rain_deploy/parts/scripts/build_engine.py"
RAIN = b'#!/bin/sh\necho "Rain 0.4.0"\n'
RAIN_SHA256 = hashlib.sha256(RAIN).hexdigest()
DEADLINE_S = 30.0


@dataclass
class Machine:
    """A machine with an empty cache, a cargo and no way to the network."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("bin", "home", "cargo"):
            (self.root / name).mkdir()
        program = self.root / "bin/cargo"
        program.write_text(f"#!{sys.executable} -S\n" + (ROOT / "tests/unit/fake_cargo.py").read_text())
        program.chmod(0o755)
        self.environment = {
            "PATH": f"{self.root / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.root / "home"),
            "FAKE_CARGO": str(self.root / "cargo"),
        }

    @property
    def cache(self) -> Path:
        return self.root / "cache/engine"

    def lock(self) -> Path:
        """Older versions than cargo would take by itself."""
        pins = ["alpha 1.0.0", "beta 2.0.0"]
        lines = [f"{pin} {hashlib.sha256(pin.encode()).hexdigest()}" for pin in pins]
        path = self.root / "engine.lock"
        path.write_text("\n".join([*lines, f"rain_server 0.4.0 {crate_sha256(self)}", ""]))
        return path

    def start(self, *args: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, SCRIPT, "--cache", self.cache, *args],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *args: str | Path) -> tuple[int, str, str]:
        process = self.start(*args)
        out, err = process.communicate(timeout=DEADLINE_S)
        return process.returncode, out, err

    def cargo_is(self, manner: str) -> Path:
        path = self.root / "cargo" / manner
        path.touch()
        return path

    def cargo_calls(self) -> list[str]:
        calls = self.root / "cargo/calls"
        return calls.read_text().split() if calls.exists() else []

    def engines(self) -> list[Path]:
        """Every file in the cache that could be taken for an engine, or for the name of one."""
        return sorted([*self.cache.glob("*/rain"), *self.cache.glob("from/*")])


def crate_sha256(machine: Machine) -> str:
    code = "import fake_cargo, sys; sys.stdout.write(fake_cargo.checksum('rain_server', '0.4.0'))"
    environment = {**machine.environment, "PYTHONPATH": str(ROOT / "tests/unit")}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_build_lands_under_its_digest_and_tells_how_far_it_is(machine: Machine) -> None:
    status, out, err = machine.run("--lock", machine.lock())
    assert (status, out) == (0, f"{RAIN_SHA256}\n"), err
    assert (machine.cache / RAIN_SHA256 / "rain").read_bytes() == RAIN
    last = "Compiling rain_server (the last of 3: 1 to 2 minutes)"
    assert err.splitlines() == ["Compiling alpha 1/3", "Compiling beta 2/3", last]
    assert not (machine.cache / ".build").exists()


@pytest.mark.parametrize("names", [("alpha",), ("alpha", "beta"), ()])
def test_only_what_the_lock_names_is_optimised(machine: Machine, names: tuple[str, ...]) -> None:
    lock = machine.lock()
    if names:
        lock.write_text(f"# optimised: {' '.join(names)}\n" + lock.read_text())
    assert machine.run("--lock", lock)[0] == 0
    manifest = tomllib.loads((machine.root / "cargo/manifest").read_text())
    packages = manifest.get("profile", {"release": {"package": {}}})["release"]["package"]
    levels = {name: package["opt-level"] for name, package in packages.items()}
    assert levels == ({"*": 0, **dict.fromkeys(names, 3)} if names else {})
    assert manifest["workspace"] == {}


def test_what_is_optimised_is_part_of_the_engines_name(machine: Machine) -> None:
    lock = machine.lock()
    machine.run("--lock", lock)
    calls = machine.cargo_calls().count("install")
    lock.write_text("# optimised: alpha\n" + lock.read_text())
    machine.run("--lock", lock)
    assert machine.cargo_calls().count("install") == calls + 1
    assert len([*machine.cache.glob("from/*")]) == 2


def test_what_is_built_already_is_not_built_again(machine: Machine) -> None:
    machine.run("--lock", machine.lock())
    calls = machine.cargo_calls()
    assert machine.run("--lock", machine.lock())[:2] == (0, f"{RAIN_SHA256}\n")
    assert machine.cargo_calls() == calls


def test_a_damaged_engine_is_built_again(machine: Machine) -> None:
    machine.run("--lock", machine.lock())
    (machine.cache / RAIN_SHA256 / "rain").write_bytes(RAIN[:10])
    assert machine.run("--lock", machine.lock())[:2] == (0, f"{RAIN_SHA256}\n")
    assert (machine.cache / RAIN_SHA256 / "rain").read_bytes() == RAIN


def test_cargo_that_takes_another_version_is_refused(machine: Machine) -> None:
    machine.cargo_is("drift")
    status, _out, err = machine.run("--lock", machine.lock())
    assert status == 1
    assert "it differs in: beta 2.0.0, beta 2.9.0" in err
    assert machine.engines() == []


def test_a_crate_with_another_hash_is_not_unpacked(machine: Machine) -> None:
    lock = machine.lock()
    wrong = "0" * 64
    lock.write_text(lock.read_text().replace(crate_sha256(machine), wrong))
    status, _out, err = machine.run("--lock", lock)
    assert status == 1
    assert f"cargo did not fetch rain_server 0.4.0 with the SHA-256 {wrong}" in err
    assert "install" not in machine.cargo_calls()


def test_a_failed_compile_says_why_and_leaves_no_engine(machine: Machine) -> None:
    machine.cargo_is("broken")
    status, out, err = machine.run("--lock", machine.lock())
    assert (status, out) == (1, "")
    assert "error: linking with `cc` failed" in err
    assert machine.engines() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_build_leaves_nothing_half_made(machine: Machine, number: signal.Signals) -> None:
    slow = machine.cargo_is("slow")
    process = machine.start("--lock", machine.lock())
    wait_for(lambda: "install" in machine.cargo_calls())
    process.send_signal(number)
    process.communicate(timeout=DEADLINE_S)
    assert machine.engines() == []
    slow.unlink()
    assert machine.run("--lock", machine.lock())[:2] == (0, f"{RAIN_SHA256}\n")


def test_a_signal_ends_cargo_too(machine: Machine) -> None:
    machine.cargo_is("slow")
    process = machine.start("--lock", machine.lock())
    wait_for(lambda: "install" in machine.cargo_calls())
    process.terminate()
    process.communicate(timeout=DEADLINE_S)
    wait_for(lambda: not cargos_of(machine))


def cargos_of(machine: Machine) -> list[str]:
    found = []
    mark = f"FAKE_CARGO={machine.root / 'cargo'}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append(process.name)
    return found


def test_the_users_own_cargo_home_is_used(machine: Machine) -> None:
    (machine.root / "home/.cargo").mkdir()
    machine.run("--lock", machine.lock())
    assert list((machine.root / "home/.cargo").rglob("rain_server-0.4.0.crate"))


class Files(BaseHTTPRequestHandler):
    """Serves one body at every path; /cut says that it is longer than it is."""

    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body) + 100 * (self.path == "/cut")))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_args: object) -> None:
        pass


@contextlib.contextmanager
def served(body: bytes) -> Iterator[str]:
    handler = type("Handler", (Files,), {"body": body})
    with ThreadingHTTPServer(("127.104.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.104.0.1:{server.server_port}"
        server.shutdown()


def release() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as archive:
        member = tarfile.TarInfo("rain-v0.4.0-linux-x64/rain")
        member.size = len(RAIN)
        archive.addfile(member, io.BytesIO(RAIN))
    return buffer.getvalue()


@pytest.mark.parametrize("body", [RAIN, release()], ids=["binary", "tar.xz"])
def test_a_download_lands_under_the_digest_of_the_binary(machine: Machine, body: bytes) -> None:
    sha256 = hashlib.sha256(body).hexdigest()
    with served(body) as url:
        assert machine.run("--url", f"{url}/rain", "--sha256", sha256)[:2] == (0, f"{RAIN_SHA256}\n")
    engine = machine.cache / RAIN_SHA256 / "rain"
    assert engine.read_bytes() == RAIN
    assert stat.S_IMODE(engine.stat().st_mode) == 0o755
    # and is not asked for again: the server has gone
    assert machine.run("--url", f"{url}/rain", "--sha256", sha256)[:2] == (0, f"{RAIN_SHA256}\n")


@pytest.mark.parametrize(
    ("body", "path", "complaint"),
    [
        (RAIN + b"#", "/rain", "has the SHA-256"),
        (RAIN[:-5], "/cut", "127.104.0.1"),
    ],
    ids=["another file", "cut off"],
)
def test_a_download_with_another_hash_is_not_kept(
    machine: Machine, body: bytes, path: str, complaint: str
) -> None:
    with served(body) as url:
        status, out, err = machine.run("--url", url + path, "--sha256", RAIN_SHA256)
    assert (status, out) == (1, "")
    assert complaint in err
    assert [path for path in machine.cache.rglob("*") if path.is_file()] == []


def test_a_download_that_does_not_run_here_is_refused(machine: Machine) -> None:
    with served(b"\x7fELF of another machine") as url:
        sha256 = hashlib.sha256(b"\x7fELF of another machine").hexdigest()
        status, _out, err = machine.run("--url", f"{url}/rain", "--sha256", sha256)
    assert status == 1
    assert "does not run on this machine" in err
    assert machine.engines() == []


def test_a_step_waits_for_another_build_and_takes_what_it_made(machine: Machine) -> None:
    (machine.root / "staging").mkdir()
    (machine.root / "staging/engine").symlink_to(SCRIPT.parent)
    machine.cache.mkdir(parents=True)
    with served(RAIN) as url, (machine.cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        python, spec = sys.executable, EngineSpec(url, RAIN_SHA256)
        act = step("engine", "engine.sh.j2", python=python, cache=machine.cache, spec=spec).act
        waits = subprocess.Popen(
            ["sh", "-ec", f'S={machine.root}/staging; data() {{ echo "$2"; }}\n{act}'],
            env=machine.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert waits.stdout
        assert waits.stdout.readline() == "Waiting for another build of the engine on this machine\n"
        assert machine.run("--url", url, "--sha256", RAIN_SHA256)[:2] == (0, f"{RAIN_SHA256}\n")
    # The server has gone with the lock.
    assert waits.communicate(timeout=DEADLINE_S)[0] == f"{RAIN_SHA256}\n"


def test_a_server_that_is_not_there_is_named(machine: Machine) -> None:
    status, _out, err = machine.run("--url", "http://127.104.0.2:9/rain", "--sha256", RAIN_SHA256)
    assert status == 1
    assert "cannot download http://127.104.0.2:9/rain" in err


@pytest.mark.build
@pytest.mark.slow
@pytest.mark.skipif("TEST_ENGINE_CACHE" not in os.environ, reason="TEST_ENGINE_CACHE names no folder")
def test_the_real_engine_builds_from_our_lock() -> None:
    """Kept in that folder from run to run: an engine that is there already is only checked."""
    cache, lock = os.environ["TEST_ENGINE_CACHE"], ROOT / "rain_deploy/parts/locks/engine.lock"
    argv = [sys.executable, str(SCRIPT), "--cache", cache, "--lock", str(lock)]
    sha256 = subprocess.run(argv, capture_output=True, check=True, text=True, timeout=590).stdout.split()[-1]
    answer = subprocess.run(
        [f"{cache}/{sha256}/rain", "--version"], capture_output=True, check=True, text=True
    )
    assert answer.stdout.startswith("Rain 0.4.0")
