"""Make a script of a function: the server node unpickles it, calls it, and leaves its value as JSON."""

import base64
import functools
import re
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from rain_deploy.core.spec import NODE_PYTHON, NODE_PYTHON_TEXT, FunctionScript
from rain_deploy.errors import InputError

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_SCRIPT = '''\
"""Call {name}, which rain_deploy.run was given, and write what it returns beside this file, as JSON."""

import base64
import json
import pathlib
import pickle

ANSWER = pathlib.Path(__file__).absolute().with_suffix(".json")
CALL = """
{call}"""


def plain(value):
    """Return values of numpy as lists and numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(
        f"{name} has ended well, but returned a value of type {{type(value).__name__}}: only what JSON knows "
        "(numbers, texts, lists, dictionaries) comes back; write the rest to a file, which comes back too"
    )


ANSWER.write_text(json.dumps(pickle.loads(base64.b64decode(CALL))(), default=plain))
'''


def function_script(
    function: Callable[..., object],
    args: tuple[Any, ...],
    cwd: Path,
    *,
    python: tuple[int, ...] = sys.version_info[:2],
) -> tuple[Path, FunctionScript]:
    """Return a script that calls ``function(*args)``, and where it would stand.

    The module that defines the function goes by value, with its globals.  What that module imports from files
    beside it goes as files.  ``python`` is the version here.  Raises InputError for a Python whose bytecode
    the nodes cannot read, and for what cannot be pickled.
    """
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    name = getattr(inner, "__name__", type(inner).__name__)
    name = re.sub(r"\W+", "-", name).strip("-")
    if python != NODE_PYTHON:
        raise InputError(
            f"the function {name} cannot be sent: this is Python {'.'.join(map(str, python))}, the nodes run "
            f"{NODE_PYTHON_TEXT}, and a function can be read by the same version only",
            next_step=f"use Python {NODE_PYTHON_TEXT} here, or write the function into a script and run that",
        )
    module = sys.modules.get(getattr(inner, "__module__", None) or "")
    file = _local_file(module)
    call = base64.encodebytes(_pickled(functools.partial(function, *args), name, module if file else None))
    if file:  # its script stands where the module is imported from by its full name
        spec = getattr(module, "__spec__", None)
        cwd = file.parents[(spec.name.count(".") if spec else 0) + (file.name == "__init__.py")]
    script = _SCRIPT.format(name=name, call=call.decode("ascii")).encode()
    return cwd / f"{name}-function.py", FunctionScript(script, file)


def _local_file(module: ModuleType | None) -> Path | None:
    """Return the source of a module that is the user's own; None for one that is installed, or has none."""
    named = getattr(module, "__file__", None)
    if not named or not named.endswith(".py"):
        return None
    file = Path(named).resolve()
    library = Path(sysconfig.get_path("stdlib")).resolve()
    installed = _INSTALLED & set(file.parts) or file.is_relative_to(library)
    return file if file.is_file() and not installed else None


def _pickled(call: Callable[[], object], name: str, module: ModuleType | None) -> bytes:
    """Return ``call`` as bytes, with what ``module`` defines instead of its name.  Raises InputError."""
    registered = {"__main__", *cloudpickle.list_registry_pickle_by_value()}
    by_value = module if module and module.__name__ not in registered else None
    if by_value:
        cloudpickle.register_pickle_by_value(by_value)
    try:
        data: bytes = cloudpickle.dumps(call)
    except Exception as error:
        raise InputError(
            f"the function {name} cannot be sent, because something that it uses cannot be pickled: {error}",
            next_step="make such things (connections, locks, open files) inside the function",
        ) from error
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(by_value)
    return data
