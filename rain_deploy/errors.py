"""The errors that users see, and the exit code of each.

Every message says what failed, where and why.  ``next_step`` is the next command to type.  ``still_running``
says what still exists and may cost money.
"""

import errno
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path


@dataclass(eq=False, repr=False)
class RainDeployError(Exception):
    """Base class of all errors.  If this class itself is raised, it is a bug in rain-deploy."""

    message: str
    _: KW_ONLY
    next_step: str | None = None
    node: str | None = None
    still_running: str | None = None
    details: str | None = None  # untrusted text from elsewhere (last lines of a log); shown escaped and cut
    accepted: bool = field(default=False, init=False)
    """The cloud accepted what was asked for; it may still be done."""
    exit_code: int = field(default=1, init=False)
    """That of the command line; a code is never given a second meaning."""
    calm: bool = field(default=False, init=False)
    """Shown as one plain line: the user wanted it so, and nothing is left behind."""

    def __init_subclass__(cls, *, exit_code: int = 0) -> None:
        cls.exit_code = exit_code or cls.exit_code

    def __str__(self) -> str:
        return self.message

    def also(self, next_step: str) -> None:
        """Add another next step to the one that there is."""
        self.next_step = f"{self.next_step}; {next_step}" if self.next_step else next_step

    @property
    def sentence(self) -> str:
        """Return the message and the next step as one line."""
        return f"{self.message}; next: {self.next_step}" if self.next_step else self.message


class UsageError(RainDeployError, exit_code=2):
    """The command line is wrong, or nobody answered a question with yes."""


class Declined(UsageError):
    """The user answered no, and nothing was done."""

    calm = True


class Drift(RainDeployError, exit_code=3):
    """``status --check`` found a difference from the record."""


class InputError(RainDeployError, exit_code=10):
    """The input is wrong, such as a file, a host or an option; nothing was changed."""


class Locked(RainDeployError, exit_code=11):
    """Another command or run is using the cluster."""


class StateError(RainDeployError, exit_code=12):
    """The home directory cannot be read or written, is from a newer version, or a disk is full."""


class Unwritable(StateError):
    """The home directory can be read but not written: its disk is full, or it is read-only."""


def full(error: BaseException) -> bool:
    """Return whether the error says that a disk or the user's quota on it is full."""
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


def disk_full(path: Path, why: str = "cannot be written") -> Unwritable:
    """Return the error for a full disk at ``path``, which is the home directory or something in it."""
    return Unwritable(
        f"the disk is full: {path} {why}",
        next_step="make room there, or set RAIN_DEPLOY_HOME to a directory with free space",
    )


class CredentialsError(RainDeployError, exit_code=20):
    """No credentials were found, the cloud refused them, or the clock of this machine is wrong."""


class KeyRefused(CredentialsError):
    """The cloud does not know the key, or not with this secret: perhaps it was deleted."""


class QuotaError(RainDeployError, exit_code=21):
    """A quota, or the capacity of the zone, is used up."""


REFUSALS = (InputError, QuotaError, CredentialsError)
"""A call that the cloud ends with one of them has done nothing, unless it is ``accepted``."""


class ApiError(RainDeployError, exit_code=22):
    """The API of the cloud gave no answer in time, or no clear answer."""


class PartlyUp(RainDeployError, exit_code=23):
    """Only a part of the cluster was created; the record contains this part."""


class Unreachable(RainDeployError, exit_code=30):
    """A node could not be reached in time, or the connection was lost."""


class MachineGone(Unreachable):
    """The machine of a node does not exist any more, nor what was on its disk."""


class HostKeyError(RainDeployError, exit_code=31):
    """A host key is unknown or has changed."""


class InstallFailed(RainDeployError, exit_code=32):
    """The installation of a node failed."""


class EngineError(RainDeployError, exit_code=40):
    """The Rain engine could not run."""


class ScriptFailed(RainDeployError, exit_code=41):
    """The script failed, or a command of ``exec`` failed on a node."""


class PointsFailed(RainDeployError, exit_code=42):
    """The run ended, and some points failed."""


class EndedEarly(RainDeployError, exit_code=43):
    """``cancel``, ``--timeout``, ``--max-cost`` or a time limit ended the run before the script finished."""


class PullFailed(RainDeployError, exit_code=50):
    """Some results could not be pulled; the nodes are kept."""


class UnsafeResults(RainDeployError, exit_code=51):
    """Some results stay on the node: they are too large, too many, or not safe to pull."""


class DownIncomplete(RainDeployError, exit_code=60):
    """Something could not be deleted."""


class NotVerified(RainDeployError, exit_code=61):
    """It could not be verified that nothing is left."""
