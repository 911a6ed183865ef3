"""Notes what only the script knows about its points: the parameters it passes and the values it loads.

``companion/tasks.jsonl`` gets a line for each submitted task.  ``companion/values.jsonl`` gets one for each
task whose output was loaded and has a value (the first one, if there are several).

Parameters are read from the message that Rain is about to send, in which each argument is pickled
separately.  Only pickles of a bool, a number or a short text are opened, so none of the user's code runs
here.  (Wrapping the call instead would show up in Rain's "Task created at".)
"""

import base64
import functools
import inspect
import io
import json
import os
import pickle
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

from . import FailOpen, append
from .values import scalar, text_note, value_note

LONGEST = 500  # length of the longest base64 pickle that is opened; a longer text is data, not a parameter
NUMPY = {("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"), ("numpy", "dtype")}

_directory = Path(os.environ["RAIN_DEPLOY_RUN_DIR"], "companion")
_producers: dict[Any, Any] = {}
"""Maps the id of an object that was not loaded yet to the id of the task that makes it."""
_signature = functools.cache(inspect.signature)


def hook_data_instance(module: Any) -> None:
    """Hook ``rain.common.data_instance``, which was just imported."""
    _afterwards(module.DataInstance, "load", _note_value)
    _afterwards(module.DataInstance, "get_str", _note_text)


def note_tasks(
    session: Any, tasks: list[Any], keys: dict[Any, str], doubts: dict[Any, str], hits: Container[Any]
) -> None:
    """Note tasks that were submitted, with their keys, or why they have none; ``hits`` were not run again."""
    functions = {blob.id: function for function, blob in session._static_data.items()}  # noqa: SLF001
    notes = [
        _note_of(task, functions)
        | {"key": keys.get(task.id, ""), "hit": task.id in hits, "doubt": doubts.get(task.id, "")}
        for task in tasks
    ]
    if notes:
        append(_directory / "tasks.jsonl", "".join(json.dumps(note) + "\n" for note in notes))


def note_alone(task: Any, keys: dict[Any, str]) -> None:
    """Note that a task that was submitted is started now, while nothing else is running."""
    functions = {blob.id: function for function, blob in task._session._static_data.items()}  # noqa: SLF001
    note = _note_of(task, functions) | {"key": keys[task.id], "alone": True}
    append(_directory / "tasks.jsonl", json.dumps(note) + "\n")


def _note_of(task: Any, functions: dict[Any, Callable[..., Any]]) -> dict[str, Any]:
    """Return the note of a task, and remember it for the values of its outputs."""
    _producers.update((output.id, task.id) for output in task.outputs)
    parameters: dict[str, Any] = {}
    with FailOpen("reading a task's arguments"):
        parameters = _scalar_arguments(task, functions)
    kept = any(output.is_kept() for output in task.outputs)
    note = {"session": task.id.session_id, "task": task.id.id, "name": task.name or ""}
    return note | {"parameters": parameters, "kept": kept}


def _scalar_arguments(task: Any, functions: dict[Any, Callable[..., Any]]) -> dict[str, Any]:
    """Return bools, numbers and short texts by name, with defaults; nothing for built-in tasks.

    ``functions`` maps the id of an object that holds a pickled function to that function.
    """
    if task.spec.task_type != "py/":
        return {}
    config = task.spec.config
    keywords = {name: _opened(text) for name, text in config["kwargs"].items()}
    call = _signature(functions[task.inputs[0].id]).bind(None, *map(_opened, config["args"]), **keywords)
    call.apply_defaults()
    found: dict[str, Any] = {}
    for parameter in list(call.signature.parameters.values())[1:]:
        value = call.arguments[parameter.name]
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            found |= value
        elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            found |= {f"{parameter.name}[{i}]": item for i, item in enumerate(value)}
        else:
            found[parameter.name] = scalar(value)
    return {name: value for name, value in found.items() if value is not None}


def _opened(text: str) -> bool | float | str | None:
    if len(text) > LONGEST:
        return None
    try:
        return scalar(_Unpickler(io.BytesIO(base64.b64decode(text))).load())
    except Exception:  # noqa: BLE001 - other pickles fail in as many ways as there are classes
        return None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in NUMPY:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not a scalar")


def _afterwards(owner: Any, name: str, note: Callable[[Any, Any], None]) -> None:
    """Make a method of a class call ``note`` with the instance and the result when it is done."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def noting(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(self, *args, **kwargs)
        with FailOpen(f"noting the result of {name}"):
            note(self, result)
        return result

    setattr(owner, name, noting)


def _note_text(instance: Any, text: str) -> None:
    _note(instance, text_note(text))


def _note_value(instance: Any, value: Any) -> None:
    _note(instance, value_note(value))


def _note(instance: Any, note: dict[str, Any]) -> None:
    if note and instance._object_id in _producers:  # noqa: SLF001
        task = _producers.pop(instance._object_id)  # noqa: SLF001
        line = json.dumps({"session": task.session_id, "task": task.id} | note)
        append(_directory / "values.jsonl", line + "\n")
