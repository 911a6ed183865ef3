"""Settings of all sources together, and the ClusterSpec and RunSpec that they make."""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rain_deploy.core.machine import Machines
from rain_deploy.core.spec import ClusterSpec, EngineSpec, EnvironmentSpec, RunSpec
from rain_deploy.errors import InputError
from rain_deploy.options.kinds import read
from rain_deploy.options.table import OPTIONS, Option

Settings = Mapping[str, Any]
"""Checked values by the name of their option; what is absent was not set."""


def checked(values: Mapping[str, object], base: Path) -> Settings:
    """Return the values of Python keywords as settings; paths are relative to ``base``.  InputError."""
    settings: dict[str, Any] = {}
    for name, value in values.items():
        if name not in OPTIONS:
            raise InputError(f"there is no setting {name}", next_step=f"settings: {', '.join(OPTIONS)}")
        try:
            settings[name] = OPTIONS[name].kind.check(value, base)
        except ValueError as error:
            raise InputError(f"{name}: expected {error}, got {value!r}") from error
    return settings


def merged(over: Settings, under: Settings) -> Settings:
    """Return ``over`` (flags, environment) joined with ``under`` (TOML), as the table says."""
    both = {name: OPTIONS[name].merged(over[name], under[name]) for name in over if name in under}
    return {**under, **over, **both}


def selected(settings: Settings, *names: str) -> Settings:
    """Return the settings of these names alone."""
    return {name: settings[name] for name in names if name in settings}


def cluster_spec(name: str, provider: tuple[str, str], settings: Settings) -> ClusterSpec:
    """Return the spec of a cluster on ``provider`` (its name, and why this one).  InputError."""
    fields = _fields("cluster", settings)
    listed = len(settings.get("hosts", ())) if provider[0] == "hosts" else 0
    nodes = settings.get("nodes") or listed or None
    _refuse_numbers(settings, nodes, listed)
    _refuse_files(settings)
    return ClusterSpec(
        **{
            **fields[""],
            "name": name,
            "provider": provider[0],
            "provider_reason": provider[1],
            "nodes": nodes,
            "owner": owner(settings),
            "environment": EnvironmentSpec(**fields.get("environment", {})),
            "engine": EngineSpec(**fields.get("engine", {})),
            "machines": Machines(**fields.get("machines", {})),
        }
    )


def run_spec(script: Path, args: tuple[str, ...], settings: Settings) -> RunSpec:
    """Return the spec of one run of ``script``."""
    return RunSpec(script=script, args=args, **_fields("run", settings)[""])


def owner(settings: Settings) -> str:
    """Return the owner of what is made: as configured, else a stable word for this user on this machine."""
    if settings.get("owner"):
        return str(settings["owner"])
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        user = str(os.getuid())
    return f"{user}-{hashlib.sha256(f'{user}@{socket.gethostname()}'.encode()).hexdigest()[:8]}"


def _fields(spec: str, settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the fields that settings fill, by the part of the spec that they are in ("": itself)."""
    found: dict[str, dict[str, Any]] = {"": {}}
    for name, value in settings.items():
        for target, filled in _targets(OPTIONS[name], value):
            root, _, path = target.partition(".")
            if root == spec:
                part, _, field = path.rpartition(".")
                found.setdefault(part, {})[field] = filled
    return found


def _targets(option: Option, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (field, value) pairs."""
    targets = option.to.split()
    match option.name:
        case "packages":
            names = tuple(item for item in value if isinstance(item, str))
            yield from zip(targets, (names, tuple(item for item in value if item not in names)), strict=True)
        case "hosts":
            entries = tuple(entry for entry, _ in value)
            yield from zip(targets, (entries, tuple(pair for pair in value if pair[1])), strict=True)
        case "prices":
            prices = tuple(pair for pair in value if pair[0] != "currency")
            yield from zip(targets, (prices, dict(value).get("currency")), strict=True)
        case _:
            yield from ((target, value) for target in targets)


def _refuse_numbers(settings: Settings, nodes: int | None, listed: int) -> None:
    if listed and nodes and nodes > listed:
        raise InputError(
            f"{nodes} nodes need {nodes} hosts, but {listed} are listed",
            next_step=f"list more hosts, or ask for --nodes {listed}",
        )
    least = settings.get("min_nodes")
    if least and nodes and least > nodes:
        raise InputError(
            f"min_nodes is {least}, but there are {nodes} nodes",
            next_step=f"ask for --min-nodes {nodes} at most",
        )
    if ("engine_url" in settings) != ("engine_sha256" in settings):
        raise InputError(
            "engine.url and engine.sha256 belong together: one of them is missing",
            next_step="name both in the config file, or none",
        )


def _refuse_files(settings: Settings) -> None:
    for name, what in (
        ("requirements", "requirements file"),
        ("setup", "setup script"),
        ("host_key", "host key file"),
    ):
        if name in settings:
            read(settings[name], what)
    for wheel in settings.get("packages", ()):
        if isinstance(wheel, Path) and not wheel.is_file():
            raise InputError(
                f"--with: wheel {wheel} does not exist or is not a file",
                next_step="name a wheel file that exists",
            )
