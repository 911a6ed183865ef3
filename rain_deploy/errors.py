"""The errors that a user can meet, and the exit code of each.

RainDeployError                 1   a bug in the tool when raised bare
├── UsageError                  2   the command line alone is wrong
├── Drift                       3   status --check: not as recorded
├── InputError                 10   what the command line names is wrong; nothing was changed
├── Locked                     11   somebody else is changing the cluster
├── StateError                 12   state or home unreadable, unwritable, too new, disk full there
├── CredentialsError           20   the cloud refused the key, or the clock here is wrong
├── QuotaError                 21   quota or capacity is used up
├── ApiError                   22   the cloud's API is unavailable or unclear in time
├── PartlyUp                   23   some of what was wanted exists; all of it is recorded
├── Unreachable                30   a node was not reached in time, or the connection was lost
├── HostKeyError               31   a host key is unknown or has changed
├── InstallFailed              32   a node could not be installed
├── EngineError                40   Rain could not run
├── ScriptFailed               41   the user's script failed by itself
├── PointsFailed               42   the sweep ended and some points failed
├── EndedEarly                 43   ended before the script did: cancel, --timeout, a limit
├── PullFailed                 50   results are not all here; the nodes are kept
├── UnsafeResults              51   results were refused because they are unsafe
├── DownIncomplete             60   something could not be deleted
└── Unproved                   61   it cannot be proved that nothing is left

An interrupt is 128 + the signal's number.  Every message says what failed, where and why;
``next_step`` is the exact command to type next; ``still_running`` says what goes on costing.
"""

from __future__ import annotations

import enum
import errno
from pathlib import Path


class ExitCode(enum.IntEnum):
    """Exit codes of the command line; a code is never given a second meaning."""

    DONE = 0
    BUG = 1
    USAGE = 2
    DRIFT = 3
    INPUT = 10
    LOCKED = 11
    STATE = 12
    CREDENTIALS = 20
    QUOTA = 21
    API = 22
    PARTLY_UP = 23
    UNREACHABLE = 30
    HOST_KEY = 31
    INSTALL = 32
    ENGINE = 40
    SCRIPT = 41
    POINTS = 42
    ENDED_EARLY = 43
    PULL = 50
    UNSAFE_RESULTS = 51
    DOWN = 60
    UNPROVED = 61
    HANGUP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class RainDeployError(Exception):
    """Root of all errors that the command line renders; raised bare, it is a bug of ours."""

    exit_code: ExitCode = ExitCode.BUG

    def __init__(
        self,
        message: str,
        *,
        next_step: str | None = None,
        node: str | None = None,
        still_running: str | None = None,
        details: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.node = node
        self.still_running = still_running
        self.details = details
        """Untrusted text from elsewhere (last lines of a log); rendered escaped and cut."""

    def __str__(self) -> str:
        return self.message


class UsageError(RainDeployError):
    exit_code = ExitCode.USAGE


class Drift(RainDeployError):
    exit_code = ExitCode.DRIFT


class InputError(RainDeployError):
    exit_code = ExitCode.INPUT


class Locked(RainDeployError):
    exit_code = ExitCode.LOCKED


class StateError(RainDeployError):
    exit_code = ExitCode.STATE


def full(error: BaseException) -> bool:
    """Return whether the error says that a disk or the user's quota on it is full."""
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


def disk_full(path: Path, why: str = "cannot be written") -> StateError:
    """Return the error for a full disk at ``path``, which is the home directory or something in it."""
    return StateError(
        f"the disk is full: {path} {why}",
        next_step="make room there, or set RAIN_DEPLOY_HOME to a directory with free space",
    )


class CredentialsError(RainDeployError):
    exit_code = ExitCode.CREDENTIALS


class QuotaError(RainDeployError):
    exit_code = ExitCode.QUOTA


class ApiError(RainDeployError):
    exit_code = ExitCode.API


class PartlyUp(RainDeployError):
    exit_code = ExitCode.PARTLY_UP


class Unreachable(RainDeployError):
    exit_code = ExitCode.UNREACHABLE


class HostKeyError(RainDeployError):
    exit_code = ExitCode.HOST_KEY


class InstallFailed(RainDeployError):
    exit_code = ExitCode.INSTALL


class EngineError(RainDeployError):
    exit_code = ExitCode.ENGINE


class ScriptFailed(RainDeployError):
    exit_code = ExitCode.SCRIPT


class PointsFailed(RainDeployError):
    exit_code = ExitCode.POINTS


class EndedEarly(RainDeployError):
    exit_code = ExitCode.ENDED_EARLY


class PullFailed(RainDeployError):
    exit_code = ExitCode.PULL


class UnsafeResults(RainDeployError):
    exit_code = ExitCode.UNSAFE_RESULTS


class DownIncomplete(RainDeployError):
    exit_code = ExitCode.DOWN


class Unproved(RainDeployError):
    exit_code = ExitCode.UNPROVED
