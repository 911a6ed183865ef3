"""Collects figures and points inside the user's processes.  It fails open: no error here fails the script.

compat imports this package at interpreter start if ``RAIN_DEPLOY_COMPANION`` names the directory that holds
it.  It acts in the script's process (``RAIN_DEPLOY_SCRIPT``), and in the processes of Rain that run tasks
(``RAIN_EXECUTOR_ID``, which is Rain's own variable).  Until matplotlib or Rain is imported, it costs the
imports of sys and os.  Thread limits need no code: TensorFlow and BLAS read the governor's environment.
"""

import os
import sys

MOST_WARNINGS = 20
TYPE_CHECKING = False  # mypy reads it as True; importing typing would cost at every start of a Python
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from pathlib import Path
    from types import ModuleType
    from typing import Any


class FailOpen:
    """Swallows errors of its body, but neither Ctrl-C nor exits, and warns the user of what they cost.

    The run's faults.log gets the traceback.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, fault: BaseException | None, _trace: object) -> bool:
        if not isinstance(fault, Exception):
            return False
        try:
            note_fault(self._doing, fault)
            warn(f"{self._doing} failed: {reason(fault)}")
        except Exception:  # noqa: BLE001 - a full disk: it cannot be reported anywhere
            return True
        return True


def note_fault(doing: str, fault: Exception) -> None:
    """Add a traceback to the run's faults.log.  Raises OSError."""
    import traceback
    from pathlib import Path

    if directory := os.environ.get("RAIN_DEPLOY_RUN_DIR"):
        text = f"{doing}\n{''.join(traceback.format_exception(fault))}\n"
        append(Path(directory, "companion", "faults.log"), text)


def reason(fault: BaseException) -> str:
    """Return the kind of an error and the first line of what it says."""
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
    return ": ".join([type(fault).__name__, *lines[:1]])[:300]


_warned: "set[str]" = set()


def warn(text: str) -> None:
    """Add a sentence to the warnings in the result of the run, unless it is there.  Raises OSError."""
    if text not in _warned and len(_warned) < MOST_WARNINGS:
        _warned.add(text)
        _targets[-1](text)


def _write_warning(text: str) -> None:
    from pathlib import Path

    if directory := os.environ.get("RAIN_DEPLOY_RUN_DIR"):
        try:
            append(Path(directory, "companion", "warnings.txt"), f"{text}\n")
        except OSError:  # it is full or read-only: the user reads it in what the script prints
            sys.stderr.write(f"rain-deploy: {text}\n")


_targets: "list[Callable[[str], None]]" = [_write_warning]


def send_warnings_to(target: "Callable[[str], None]") -> None:
    """Let ``target`` have the warnings of this process: a task's node may not be the one with the result."""
    _targets.append(target)


def append(path: "Path", text: str) -> None:
    """Append ``text`` in one write, so that other processes see all of it.  Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


class ImportHooks:
    """A meta path finder that lets later finders find a module, and hooks it right after it is loaded."""

    def __init__(self, hooks: "dict[str, str]") -> None:
        self._hooks = hooks  # names of modules, and of the functions of this package that take the module

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if name in self._hooks:
            with FailOpen(f"finding {name}"):
                for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
                    spec = finder.find_spec(name, path, target)
                    if spec is not None:
                        _hook_after_loading(spec.loader, self._hooks[name])
                        return spec
        return None


def _hook_after_loading(loader: "Any", hook: str) -> None:
    load = loader.exec_module

    def exec_module(module: "ModuleType") -> None:
        load(module)
        with FailOpen(f"hooking {module.__name__}"):
            from importlib import import_module

            ours, _, function = hook.rpartition(".")
            getattr(import_module(f".{ours}", __package__), function)(module)

    loader.exec_module = exec_module


def _show_error(kind: "Any", error: "Any", trace: "Any") -> None:
    """Print an exception that ends the script; anything that goes wrong here leaves it to Python."""
    with FailOpen("printing an exception"):
        from .tracebacks import show

        show(kind, error, trace)
        return
    sys.__excepthook__(kind, error, trace)


script, tasks = os.environ.get("RAIN_DEPLOY_SCRIPT"), os.environ.get("RAIN_EXECUTOR_ID")
hooks: "dict[str, str]" = {}
if script:
    sys.excepthook = _show_error
    if os.environ.get("RAIN_DEPLOY_REHEARSE"):
        hooks |= {"rain.client": "rehearsal.hook_client"}
    elif os.environ.get("RAIN_DEPLOY_RUN_DIR"):
        hooks |= {"rain.client": "journal.session.hook_client"}
        hooks |= {"rain.common.data_instance": "points.hook_data_instance"}
elif tasks:
    hooks |= {"rain.executor.executor": "executor.hook_executor"}
if tasks or (script and os.environ.get("RAIN_DEPLOY_FIGURES")):  # of a task, the variable comes later
    hooks |= {"matplotlib.figure": "figures.hook_figure", "matplotlib.pyplot": "figures.hook_pyplot"}
if hooks:
    sys.meta_path.insert(0, ImportHooks(hooks))
