"""Lets the other points finish when a failing one ends the script.

A script that asks for a failed result usually ends with that exception.  Rain drops what is not finished
when the session is closed or the script's process is gone.  The script has no use for it any more, but the
user has, and the next run.
"""

import contextlib
import sys
from collections.abc import Container
from typing import Any

TASKS_PER_QUESTION = 500


class Rest:
    """The sessions in which the script was given a failure."""

    def __init__(self, failed: Container[Any]) -> None:
        """``failed`` has the ids of all tasks that are known to have failed."""
        self._failed = failed
        self._sessions: dict[int, Any] = {}

    def note(self, task: Any) -> None:
        """Note that the script is given the failure of a task."""
        self._sessions[task.id.session_id] = task._session

    def before_close(self, session: Any) -> None:
        """Wait for the tasks of a session that an exception closes."""
        if session.session_id in self._sessions and sys.exc_info()[1]:
            self._finish(session)
        self._sessions.pop(session.session_id, None)

    def before_end(self) -> None:
        """Wait for the tasks of sessions that are still open, if an exception ends the script."""
        if hasattr(sys, "last_value"):
            for session in list(self._sessions.values()):
                self._finish(session)

    def _finish(self, session: Any) -> None:
        # A task may fail hard, and the engine may be lost: the script ends anyway, with its own exception.
        with contextlib.suppress(Exception):
            tasks = [task for task in session._submitted_tasks if not self._ended(task)]
            for start in range(0, len(tasks), TASKS_PER_QUESTION):
                session.client._get_state(tasks[start : start + TASKS_PER_QUESTION], [])
            if count := sum(not self._ended(task) for task in tasks):
                others = "another task" if count == 1 else f"{count} other tasks"
                sys.stderr.write(f"rain-deploy: a task failed; {others} will finish before the script ends\n")
                sys.stderr.flush()
                session.client._wait_all(session)

    def _ended(self, task: Any) -> bool:
        return task.id in self._failed or (task._info is not None and task._info.duration is not None)
