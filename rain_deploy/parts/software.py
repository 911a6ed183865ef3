"""The software of a node: our code, the Python environment, and the engine; each named by its digest."""

import abc
import functools
import hashlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from rain_deploy.core.cluster import Node
from rain_deploy.core.spec import NODE_PYTHON_TEXT, EngineSpec, ResolvedEnvironment
from rain_deploy.core.step import PayloadFile, Stage, Step
from rain_deploy.errors import InputError
from rain_deploy.parts.part import Part, Shared, facts_of, having
from rain_deploy.parts.shell import PACKAGE, step
from rain_deploy.parts.supply.cache import uv_pin

DEADLINE_S = 3600.0  # an installation or a build on a slow machine, with its downloads
DISK_BYTES = 6 << 30  # an environment with TensorFlow, the engine's build, and room for work
ENGINE = "engine"  # name under which the server node reports the digest of the engine that it made
BUILD_PACKAGES = {
    "cargo": ("cargo-web", "rustc-web"),
    "rustc": ("cargo-web", "rustc-web"),
    "capnp": ("capnproto",),
    "cc": ("gcc", "libc6-dev"),
    "libsqlite3.so": ("libsqlite3-dev", "pkg-config"),
}
"""Debian packages that contain a tool of the build."""
_OTHER_PYTHON = re.compile(r"Linux (Debian (?!12 )[0-9]+ \(\w+\)|Ubuntu [0-9]{2}\.[0-9]{2}( LTS)?) 64-bit")
"""Exoscale's names of its own templates with another Python than 3.11."""
_APT_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.](:[a-z0-9]+)?(=\S+)?")


@functools.cache
def code_bundle() -> tuple[str, tuple[PayloadFile, ...]]:
    """Return our node code: its digest, and its files, with paths below ``layout.code(digest)``."""
    node, companion = PACKAGE / "node", PACKAGE / "companion"
    places = [("__main__.py", node / "launch.py")]
    places += [(f"node/{path.relative_to(node)}", path) for path in sorted(node.rglob("*.py"))]
    apart = companion / "compat"  # part of the Python environment
    ours = sorted(path for path in companion.rglob("*.py") if not path.is_relative_to(apart))
    places += [(f"site/rain_deploy_companion/{path.relative_to(companion)}", path) for path in ours]
    files = tuple(PayloadFile(place, path.read_bytes()) for place, path in sorted(places))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.path} {len(file.data)}\n".encode() + file.data)
    return digest.hexdigest()[:16], files


@dataclass(frozen=True, slots=True)
class Software(Part):
    """Software below a path with its digest; two versions may exist side by side."""

    shared: Shared
    stage_name = "install"

    @property
    @abc.abstractmethod
    def makes(self) -> str:
        """Return the file that exists once it is installed; empty while its digest is not known."""

    def done(self, node: Node) -> Node:
        return having(node, self.makes) if self.makes else node

    def damaged(self, node: Node) -> bool:
        """Return True if the node has it, but damaged."""
        return self.makes in facts_of(node).damaged

    def title(self, node: Node, name: str) -> str:
        """Return the name of the step that installs it."""
        return f"{name}, which was damaged" if self.damaged(node) else name


class Code(Software):
    """The node code."""

    @property
    def makes(self) -> str:
        return f"{self.shared.layout.code(code_bundle()[0])}/__main__.py"

    def lacks(self, node: Node) -> str | None:
        if self.makes in facts_of(node).have:
            return None
        what = "is damaged and will be sent again" if self.damaged(node) else "will be sent"
        return f"the node code {what}"

    def stage(self, node: Node) -> Stage:
        """Place the bundle by rename: nodes that share a machine may do it at once."""
        digest, files = code_bundle()
        directory = self.shared.layout.code(digest)
        name = self.title(node, "node code")
        steps = (step(name, "code.sh.j2", directory=directory, makes=self.makes),)
        return Stage(self.stage_name, steps, tuple(PayloadFile(f"code/{f.path}", f.data) for f in files))


def node_lock() -> str:
    """Return our own locked set (extra ``node``), with hashes."""
    return (PACKAGE / "parts/locks/node.lock").read_text("ascii")


def compat_files() -> tuple[tuple[str, bytes], ...]:
    """Return (name, content) of what makes Rain's client work on Python 3.11; part of every environment."""
    files = sorted((PACKAGE / "companion/compat").iterdir())
    return tuple((file.name, file.read_bytes()) for file in files if file.suffix in {".py", ".pth"})


