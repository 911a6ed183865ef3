"""Brings the Rain engine into a machine's cache: built from its crate, or downloaded.

Run by itself with any Python from 3.11; the standard library only.  The last line on stdout is the SHA-256 of
the binary, which then lies at ``CACHE/<sha256>/rain``; ``CACHE/from/<key>`` holds the same digest, where the
key is the SHA-256 of the lock (build) or of the download.  An entry appears by rename or not at all.  The
caller sees to it that one runs at a time.
"""

import argparse
import contextlib
import functools
import hashlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tomllib
import urllib.request
from pathlib import Path
from typing import NamedTuple

CRATE = "rain_server"
TARGET = "x86_64-unknown-linux-gnu"
OPTIMISED = "# optimised: "
SILENCE_S = 120.0  # A download that says nothing for so long has failed
FETCHER = f"""[package]
name = "engine-source"
version = "0.0.0"
edition = "2021"

[dependencies]
{CRATE} = "={{version}}"
"""
_say = functools.partial(print, file=sys.stderr, flush=True)


class BuildError(Exception):
    """A failed build, with one message for the user."""


class Pin(NamedTuple):
    """One line of engine.lock."""

    name: str
    version: str
    sha256: str


def read_pins(text: str) -> frozenset[Pin]:
    """Return the pins of lines ``name version sha256``; ``#`` starts another line."""
    return frozenset(Pin(*line.split()) for line in text.splitlines() if line.strip() and line[0] != "#")


def profile(text: str) -> str:
    """Return the lines of a Cargo.toml that optimise only the engine and crates after OPTIMISED in the lock.

    These are all that runs for each task.  To optimise the others too takes half of the build's time.
    """
    found = [line.removeprefix(OPTIMISED).split() for line in text.splitlines() if line.startswith(OPTIMISED)]
    if not found:
        return ""
    levels = {'"*"': 0, **dict.fromkeys(found[0], 3)}
    return "\n".join(f"[profile.release.package.{name}]\nopt-level = {n}\n" for name, n in levels.items())


def locked(cargo_lock: str) -> frozenset[Pin]:
    """Return the packages that a Cargo.lock takes from a registry."""
    packages = tomllib.loads(cargo_lock)["package"]
    return frozenset(Pin(p["name"], p["version"], p["checksum"]) for p in packages if "source" in p)


def render_lock(own: str, pins: frozenset[Pin]) -> str:
    """Return cargo's own lock with our packages in place of its; cargo fills in who needs whom."""
    lock = tomllib.loads(own)
    source = next(package["source"] for package in lock["package"] if "source" in package)
    roots = [package for package in lock["package"] if "source" not in package]
    blocks = [f'[[package]]\nname = "{root["name"]}"\nversion = "{root["version"]}"\n' for root in roots]
    blocks += [
        f'[[package]]\nname = "{name}"\nversion = "{version}"\nsource = "{source}"\nchecksum = "{sha256}"\n'
        for name, version, sha256 in sorted(pins)
    ]
    return "\n".join([f"version = {lock['version']}\n", *blocks])


