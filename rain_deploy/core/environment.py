"""A node's Python environment as a value: what was resolved, and for which Python."""

from __future__ import annotations

from dataclasses import dataclass

NODE_PYTHON = (3, 11)
"""The last Python that Rain's client has wheels for."""
NODE_PYTHON_TEXT = "3.11"
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
