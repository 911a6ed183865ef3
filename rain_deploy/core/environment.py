"""A node's Python environment as a value: what was resolved, and the pins of what builds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NODE_PYTHON = "3.11"
"""The last Python that Rain's client has wheels for."""
NODE_REQUIREMENTS = (
    "cloudpickle",
    "matplotlib",
    "pycapnp<2",
    "rain-python==0.4.0",
    "scikit-learn",
    "tensorflow",
)
"""Extra ``node`` of pyproject.toml, which an installed package cannot read (a test compares)."""


@dataclass(frozen=True, slots=True)
class ResolvedEnvironment:
    """Everything that decides what is installed on a node."""

    lock_text: str
    """Requirements with versions and hashes; names no index."""
    wheels: tuple[tuple[str, bytes], ...] = ()
    """(file name, content) of the user's own wheels."""
    apt: tuple[str, ...] = ()
    setup: str = ""
    """Text of the user's set-up script; empty: none."""


@dataclass(frozen=True, slots=True)
class UvPin:
    """The uv that builds environments: a line ``uv version wheel-sha256 binary-sha256``."""

    version: str
    wheel_sha256: str
    """Of uv's wheel for x86-64 Linux."""
    binary_sha256: str
    """Of the program in that wheel."""


def uv_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """For a call of uv: it believes the system's certificates too, unless the caller's variables say."""
    return {**environ} if "UV_NATIVE_TLS" in environ else {"UV_SYSTEM_CERTS": "1", **environ}
