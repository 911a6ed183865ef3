"""Settings of all sources together, the provider that they choose, and the specs that they make."""

import difflib
import getpass
import hashlib
import os
import socket
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rain_deploy.core.machine import Machines
from rain_deploy.core.spec import NO_JOURNAL, ClusterSpec, EngineSpec, EnvironmentSpec, RunSpec
from rain_deploy.errors import InputError, UsageError
from rain_deploy.options.kinds import flat, read
from rain_deploy.options.table import CLOUD, OPTIONS, Group

Settings = Mapping[str, Any]  # checked values by the name of their option; what is absent was not set
REHEARSAL = "-rehearsal"  # ends the name of a rehearsal's cluster
REHEARSAL_NAME = 22  # letters of the cluster's own name in it
KEYS = {option.toml: option for option in OPTIONS.values() if option.toml}


def load(explicit: Path | None, cwd: Path) -> Settings:
    """Return the settings of ``explicit`` (--config), else of ./rain-deploy.toml if any.  InputError."""
    path = explicit if explicit is not None else cwd / "rain-deploy.toml"
    if explicit is None and not path.exists():
        return {}
    content = read(path, "config file")
    again = f"correct {path}, then type the same command again"
    try:
        document = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}", next_step=again) from error
    settings: dict[str, Any] = {}
    for key, value in flat(document, KEYS):
        if key not in KEYS:
            tables = {known.partition(".")[0] for known in KEYS}
            near = difflib.get_close_matches(key, [*KEYS, *tables], n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(sorted(KEYS))}"
            raise InputError(f"{path}: unknown key {key!r}; {hint}", next_step=again)
        try:
            settings[KEYS[key].name] = KEYS[key].kind.check(value, path.parent.absolute())
        except ValueError as error:
            message = f"{path}: {key}: expected {error}, got {value!r}"
            raise InputError(message, next_step=again) from error
    return settings


def checked(values: Mapping[str, object], base: Path) -> Settings:
    """Return the values of Python keywords as settings; paths are relative to ``base``.  InputError."""
    settings: dict[str, Any] = {}
    for name, value in values.items():
        try:
            settings[name] = OPTIONS[name].kind.check(value, base)
        except ValueError as error:
            raise InputError(f"{name}: expected {error}, got {value!r}") from error
    return settings


def merged(over: Settings, under: Settings) -> Settings:
    """Return ``over`` (flags, environment) joined with ``under`` (TOML), as the table says."""
    both = {name: OPTIONS[name].merge(under[name], over[name]) for name in over if name in under}
    return {**under, **over, **both}


def cluster_spec(name: str, provider: tuple[str, str], settings: Settings) -> ClusterSpec:
    """Return the spec of a cluster on ``provider`` (its name, and why this one).  InputError."""
    listed = len(settings.get("hosts", ())) if provider[0] == "hosts" else 0
    nodes = settings.get("nodes") or listed or None
    _refuse(settings, nodes, listed)
    fields = _fields("cluster", settings)
    own = {**fields[""], "nodes": nodes, "owner": owner(settings)}
    return ClusterSpec(
        name=name,
        provider=provider[0],
        provider_reason=provider[1],
        environment=EnvironmentSpec(**fields["environment"]),
        engine=EngineSpec(**fields["engine"]),
        machines=Machines(**fields["machines"]),
        **own,
    )


def rehearsal_spec(name: str, settings: Settings) -> ClusterSpec:
    """Return the spec of the local node of a rehearsal for a cluster; only its Python packages are the same.

    Debian packages and a set-up script would change this machine.  InputError.
    """
    kept = ("requirements", "packages", "upgrade", "engine_url", "engine_sha256", "owner")
    packages = {key: value for key, value in settings.items() if key in kept}
    local = f"{name[:REHEARSAL_NAME]}{REHEARSAL}"
    settings = {**packages, "nodes": 1, "journal": NO_JOURNAL}
    return cluster_spec(local, ("local", "rehearsals run on this machine"), settings)


def run_spec(
    script: Path, args: tuple[str, ...], given: Settings, toml: Settings, environ: Mapping[str, str]
) -> RunSpec:
    """Return the spec of one run of ``script``, by what was given (flags or keywords) and the TOML."""
    fields = _fields("run", merged(given, toml))[""]
    return RunSpec(script=script, args=args, again=tuple(_again(given, environ)), **fields)


