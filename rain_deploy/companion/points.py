"""Notes what only the script knows about its points: the parameters it passes and the numbers it loads.

``companion/tasks.jsonl`` gets a line for each submitted task.  ``companion/values.jsonl`` gets one for each
task whose output was loaded and is a number (the first one, if there are several).  Python's json writes NaN
and Infinity as such.
"""

import functools
import json
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from .arguments import scalar, scalar_arguments
from .faults import FailOpen, append

PLAIN_NUMBER = re.compile(r"\s{0,9}[+-]?(\d{1,30}\.?\d{0,30}|\.\d{1,30})([eE][+-]?\d{1,3})?\s{0,9}")
"""A text from ``get_str`` counts as a number if it contains nothing else."""

_directory = Path(os.environ["RAIN_DEPLOY_RUN_DIR"], "companion")
_producers: dict[Any, Any] = {}
"""Maps the id of an object that was not loaded yet to the id of the task that makes it."""


def hook(module: ModuleType) -> None:
    """Hook ``rain.client.session`` or ``rain.common.data_instance``, which was just imported."""
    if module.__name__ == "rain.client.session":
        _hook_submit(module.Session)
    else:
        _hook_load(module.DataInstance)


def _hook_submit(session: Any) -> None:
    submit = session.submit

    @functools.wraps(submit)
    def submit_and_note(self: Any) -> Any:
        tasks = list(self._tasks)
        result = submit(self)
        with FailOpen("noting submitted tasks"):
            _note_tasks(self, tasks)
        return result

    session.submit = submit_and_note


def _note_tasks(session: Any, tasks: list[Any]) -> None:
    functions = {blob.id: function for function, blob in session._static_data.items()}  # noqa: SLF001
    lines = []
    for task in tasks:
        _producers.update((output.id, task.id) for output in task.outputs)
        parameters: dict[str, Any] = {}
        with FailOpen("reading a task's arguments"):
            parameters = scalar_arguments(task, functions)
        kept = any(output.is_kept() for output in task.outputs)
        note = {"session": task.id.session_id, "task": task.id.id, "parameters": parameters, "kept": kept}
        lines.append(json.dumps(note) + "\n")
    if lines:
        append(_directory / "tasks.jsonl", "".join(lines))


def _hook_load(instance: Any) -> None:
    load, get_str = instance.load, instance.get_str

    @functools.wraps(load)
    def load_and_note(self: Any, *args: Any, **kwargs: Any) -> Any:
        value = load(self, *args, **kwargs)
        with FailOpen("noting a loaded value"):
            _note_value(self, _number_of(value))
        return value

    @functools.wraps(get_str)
    def get_str_and_note(self: Any) -> Any:
        text = get_str(self)
        with FailOpen("noting a read value"):
            _note_value(self, _number_in(text))
        return text

    instance.load, instance.get_str = load_and_note, get_str_and_note


def _number_in(text: str) -> float | None:
    if not PLAIN_NUMBER.fullmatch(text):
        return None
    return int(text) if text.strip().lstrip("+-").isdigit() else float(text)


def _number_of(value: Any) -> float | None:
    """Return the value if it is a number, a numpy scalar or an array without dimensions; otherwise None."""
    number = scalar(value)
    return None if isinstance(number, str) else number


def _note_value(instance: Any, number: float | None) -> None:
    task = None if number is None else _producers.pop(instance._object_id, None)  # noqa: SLF001
    if task is not None:
        line = json.dumps({"session": task.session_id, "task": task.id, "value": number})
        append(_directory / "values.jsonl", line + "\n")
