"""Where results of a script's tasks are, and which tasks run again because a kept result cannot be had."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from rain_deploy.companion.journal.decide import LARGEST_SENT_BYTES
from rain_deploy.companion.journal.state import State


class Id(NamedTuple):
    session_id: int
    id: int


class Script:
    """Tasks of a script; those that are kept have their contents in files."""

    def __init__(self, place: Path) -> None:
        self.place, self.state = place, State()
        self._numbers = itertools.count(10)

    def task(self, *inputs: Any, outputs: int = 1) -> Any:
        made = [SimpleNamespace(id=self._id(), _data=None) for _ in range(outputs)]
        return SimpleNamespace(id=self._id(), inputs=inputs, outputs=made)

    def constant(self) -> Any:
        each = SimpleNamespace(id=self._id(), _data=b"constant")
        self.state.unsent[each.id] = each
        return each

    def kept(self, task: Any, size_bytes: int = 4) -> None:
        """Let the task be served."""
        path = self.place / str(task.id.id)
        path.write_bytes(b"kept")
        place = {"info": {}, "file": str(path), "offset": 0, "size_bytes": size_bytes}
        self.state.take([task], {task.id: {"info": {}, "outputs": [place] * len(task.outputs)}}, {})

    def needed(self, *tasks: Any) -> tuple[list[Any], list[bytes]]:
        run, objects = self.state.needed(tasks)
        return run, [each._data for each in objects.values()]  # noqa: SLF001 - Rain's name

    def _id(self) -> Id:
        return Id(1, next(self._numbers))


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


def gone(script: Script, tasks: Iterable[Any]) -> None:
    for task in tasks:
        (script.place / str(task.id.id)).unlink()


def test_a_kept_result_is_sent_to_a_task_that_needs_it(script: Script) -> None:
    maker = script.task(script.constant())
    user = script.task(*maker.outputs)
    script.kept(maker)
    assert script.needed(user) == ([user], [b"kept"])
    assert script.state.is_here(maker.outputs[0])


def test_one_that_is_gone_is_computed_again_from_what_it_needs(script: Script) -> None:
    first = script.task(script.constant())
    second = script.task(*first.outputs, script.constant())
    user = script.task(*second.outputs)
    script.kept(first)
    script.kept(second)
    gone(script, [second])
    assert script.needed(user) == ([second, user], [b"kept", b"constant"])
    assert script.state.is_here(first.outputs[0])
    assert not script.state.is_here(second.outputs[0])
    assert script.state.sent([first, second, user]) == [second, user]


def test_all_that_are_gone_are_computed_again_each_once(script: Script) -> None:
    first = script.task(script.constant())
    second = script.task(*first.outputs)
    third = script.task(*first.outputs, *second.outputs)
    for task in (first, second):
        script.kept(task)
    gone(script, [first, second])
    assert script.needed(third) == ([first, second, third], [b"constant"])


def test_one_that_no_message_can_hold_is_computed_again_also_for_a_later_submit(script: Script) -> None:
    maker = script.task(script.constant())
    script.kept(maker, LARGEST_SENT_BYTES + 1)
    user = script.task(*maker.outputs)
    assert script.needed(user) == ([maker, user], [b"constant"])


def test_a_task_that_runs_again_makes_all_of_its_outputs(script: Script) -> None:
    maker = script.task(script.constant(), outputs=2)
    script.kept(maker)
    gone(script, [maker])
    user = script.task(*maker.outputs)
    assert script.needed(user) == ([maker, user], [b"constant"])
    assert [output._data for output in maker.outputs] == [None, None]  # noqa: SLF001


def test_a_task_of_which_rain_has_a_result_does_not_run_again(script: Script) -> None:
    maker = script.task(outputs=2)
    script.kept(maker)
    _, objects = script.state.needed([script.task(maker.outputs[0])])
    script.state.were_sent(objects)
    gone(script, [maker])
    user = script.task(maker.outputs[1])
    assert not script.state.revive(maker)
    assert script.needed(user) == ([user], [])


def test_a_session_that_is_closed_is_forgotten(script: Script) -> None:
    maker = script.task(script.constant())
    script.kept(maker)
    script.state.fail(script.task(), "bad")
    script.state.forget(2)
    assert script.state.hits
    script.state.forget(1)
    assert script.state == State()


def test_copies_are_asked_for_from_the_one_on_that_is_fetched(script: Script) -> None:
    tasks, state = [script.task() for _ in range(5)], script.state
    state.watched |= {task.outputs[0].id: task for task in tasks}
    state.known.keys.update({task.id: f"key {number}" for number, task in enumerate(tasks)})
    state.copy([(tasks[3], {"info": {}, "outputs": [{"info": {}, "file": "", "size_bytes": 0}]})])
    assert list(state.uncopied(tasks[1].outputs[0])) == ["key 1", "key 2", "key 4"]