def verify_script() -> str:
    """Return the script by which an environment's own Python checks the environment."""
    return (PACKAGE / "node/verify.py").read_text("ascii")


def environment_digest(environment: ResolvedEnvironment) -> str:
    """Return the environment's name: any change of what it is made from changes it."""
    digest = hashlib.sha256(f"{NODE_PYTHON_TEXT}\n".encode())
    parts = [environment.lock_text.encode(), environment.setup.encode()]
    parts += [package.encode() for package in environment.apt]
    parts += [part for file in (*environment.wheels, *compat_files()) for part in (file[0].encode(), file[1])]
    for part in parts:
        digest.update(b"%d\n%b" % (len(part), part))
    return digest.hexdigest()[:32]


def check_packages(apt: tuple[str, ...]) -> None:
    """Refuse names that apt-get would not take as a package to install.  Raises InputError."""
    for package in apt:
        if not _APT_NAME.fullmatch(package):
            message = f"apt: {package!r} is not a Debian package name"
            raise InputError(message, next_step="correct `apt` in the config file")


class Environment(Software):
    """The Python environment."""

    @property
    def _path(self) -> str:
        return self.shared.layout.environment(self.shared.cluster.env_digest)

    @property
    def makes(self) -> str:
        return f"{self._path}/.ok"

    def refusals(self, node: Node) -> Iterator[InputError]:
        facts, needed, name = facts_of(node), self.lacks(node), node.name
        if facts.arch != "x86_64":
            yield InputError(f"it is {facts.arch}; nodes are x86-64 Linux", node=name)
        if (self.shared.environment.apt or self.shared.environment.setup) and not facts.root:
            yield InputError(
                f"`apt` and `setup` need root, and {facts.user} has neither root nor passwordless sudo there",
                node=name,
                next_step="leave apt and setup out, or use an account with root",
            )
        if needed and not facts.python:
            yield no_python(node)
        disk = facts.disk(self.shared.layout.base)
        if disk.problem:
            yield InputError(
                f"{disk.place} is {disk.problem}; rain-deploy needs {disk.base} on it",
                node=name,
                next_step="remount it, or use another machine or user",
            )
        elif needed and disk.free_bytes < DISK_BYTES:
            yield InputError(
                f"{disk.free_bytes >> 20} MiB of disk are free at {disk.place}; "
                f"{DISK_BYTES >> 20} MiB are needed",
                node=name,
                next_step="free disk space there, or use machines with a larger disk",
            )

    def lacks(self, node: Node) -> str | None:
        if self.makes in facts_of(node).have:
            return None
        if self.damaged(node):
            return "the Python environment is damaged and will be installed again"
        return "the Python environment will be installed (2 GB of disk)"

    def stage(self, node: Node) -> Stage:
        """Install ``apt`` packages, run ``setup``, let uv build it.  The payload leaves out what is there."""
        facts, layout, environment = facts_of(node), self.shared.layout, self.shared.environment
        uv = layout.uv(uv_pin().binary_sha256)
        steps = [step("apt packages", "apt.sh.j2", packages=environment.apt)] if environment.apt else []
        payload = []
        if setup := environment.setup:
            line, marker = setup.partition("\n")[0], f"{self._path}.setup"
            interpreter = shlex.join(line[2:].split() if line.startswith("#!") else ["sh"])
            steps.append(step("set-up script", "setup.sh.j2", interpreter=interpreter, makes=marker))
            payload.append(PayloadFile("env/setup", setup.encode()))
        if self.lacks(node):
            sha256 = uv_pin().binary_sha256
            steps.append(step("uv", "place.sh.j2", makes=uv, sha256=sha256, source="env/uv"))
            payload.append(PayloadFile("env/requirements.txt", environment.lock_text.encode()))
            payload += [PayloadFile(f"env/wheels/{name}", data) for name, data in environment.wheels]
            payload += [PayloadFile(f"env/compat/{name}", data) for name, data in compat_files()]
            if self.shared.uv is not None and uv not in facts.have:
                payload.append(PayloadFile("env/uv", self.shared.uv, 0o755))
        built = step(
            self.title(node, "environment"),
            "environment.sh.j2",
            parallel=True,
            makes=self.makes,
            path=self._path,
            python=facts.python,
            uv=uv,
            version=NODE_PYTHON_TEXT,
            verify=f"cd -- {shlex.quote(self._path)} && bin/python -I -S -c {shlex.quote(verify_script())}",
        )
        steps.append(built)
        return Stage(self.stage_name, tuple(steps), tuple(payload), deadline_s=DEADLINE_S, installs=True)


