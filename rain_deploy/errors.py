"""The errors that users see, and the exit code of each.

Every message says what failed, where and why.  ``next_step`` is the next command to type.  ``still_running``
says what still exists and may cost money.
"""

from __future__ import annotations

import enum
import errno
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path


class ExitCode(enum.IntEnum):
    """Exit codes of the command line.  The meaning of a code never changes."""

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


@dataclass(eq=False, repr=False)
class RainDeployError(Exception):
    """Base class of all errors.  If this class itself is raised, it is a bug in rain-deploy."""

    message: str
    _: KW_ONLY
    next_step: str | None = None
    node: str | None = None
    still_running: str | None = None
    details: str | None = None
    """Untrusted text from elsewhere (last lines of a log); rendered escaped and cut."""
    exit_code: ExitCode = field(default=ExitCode.BUG, init=False)

    def __init_subclass__(cls, *, exit_code: ExitCode | None = None) -> None:
        if exit_code is not None:
            cls.exit_code = exit_code

    def __str__(self) -> str:
        return self.message


class UsageError(RainDeployError, exit_code=ExitCode.USAGE):
    """The command line is wrong, or nobody answered a question with yes."""


class Drift(RainDeployError, exit_code=ExitCode.DRIFT):
    """``status --check`` found a difference from the record."""


class InputError(RainDeployError, exit_code=ExitCode.INPUT):
    """The input is wrong, such as a file, a host or an option; nothing was changed."""


class Locked(RainDeployError, exit_code=ExitCode.LOCKED):
    """Another command or run is using the cluster."""


class StateError(RainDeployError, exit_code=ExitCode.STATE):
    """The home directory cannot be read or written, is from a newer version, or its disk is full."""


def full(error: BaseException) -> bool:
    """Return whether the error says that a disk or the user's quota on it is full."""
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


def disk_full(path: Path, why: str = "cannot be written") -> StateError:
    """Return the error for a full disk at ``path``, which is the home directory or something in it."""
    return StateError(
        f"the disk is full: {path} {why}",
        next_step="make room there, or set RAIN_DEPLOY_HOME to a directory with free space",
    )


class CredentialsError(RainDeployError, exit_code=ExitCode.CREDENTIALS):
    """No credentials were found, the cloud refused them, or the clock of this machine is wrong."""


class QuotaError(RainDeployError, exit_code=ExitCode.QUOTA):
    """A quota, or the capacity of the zone, is used up."""


class ApiError(RainDeployError, exit_code=ExitCode.API):
    """The API of the cloud gave no answer in time, or no clear answer."""


class PartlyUp(RainDeployError, exit_code=ExitCode.PARTLY_UP):
    """Only a part of the cluster was created; the record contains this part."""


class Unreachable(RainDeployError, exit_code=ExitCode.UNREACHABLE):
    """A node could not be reached in time, or the connection was lost."""


class HostKeyError(RainDeployError, exit_code=ExitCode.HOST_KEY):
    """A host key is unknown or has changed."""


class InstallFailed(RainDeployError, exit_code=ExitCode.INSTALL):
    """The installation of a node failed."""


class EngineError(RainDeployError, exit_code=ExitCode.ENGINE):
    """The Rain engine could not run."""


class ScriptFailed(RainDeployError, exit_code=ExitCode.SCRIPT):
    """The script failed, or a command of ``exec`` failed on a node."""


class PointsFailed(RainDeployError, exit_code=ExitCode.POINTS):
    """The run ended, and some points failed."""


class EndedEarly(RainDeployError, exit_code=ExitCode.ENDED_EARLY):
    """``cancel``, ``--timeout`` or a time limit ended the run before the script finished."""


class PullFailed(RainDeployError, exit_code=ExitCode.PULL):
    """Some results could not be pulled; the nodes are kept."""


class UnsafeResults(RainDeployError, exit_code=ExitCode.UNSAFE_RESULTS):
    """Results were refused because they are unsafe."""


class DownIncomplete(RainDeployError, exit_code=ExitCode.DOWN):
    """Something could not be deleted."""


class Unproved(RainDeployError, exit_code=ExitCode.UNPROVED):
    """It could not be verified that nothing is left."""
