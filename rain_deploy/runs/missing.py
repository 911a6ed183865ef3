"""Says which flag sends or installs what a run is missing: files of this machine, modules, downloads."""

import contextlib
import json
import os
import re
import shlex
import sys
from importlib import metadata
from pathlib import Path, PurePosixPath

from rain_deploy.cluster.context import Context
from rain_deploy.core.run import RunRecord
from rain_deploy.errors import InputError, RainDeployError
from rain_deploy.node.wire import NeededModule
from rain_deploy.parts.software import node_lock
from rain_deploy.runs.source import read_script
from rain_deploy.runs.states import cluster_of, run_file

_NO_FILE = re.compile(
    r"FileNotFoundError: (?:\[Errno 2\] No such file or directory: )?(.+?)(?: not found\.)?$", re.MULTILINE
)
_NO_MODULE = re.compile(r"(?:ModuleNotFound|Import)Error: No module named '?([\w.]+)", re.MULTILINE)
_NO_HOST = re.compile(
    r"URL fetch failure on \w+://([^/:\s]+)"  # Keras
    r"|ConnectionPool\(host='([^']+)'"  # requests
    r"|[Cc]ould not resolve host:? '?([\w.-]+)"  # curl, git
    r"|[Cc]annot connect to host ([\w.-]+)"  # aiohttp
    r"|unable to resolve host address .([\w.-]+)"  # wget
    r"|urlopen error (?:\[Errno -?\d+\] |timed out)"  # urllib: it names no host
)
_TAIL_BYTES = 20_000


def modules_missing(ctx: Context, record: RunRecord, modules: tuple[NeededModule, ...]) -> InputError:
    """Return the refusal of a run that imports modules which the nodes do not have."""
    found = "; ".join(f"{one.where}, imports {one.name}" for one in modules)
    return InputError(
        f"the nodes do not have what the script imports: {found}; nothing was started",
        next_step=f"the same command again, after: {up_with(ctx, record, [one.name for one in modules])}",
    )


def up_with(ctx: Context, record: RunRecord, modules: list[str]) -> str:
    """Return the command that installs what has these modules, with what is known of the packages' names."""
    packages = {module: package_of(module) for module in modules}
    flags = " ".join(f"--with {package or module}" for module, package in packages.items())
    kept = ctx.store.environment(record.cluster_id)
    again = kept is not None and kept[1].lock_text != node_lock()
    hints = ["repeat the earlier --with and --requirements"] if again else []
    unknown = [module for module, package in packages.items() if not package]
    if len(unknown) == 1:
        hints.append(f"if module {unknown[0]} is in a package of another name, use that name")
    elif unknown:
        named = " and ".join(unknown)
        hints.append(f"if modules {named} are in packages of other names, use those names")
    return f"rain-deploy up -c {record.cluster} {flags}" + (f" ({'; '.join(hints)})" if hints else "")


def package_of(module: str) -> str:
    """Return the name of the package that has a module, if it is installed here; else an empty text."""
    here = installed_here(module)
    return here[0] if here else ""


def installed_here(module: str) -> tuple[str, str] | None:
    """Return the name and version of the package that has a module; None if none is installed here."""
    venv = os.environ.get("VIRTUAL_ENV")
    places = [*map(str, Path(venv).glob("lib/python*/site-packages"))] if venv else []
    for package in metadata.distributions(path=[*places, *sys.path]):
        top = (package.read_text("top_level.txt") or "").split()
        with contextlib.suppress(Exception):  # somebody's broken installation
            if module in top or (not top and _holds(package, module)):
                return str(package.metadata["Name"]), str(package.version)
    return None


def _holds(package: metadata.Distribution, module: str) -> bool:
    return any(PurePosixPath(path).parts[0].partition(".")[0] == module for path in package.files or ())


