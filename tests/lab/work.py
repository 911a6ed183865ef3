"""Pending operations: what a mutation has begun is done and ended in a thread of its own."""

from __future__ import annotations

import threading

from tests.lab.faults import Outcome
from tests.lab.store import Change, Task, Zone

UNSTARTED_S = 5.0  # how long ``close`` waits for a thread that is at work


class Work:
    """Starts what is pending, and ends all of it with the lab."""

    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s  # from the answer to the end of the operation; 0: ended in the answer
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    def begin(self, zone: Zone, change: Change, outcome: Outcome) -> dict[str, object]:
        """Start the operation and return its first view."""
        task = _task(zone, change)
        zone.tasks[task.id] = task
        if change.at_once or self.latency_s == 0:
            self._run(task, change, outcome, 0.0)
            return task.view()
        view = task.view()
        thread = threading.Thread(
            target=self._run,
            args=(task, change, outcome, self.latency_s),
            daemon=True,
            name=f"task {task.id}",
        )
        self._threads.append(thread)
        thread.start()
        return view

    def close(self) -> None:
        """Let nothing begin any more; wait for what is at work."""
        self._closing.set()
        for thread in self._threads:
            thread.join(UNSTARTED_S)

    def _run(self, task: Task, change: Change, outcome: Outcome, delay_s: float) -> None:
        if self._closing.wait(delay_s):
            return
        if outcome.effect_after_s:
            _end(task, outcome)
            if not self._closing.wait(outcome.effect_after_s):
                _act(change, outcome)
            return
        trouble = _act(change, outcome)
        _end(task, outcome if trouble is None else Outcome("failure", "unavailable", trouble))


def _task(zone: Zone, change: Change) -> Task:
    kind = change.command.removeprefix("get-")
    if change.at_once:
        return Task(zone.name)
    if change.resource:
        return Task(zone.name, resource={"id": change.id, "type": kind})
    link = f"/v2/{kind}/{change.id}"
    return Task(zone.name, reference={"id": change.id, "link": link, "command": change.command})


def _act(change: Change, outcome: Outcome) -> str | None:
    """Do what the outcome says; returns what went wrong with the machine."""
    wreck = change.wreck or change.undo
    try:
        {"done": change.effect, "none": change.undo, "error": wreck}[outcome.effect]()
    except OSError as error:
        wreck()
        return str(error)
    return None


def _end(task: Task, outcome: Outcome) -> None:
    task.reason = outcome.reason
    task.message = outcome.message
    task.state = outcome.state  # last: whoever sees it sees the rest