def _cargo(*args: str, cwd: Path, total: int = 0) -> list[str]:
    """Run cargo, which ends with us, and return its lines; say which of ``total`` packages it compiles."""
    process = subprocess.Popen(
        ["cargo", *args],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    lines: list[str] = []
    compiled = 0
    try:
        for line in process.stdout or ():
            lines.append(line)
            if total and line.split()[:1] == ["Compiling"]:
                compiled += 1
                far = f"{compiled}/{total}" if compiled < total else f"(the last of {total}: 1 to 2 minutes)"
                _say(f"Compiling {line.split()[1]} {far}")
        if process.wait():
            raise BuildError(f"cargo {args[0]} failed:\n{''.join(lines[-30:])}")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    return lines


def _pin(project: Path, pins: frozenset[Pin]) -> None:
    """Make ``project`` depend on exactly ``pins``, and have them on this machine."""
    _cargo("generate-lockfile", cwd=project)
    lock = project / "Cargo.lock"
    lock.write_text(render_lock(lock.read_text(), pins))
    _cargo("fetch", "--target", TARGET, cwd=project)
    if (found := locked(lock.read_text())) != pins:
        differing = ", ".join(sorted({f"{p.name} {p.version}" for p in found ^ pins}))
        raise BuildError(f"cargo does not keep the locked set of packages; it differs in: {differing}")


def _build(work: Path, lock: str) -> Path:
    """Compile the engine inside ``work``, except for a cargo home that the user has; return the binary."""
    pins = read_pins(lock)
    home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    home = home if home.is_dir() else work / "cargo"
    os.environ |= {
        "PATH": os.pathsep.join(_places()),
        "CARGO_HOME": str(home),
        "CARGO_TARGET_DIR": str(work / "target"),
        "CARGO_PROFILE_RELEASE_STRIP": "symbols",
        "CARGO_TERM_COLOR": "never",
        "CARGO_TERM_PROGRESS_WHEN": "never",
    }
    source = _unpack_crate(work, pins, home)
    with (source / "Cargo.toml").open("a") as manifest:
        manifest.write(f"\n[workspace]\n\n{profile(lock)}")  # the folder may lie inside somebody's workspace
    _pin(source, frozenset(p for p in pins if p.name != CRATE))
    tree = _cargo("tree", "--target", TARGET, "--edges", "normal,build", "--prefix", "none", cwd=source)
    total = len({tuple(line.split()[:2]) for line in tree})  # name and version; marks may follow
    flags = ("--path", ".", "--locked", "--force", "--no-track", "--root", str(work / "out"))
    _cargo("install", *flags, cwd=source, total=total)
    return work / "out/bin/rain"


def _unpack_crate(work: Path, pins: frozenset[Pin], home: Path) -> Path:
    """Return a folder with the crate's source.  Cargo fetches it for a project that depends on it."""
    crate = next(p for p in pins if p.name == CRATE)
    fetcher, sources = work / "fetcher", work / "source"
    for folder in (fetcher, sources):
        shutil.rmtree(folder, ignore_errors=True)
    (fetcher / "src").mkdir(parents=True)
    (fetcher / "src/lib.rs").touch()
    (fetcher / "Cargo.toml").write_text(FETCHER.format(version=crate.version) + "\n[workspace]\n")
    _pin(fetcher, pins)
    for archive in home.glob(f"registry/cache/*/{CRATE}-{crate.version}.crate"):
        if _sha256_of(archive) == crate.sha256:
            with tarfile.open(archive) as tar:
                tar.extractall(sources)  # noqa: S202 - its hash is ours
            return sources / f"{CRATE}-{crate.version}"
    raise BuildError(f"cargo did not fetch {CRATE} {crate.version} with the SHA-256 {crate.sha256}")


def _download(work: Path, url: str, sha256: str) -> Path:
    """Fetch the binary, or an archive that holds it, into ``work``.  Refuse one with another hash."""
    archive, binary = work / "download", work / "rain"
    _say(f"Downloading {url}")
    try:
        with urllib.request.urlopen(url, timeout=SILENCE_S) as response, archive.open("wb") as out:  # noqa: S310
            shutil.copyfileobj(response, out)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise BuildError(f"cannot download {url}: {error}") from error
    if (found := _sha256_of(archive)) != sha256:
        raise BuildError(f"{url} has the SHA-256 {found}, not {sha256}")
    if not tarfile.is_tarfile(archive):
        return archive
    with tarfile.open(archive) as tar:
        files = [member for member in tar if member.isfile()]
        named = [member for member in files if Path(member.name).name == "rain"] or files
        if len(named) != 1 or not (content := tar.extractfile(named[0])):
            raise BuildError(f"{url} does not hold one file named rain")
        with binary.open("wb") as out:
            shutil.copyfileobj(content, out)
    return binary


def _install(cache: Path, binary: Path, key: str) -> str:
    """Check that the binary runs here and give it its place in the cache; return its SHA-256."""
    binary.chmod(0o755)
    argv = [str(binary), "--version"]
    try:
        answer = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"the engine does not run on this machine: {error}") from error
    if answer.returncode or not answer.stdout.startswith("Rain "):
        raise BuildError(f"the engine does not run on this machine: {answer.stderr.strip() or answer.stdout}")
    sha256, note = _sha256_of(binary), binary.with_name("note")
    for folder in (sha256, "from"):
        (cache / folder).mkdir(exist_ok=True)
    binary.replace(cache / sha256 / "rain")
    note.write_text(sha256 + "\n")
    note.replace(cache / "from" / key)
    return sha256


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bring(cache: Path, options: argparse.Namespace) -> str:
    """Return the SHA-256 of the engine that the options ask for, which is then in the cache."""
    key = options.sha256 if options.url else _sha256_of(options.lock)
    with contextlib.suppress(OSError):
        sha256 = (cache / "from" / key).read_text().strip()
        if _sha256_of(cache / sha256 / "rain") == sha256:
            return sha256
    work = cache / (".download" if options.url else ".build")
    work.mkdir(parents=True, exist_ok=True)
    if options.url:
        try:
            return _install(cache, _download(work, options.url, options.sha256), key)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    sha256 = _install(cache, _build(work, options.lock.read_text()), key)
    # Only after success: the parts of an interrupted build are used by the next one.
    shutil.rmtree(work, ignore_errors=True)
    return sha256


def _places() -> list[str]:
    """Return the places of programs, without those whose cargo does not run: rustup's without a toolchain."""
    places = [*os.environ["PATH"].split(os.pathsep), str(Path.home() / ".cargo/bin")]
    return [place for place in places if not (Path(place) / "cargo").exists() or _runs(Path(place) / "cargo")]


def _runs(program: Path) -> bool:
    ended = subprocess.run([program, "--version"], capture_output=True, check=False, timeout=60)
    return ended.returncode == 0


def main() -> int:
    """Return the exit status of the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--lock", type=Path, help="build by this engine.lock")
    what.add_argument("--url", help="download from here")
    parser.add_argument("--sha256", help="of the download")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: sys.exit(128 + received))
    try:
        print(_bring(options.cache.absolute(), options))
    except (BuildError, OSError) as error:
        _say(f"engine: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