def refuse_template(name: str) -> None:
    """Raise InputError for a machine template that brings another Python, before it is paid for."""
    if _OTHER_PYTHON.fullmatch(name):
        message = f"template {name} has no Python {NODE_PYTHON_TEXT}, which Rain's client needs"
        raise InputError(message, next_step='--template "Linux Debian 12 (Bookworm) 64-bit"')


def no_python(node: Node) -> InputError:
    """Return the refusal of a node without Python 3.11: uv's comes from a page that many cannot reach."""
    return InputError(
        f"there is no Python {NODE_PYTHON_TEXT}, which Rain's client needs",
        node=node.name,
        next_step=f"use Debian 12, or install Python {NODE_PYTHON_TEXT} there as python{NODE_PYTHON_TEXT}",
    )


def engine_lock() -> str:
    """Return lines ``name version sha256`` of every crate that the engine is built from."""
    return (PACKAGE / "parts/locks/engine.lock").read_text("ascii")


def engine_key(spec: EngineSpec) -> str:
    """Return what an engine comes from: the digest of the user's download, else of our lock."""
    return spec.sha256 or hashlib.sha256(engine_lock().encode()).hexdigest()


def build_packages(missing: tuple[str, ...]) -> tuple[str, ...]:
    """Return the Debian packages that contain the missing tools, each once."""
    return tuple(dict.fromkeys(package for tool in missing for package in BUILD_PACKAGES[tool]))


class Engine(Software):
    """The engine.  Where none is known yet, the server node makes it, and it is handed on from there."""

    @property
    def makes(self) -> str:
        sha256 = self.shared.cluster.engine_sha256
        return self.shared.layout.engine(sha256) if sha256 else ""

    def _makes(self, node: Node) -> bool:
        cluster = self.shared.cluster
        return not cluster.engine_sha256 and node.name == cluster.server.name

    def refusals(self, node: Node) -> Iterator[InputError]:
        facts, shared = facts_of(node), self.shared
        if not self._makes(node):
            return
        if not facts.python:
            yield no_python(node)
        installs = shared.traits.installs_packages and facts.root
        if facts.missing_tools and not shared.engine.url and not installs:
            packages = " ".join(build_packages(facts.missing_tools))
            yield InputError(
                "no Rain engine is cached on this machine, and "
                f"{node.name} cannot build one: {', '.join(facts.missing_tools)} missing",
                node=node.name,
                next_step=f"sudo apt-get install --no-install-recommends {packages}",
            )

    def lacks(self, node: Node) -> str | None:
        facts, cluster, url = facts_of(node), self.shared.cluster, self.shared.engine.url
        if cluster.engine_sha256:
            if self.makes in facts.have:
                return None
            again = " again, because it is damaged there" if self.damaged(node) else ""
            return f"the Rain engine will be sent{again}"
        if not self._makes(node):
            return f"the Rain engine will be sent from {cluster.server.name}"
        if url:
            return f"the Rain engine will be downloaded from {url}"
        packages = ", ".join(build_packages(facts.missing_tools))
        first = f"{packages} will be installed, and " if packages else ""
        return f"{first}the Rain engine will be built (3 to 5 minutes)"

    def stage(self, node: Node) -> Stage:
        """Place the engine, or make it and report its digest as data ENGINE."""
        facts, shared, spec = facts_of(node), self.shared, self.shared.engine
        steps: list[Step] = []
        payload: list[PayloadFile] = []
        if sha256 := shared.cluster.engine_sha256:
            place, source, name = self.makes, "engine/rain", self.title(node, "engine")
            steps.append(step(name, "place.sh.j2", parallel=True, makes=place, sha256=sha256, source=source))
            if shared.binary is not None and place not in facts.have:
                payload.append(PayloadFile(source, shared.binary, 0o755))
        elif self._makes(node):
            script = (PACKAGE / "parts/scripts/build_engine.py").read_bytes()
            payload.append(PayloadFile("engine/build_engine.py", script))
            if not spec.url:
                payload.append(PayloadFile("engine/engine.lock", engine_lock().encode()))
                if packages := build_packages(facts.missing_tools):
                    steps.append(step("build tools", "apt.sh.j2", packages=packages))
            # The script itself finds what an earlier call of it made.
            python, cache = facts.python, shared.layout.engines
            name = "engine download" if spec.url else "engine build"  # not as short as placing one
            steps.append(step(name, "engine.sh.j2", parallel=True, python=python, cache=cache, spec=spec))
        return Stage(self.stage_name, tuple(steps), tuple(payload), deadline_s=DEADLINE_S, installs=True)
