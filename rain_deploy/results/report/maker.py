"""Make reports in a process of its own: what fails, hangs or takes memory there does not end the command."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from rain_deploy.parts.shell import PACKAGE

DEADLINE_S = 120.0  # a page of 10,000 points takes some seconds, a first start of matplotlib too
_COMMAND = (sys.executable, "-m", "rain_deploy.results.report")


class NoReport(Exception):  # noqa: N818  it becomes a warning
    """The report could not be made; the text says why."""


class Reports:
    """Makes no report; ``ReportProcess`` does."""

    def __init__(self) -> None:
        self.wanted: dict[Path, None] = {}

    def warm(self) -> None:
        """Get ready to make a report soon."""

    def make(self, directory: Path) -> bytes:
        """Return the page for a results directory, or nothing.  Raises NoReport."""
        del directory
        return b""

    def want(self, out: Path) -> None:
        """Note that the results in ``out`` are new: what is ``wanted`` is made when all else is done."""
        self.wanted[out] = None

    def close(self) -> None:
        """End what was started; a subclass has something."""


class ReportProcess(Reports):
    """Makes one page after the other.  ``warm`` starts the process early: loading takes 0.5 s."""

    def __init__(self, command: tuple[str, ...] = _COMMAND, deadline_s: float = DEADLINE_S) -> None:
        super().__init__()
        self._command = command
        self._deadline_s = deadline_s
        self._process: subprocess.Popen[bytes] | None = None

    def warm(self) -> None:
        """Start the process for the next page, if there is none; ``make`` says why it does not start."""
        with contextlib.suppress(OSError):
            self._started("warm")

    def make(self, directory: Path) -> bytes:
        """Return the page for a results directory.  Raises NoReport."""
        try:
            process, self._process = self._started(), None
        except OSError as error:
            raise NoReport(f"{self._command[0]} does not start: {error.strerror}") from error
        try:
            page, complaint = process.communicate(os.fsencode(directory), timeout=self._deadline_s)
        except subprocess.TimeoutExpired as error:
            raise NoReport(f"it was not made within {self._deadline_s:.0f} s") from error
        finally:
            _end(process)
        if process.returncode != 0 or not page:
            last = complaint.decode(errors="replace").strip().splitlines()[-1:]
            raise NoReport("".join(last) or f"its process ended with status {process.returncode}")
        return page

    def close(self) -> None:
        """End a process that made no page."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def _started(self, *arguments: str) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                (*self._command, *arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": str(PACKAGE.parent), "PYTHONSAFEPATH": "1"},
                start_new_session=True,  # Ctrl-C is for the command alone
            )
        return self._process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            with contextlib.suppress(OSError):  # nobody reads what is left in it
                pipe.close()
    process.wait()
