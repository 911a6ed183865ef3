"""Keeps faults of ours from the script: after one, it goes on as on bare Rain, with one warning."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from .. import FailOpen, note_fault, points, reason, warn
from .state import State


class Protection:
    """Whether there is a helper still, and which errors are Rain's."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.lost = False
        """Nothing that is submitted from now on is protected."""
        self._error: BaseException | None = None  # Rain's last one

    def ask(self, question: Callable[[], Any]) -> Any:
        """Return the helper's answer; None if there is no helper any more."""
        if self.lost:
            return None
        try:
            return question()
        except Exception as fault:  # noqa: BLE001 - HelperLost, and any fault of ours
            self.lose(fault)
            return None

    def lose(self, fault: Exception) -> None:
        """Go on without the helper."""
        lost, self.lost = self.lost, True
        with FailOpen("ending the protection of the sweep"):
            if not lost:
                warn(f"the sweep is not protected: the journal failed ({reason(fault)})")
            note_fault("using the journal", fault)
            sessions: dict[int, dict[Any, Any]] = {}
            for task in () if lost else self._state.watched.values():
                sessions.setdefault(task.id.session_id, {})[task.id] = task
            for tasks in sessions.values():  # without a key, Rain's own word counts for their ends
                points.note_tasks(next(iter(tasks.values()))._session, list(tasks.values()), {}, {}, ())

    @contextlib.contextmanager
    def rain(self) -> Iterator[None]:
        """Note that an error comes from Rain, so that the script gets it."""
        try:
            yield
        except BaseException as error:
            self._error = error
            raise

    def is_rains(self, error: Exception) -> bool:
        """Return whether an error was raised by Rain."""
        return error is self._error
