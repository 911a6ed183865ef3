"""A cargo that knows a crate of two dependencies and compiles it to a shell script.

Placed on PATH by tests; keeps its state in the folder FAKE_CARGO: ``calls`` (a line per call), and what a
test put there: ``drift`` (it resolves to another version, whatever the lock says), ``broken`` (the compile
fails), ``slow`` (the compile waits for as long as the file is there).  ``manifest`` is what it compiled by.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tarfile
import time
from pathlib import Path

STATE = Path(os.environ["FAKE_CARGO"])
SOURCE = "registry+https://crates.example/index"
NEWEST = {"rain_server": "0.4.0", "alpha": "1.9.0", "beta": "2.9.0"}
ENGINE = '#!/bin/sh\necho "Rain 0.4.0"\n'


def crate() -> bytes:
    """The crate's archive, the same bytes every time."""
    manifest = b'[package]\nname = "rain_server"\nversion = "0.4.0"\n'
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("rain_server-0.4.0/Cargo.toml")
        member.size = len(manifest)
        archive.addfile(member, io.BytesIO(manifest))
    return buffer.getvalue()


def checksum(name: str, version: str) -> str:
    """What the index says of a package."""
    content = crate() if name == "rain_server" else f"{name} {version}".encode()
    return hashlib.sha256(content).hexdigest()


def block(name: str, version: str) -> str:
    return (
        f'[[package]]\nname = "{name}"\nversion = "{version}"\n'
        f'source = "{SOURCE}"\nchecksum = "{checksum(name, version)}"\n'
    )


def generate_lockfile() -> None:
    root = "rain_server" if 'name = "rain_server"' in Path("Cargo.toml").read_text() else "engine-source"
    blocks = [f'[[package]]\nname = "{root}"\nversion = "0.0.0"\n']
    blocks += [block(name, version) for name, version in NEWEST.items() if name != root]
    Path("Cargo.lock").write_text("version = 4\n\n" + "\n".join(blocks))


def fetch() -> None:
    cached = Path(os.environ["CARGO_HOME"]) / "registry/cache/index/rain_server-0.4.0.crate"
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_bytes(crate())
    if (STATE / "drift").exists():
        lock = Path("Cargo.lock")
        lock.write_text(lock.read_text().replace(block("beta", "2.0.0"), block("beta", "2.9.0")))


def install() -> None:
    (STATE / "manifest").write_text(Path("Cargo.toml").read_text())
    for name in ("alpha", "beta", "rain_server"):
        print(f"   Compiling {name} v1.0.0", flush=True)
        while (STATE / "slow").exists():
            time.sleep(0.02)
    if (STATE / "broken").exists():
        sys.exit("error: linking with `cc` failed")
    root = Path(sys.argv[sys.argv.index("--root") + 1])
    (root / "bin").mkdir(parents=True, exist_ok=True)
    (root / "bin/rain").write_text(ENGINE)


def main() -> None:
    with (STATE / "calls").open("a") as calls:
        calls.write(f"{sys.argv[1]}\n")
    match sys.argv[1]:
        case "generate-lockfile":
            generate_lockfile()
        case "fetch":
            fetch()
        case "tree":
            print("rain_server v0.4.0\nalpha v1.0.0\nbeta v2.0.0\nalpha v1.0.0 (*)")
        case "install":
            install()


if __name__ == "__main__":
    main()