def advice(ctx: Context, record: RunRecord, failure: str) -> str:
    """Return what may help a script that failed, from the results pulled; empty if nothing is known.

    ``failure`` is the first error of a point.  It, or else the last error on stderr, must be about a module,
    about a file that is here, or about a host that cannot be reached.
    """
    printed = ""
    with contextlib.suppress(OSError), (record.out / "stderr.log").open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        printed = file.read().decode(errors="replace")
    return _advice(ctx, record, failure) or _advice(ctx, record, printed)


def _advice(ctx: Context, record: RunRecord, printed: str) -> str:
    files, modules = [*_NO_FILE.finditer(printed)], [*_NO_MODULE.finditer(printed)]
    if modules and (not files or modules[-1].start() > files[-1].start()):
        return _for_module(ctx, record, modules[-1][1].partition(".")[0])
    named = files[-1][1].strip().strip("'\"") if files else ""
    cwd = ctx.cwd.resolve()
    for text in filter(None, (named.partition(f"/{record.id}/files/")[2], named)):
        here = cwd / text
        if not _exists(here):
            continue
        if text.startswith("/") and not here.is_relative_to(cwd):
            return f"{text} is a path of this machine: use a path relative to the script, and add --files"
        name = os.path.relpath(here, cwd)
        if not _sent(ctx, record, here):
            return f"{name} exists here but was not sent; run again with --files {shlex.quote(name)}"
        return "" if text != named else _for_sent(text, name)  # else the script itself has removed it there
    return _not_here(ctx, record, named) or _for_host(printed)


def _for_sent(text: str, name: str) -> str:
    if text.startswith("/"):
        relative = f"on the nodes it is {name}, relative to the script's working directory"
        return f"{text} is a path of this machine: {relative}"
    absolute = f"open it by an absolute path, which the script makes: os.path.abspath({name!r})"
    return f"{name} was sent, but tasks run in a directory of their own: {absolute}"


def _not_here(ctx: Context, record: RunRecord, named: str) -> str:
    """Return which line reads a file that is not here; empty if the script does not name the file."""
    with contextlib.suppress(InputError):
        text = named.partition(f"/{record.id}/files/")[2] or named
        if line := dict(read_script(ctx.cwd / record.script).reads).get(text):
            where = f"{record.script}, line {line}"
            return f"{where} reads {text}, which is not here: put it here, or send it with --files PATH"
    return ""


def _sent(ctx: Context, record: RunRecord, here: Path) -> bool:
    """Ask the server node if this file, or a file in this directory, was sent with the run."""
    names: object = None
    if cluster := cluster_of(ctx, record):
        with contextlib.suppress(RainDeployError, ValueError, RecursionError):
            names = json.loads(run_file(ctx, cluster, record, "shipped.json"))
    sent, cwd = (names if isinstance(names, dict) else {}), ctx.cwd.resolve()
    path = Path(os.path.normpath(here))
    below = [path.relative_to(root).as_posix() for root in (cwd, *cwd.parents) if path.is_relative_to(root)]
    return any(name == one or name.startswith(f"{one}/") for one in below for name in sent)


def _for_host(printed: str) -> str:
    found = [*_NO_HOST.finditer(printed)]
    if not found:
        return ""
    host = next(filter(None, found[-1].groups()), "a host that the script needs")
    proxy = "set a proxy with --env HTTPS_PROXY"
    return f"the nodes could not reach {host}: {proxy}, or download the data here and send it with --files"


def _for_module(ctx: Context, record: RunRecord, module: str) -> str:
    cwd = ctx.cwd.resolve()
    for place in dict.fromkeys((cwd, (cwd / record.script).parent)):
        for path in (place / f"{module}.py", place / module):
            if _exists(path):
                if path.is_file() and _sent(ctx, record, path):
                    return ""
                name = os.path.relpath(path, cwd)
                return f"{name} exists here but was not sent; run again with --files {shlex.quote(name)}"
    return f"the nodes have no module {module}: {up_with(ctx, record, [module])}"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
