"""Steps and stages: what is to be done on a host, as values that can be printed or executed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One idempotent change of a host, as POSIX shell text.

    The stage's script runs ``check``: exit 0 means that nothing is to be done.  Else it runs ``act``,
    and then ``verify`` must exit 0.  ``act`` prints progress to either stream.  Steps next to each
    other that are ``parallel`` run at the same time.
    """

    name: str
    act: str
    check: str = "false"
    verify: str = "true"
    parallel: bool = False


@dataclass(frozen=True, slots=True)
class PayloadFile:
    """A file of a stage's payload: ``path`` is relative to the stage's staging directory ``$S``."""

    path: str
    data: bytes
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Stage:
    """Steps for one host, executed over one exec channel with the payload on its stdin as a tar."""

    name: str
    steps: tuple[Step, ...]
    payload: tuple[PayloadFile, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    """Shell variables set, quoted, at the top of the script."""
    deadline_s: float = 1800.0
    installs: bool = False
    """It gets the environment that a host has for its installer."""
