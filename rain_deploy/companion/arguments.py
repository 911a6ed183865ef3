"""Reads the scalar arguments of a Rain task's function from the message that Rain is about to send.

Rain pickles each argument separately.  Only pickles of a bool, a number or a short text are opened, so none
of the user's code runs here.  (Wrapping the call instead would show up in Rain's "Task created at".)
"""

import base64
import functools
import inspect
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

LONGEST = 500
"""Length of the longest base64 pickle that is opened; a longer text is data, not a parameter."""
NUMPY = {("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"), ("numpy", "dtype")}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in NUMPY:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not a scalar")


def scalar_arguments(task: Any, functions: dict[Any, Callable[..., Any]]) -> dict[str, Any]:
    """Return bools, numbers and short texts by name, with defaults; nothing for built-in tasks.

    ``functions`` maps the id of an object that holds a pickled function to that function.
    """
    if task.spec.task_type != "py/":
        return {}
    config = task.spec.config
    keywords = {name: _opened(text) for name, text in config["kwargs"].items()}
    call = _signature(functions[task.inputs[0].id]).bind(None, *map(_opened, config["args"]), **keywords)
    call.apply_defaults()
    named = list(call.signature.parameters.values())[1:]
    return {
        name: value
        for parameter in named
        for name, value in _flat(parameter, call.arguments)
        if value is not None
    }


@functools.cache
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


def _flat(parameter: inspect.Parameter, arguments: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    value = arguments[parameter.name]
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        yield from value.items()
    elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        yield from ((f"{parameter.name}[{i}]", item) for i, item in enumerate(value))
    else:
        yield parameter.name, scalar(value)


def _opened(text: str) -> bool | float | str | None:
    if len(text) > LONGEST:
        return None
    try:
        return scalar(_Unpickler(io.BytesIO(base64.b64decode(text))).load())
    except Exception:  # noqa: BLE001 - other pickles fail in as many ways as there are classes
        return None


def scalar(value: Any) -> bool | float | str | None:
    """Return a bool, number or text, also one that is numpy's; None for anything else."""
    if type(value).__module__ == "numpy" and value.ndim == 0:
        value = value.item()
    return value if isinstance(value, (bool, int, float, str)) else None