def _again(given: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the flags without which another run would not be the same; values may be secrets."""
    for path in given.get("files", ()):
        yield from ("--files", str(path))
    for name, value in given.get("env", ()):
        yield from ("--env", name if environ.get(name) == value else f"{name}=…")
    if given.get("timeout"):
        yield from ("--timeout", f"{given['timeout']:.10g}s")
    if given.get("max_cost"):
        yield from ("--max-cost", f"{given['max_cost']:.10g}")
    for name in ("fail_fast", "replace_lost"):
        yield from OPTIONS[name].flags if given.get(name) else ()
    yield from OPTIONS["companion"].flags if given.get("companion") is False else ()


def owner(settings: Settings) -> str:
    """Return the owner of what is made: as configured, else a stable word for this user on this machine."""
    if settings.get("owner"):
        return str(settings["owner"])
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        user = str(os.getuid())
    return f"{user}-{hashlib.sha256(f'{user}@{socket.gethostname()}'.encode()).hexdigest()[:8]}"


def _fields(spec: str, settings: Settings) -> Mapping[str, dict[str, Any]]:
    """Return the fields that settings fill, by the part of the spec that they are in ("": itself)."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, value in settings.items():
        targets = OPTIONS[name].to.split()
        filled: list[object]
        match name:
            case "packages":
                wheels = tuple(item for item in value if isinstance(item, Path))
                filled = [tuple(item for item in value if item not in wheels), wheels]
            case "hosts":
                filled = [tuple(entry for entry, _ in value), tuple(pair for pair in value if pair[1])]
            case "prices":
                filled = [tuple(pair for pair in value if pair[0] != "currency"), dict(value).get("currency")]
            case _:
                filled = [value] * len(targets)
        for target, content in zip(targets, filled, strict=True):
            root, _, path = target.partition(".")
            part, _, field = path.rpartition(".")
            if root == spec:
                found[part][field] = content
    return found


def _refuse(settings: Settings, nodes: int | None, listed: int) -> None:
    """Raise InputError for numbers that contradict each other, and for files that cannot be read."""
    if listed and nodes and nodes > listed:
        message = f"{nodes} nodes need {nodes} hosts, but {listed} are listed"
        raise InputError(message, next_step=f"list more hosts, or ask for --nodes {listed}")
    least = settings.get("min_nodes")
    if least and nodes and least > nodes:
        message = f"min_nodes is {least}, but nodes is {nodes}"
        raise InputError(message, next_step=f"ask for --min-nodes {nodes} at most")
    if ("engine_url" in settings) != ("engine_sha256" in settings):
        message = "engine.url and engine.sha256 belong together: one of them is missing"
        raise InputError(message, next_step="name both in the config file, or none")
    files = {"requirements": "requirements file", "setup": "setup script", "host_key": "host key file"}
    for name in [name for name in files if name in settings]:
        read(settings[name], files[name])
    for wheel in settings.get("packages", ()):
        if isinstance(wheel, Path) and not wheel.is_file():
            message = f"--with: wheel {wheel} does not exist or is not a file"
            raise InputError(message, next_step="name a wheel file that exists")


def choose_provider(
    flags: Settings,
    toml: Settings,
    *,
    recorded: str | None,
    credentials: Callable[[], str | None],
    must_be_named: bool,
) -> tuple[str, str]:
    """Return the provider, and why this one.

    ``recorded`` is that of the cluster of this name, which counts as named; ``credentials`` says where those
    of the cloud are.  UsageError when it ``must_be_named`` and is not; InputError for hosts given to another
    and for flags about rented machines given to a provider that rents none.
    """
    named = (
        (flags.get("provider"), "named on the command line or in the environment"),
        (toml.get("provider"), "named in the config file"),
        ("hosts" if flags.get("hosts") or toml.get("hosts") else None, "because hosts are listed"),
        (recorded, "as when this cluster was created"),
    )
    provider, reason = next((pair for pair in named if pair[0]), (None, ""))
    if flags.get("hosts") and provider != "hosts":
        message = f"hosts are listed, but the provider is {provider}"
        raise InputError(message, next_step="rain-deploy up --provider hosts --hosts …")
    if provider is None:
        if must_be_named:
            message = "no provider given; pass --provider when not interactive"
            raise UsageError(message, next_step=f"add --provider local, or --provider {CLOUD}")
        found = credentials()
        provider, reason = (
            (CLOUD, f"no provider given, and its credentials were found: {found}")
            if found
            else ("local", "no provider given, and no cloud credentials were found")
        )
    refuse_rented(provider, flags)
    return provider, reason


def refuse_rented(provider: str, flags: Settings) -> None:
    """Raise InputError if ``flags`` about rented machines are given to a provider that rents none.

    Raises UsageError for ``--replace-lost`` there.
    """
    if flags.get("replace_lost") and provider != CLOUD:
        why = f"rain-deploy does not create machines of provider {provider}, so it cannot replace a lost one"
        raise UsageError(
            f"--replace-lost: {why}", next_step="leave it out; `rain-deploy up` starts a lost node"
        )
    rented = [OPTIONS[name] for name, value in flags.items() if value and name in OPTIONS]
    given = [(o.flags or (o.name,))[-1] for o in rented if o.group is Group.RENTED or o.name == "then_off"]
    if given and provider != CLOUD:
        raise InputError(
            f"{', '.join(given)}: only for machines that rain-deploy rents; those of provider {provider} "
            "cost nothing here and are never powered off",
            next_step=f"leave out {' and '.join(given)}, or use --provider {CLOUD}",
        )
