"""The keywords of the API's functions, for type checkers and editors.  None means: use the default.

``settings_of`` in ``call.py`` says what the settings do; a test compares these classes with the table.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TypedDict

from rain_deploy.cluster.context import Confirm
from rain_deploy.core.events import EventSink

Place = str | os.PathLike[str]


class Common(TypedDict, total=False):
    """Keywords that every function takes."""

    cluster: str
    """The name of the cluster.  The default is "default"."""
    home: Place | None
    """The directory of state, caches and keys.  The default is that of the command line."""
    cwd: Place | None
    """The directory for relative paths and results.  The default is the current directory."""
    config: Place | None
    """The file to read instead of ``rain-deploy.toml`` in ``cwd``."""
    progress: EventSink | None
    """A function that gets each event, from one thread at a time."""
    yes: bool
    """Answer yes to every question, about money or about runs that would be cancelled."""
    confirm: Confirm | None
    """A function that gets each question and returns True for yes."""


class ClusterKeywords(Common, total=False):
    """Keywords of ``up`` and ``plan``."""

    nodes: int | None
    provider: str | None
    hosts: Place | Sequence[str] | None
    host_key: Place | None
    trust_network: str | Sequence[str] | None
    ssh_port: int | None
    min_nodes: int | None
    cpus_per_node: int | None
    keep_partial: bool | None
    owner: str | None
    zone: str | None
    instance_type: str | None
    disk_size: int | None
    template: str | None
    ttl: float | str | None
    idle: float | str | None
    max_cost: float | None
    allow_ip: str | Sequence[str] | None
    anti_affinity: bool | None
    prices: Mapping[str, object] | None
    requirements: Place | None
    packages: Sequence[Place] | None
    upgrade: bool | None
    apt: Sequence[str] | None
    setup: Place | None
    engine_url: str | None
    engine_sha256: str | None


class _ScriptKeywords(Common, total=False):
    files: Sequence[Place] | None
    env: Mapping[str, str] | None
    timeout: float | str | None
    companion: bool | None
    wait: bool | None
    out: Place | None


class RunKeywords(_ScriptKeywords, total=False):
    """Keywords of ``run``."""

    detach: bool | None
    then_off: bool | None


class SweepKeywords(ClusterKeywords, _ScriptKeywords, total=False):
    """Keywords of ``sweep``."""
