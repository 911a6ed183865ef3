"""Changes how a process of Rain runs a Python task, as our entry in ``user`` of the task's spec says.

``soft``: Rain fails a session with its first failed task.  Instead, a task that raises returns marked
outputs, and one that needs such an output does the same without running.  ``home``: the task finds the run's
files, and a hidden last output gets what it leaves.  The user's function sees neither the entry nor that
output.  A task without the entry runs as if this module did not exist.
"""

import contextlib
import functools
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from . import FailOpen, send_warnings_to
from .failures import Cause, InputFailed, body, causes_in
from .home import Home
from .wire import NAME

_OUR_CODE = str(Path(__file__).parent)
_warnings: list[str] = []
"""What went wrong here.  The task's info takes it to the server's node."""


def usable() -> bool:
    """Return True if tasks can be changed; asked in the script's process, which runs the same code.

    Where the code is broken, the script's side must not add outputs that no task would return.
    """
    with FailOpen("preparing what tasks may do"):
        import rain.executor.executor as module

        _change(type("Executor", (module.Executor,), {}), module)
        spec = SimpleNamespace(user={NAME: {"home": True}}, outputs=[1, 2], config={"encode_outputs": [1, 2]})
        return bool(_wishes(SimpleNamespace(spec=spec)).get("home")) and spec.outputs == [1]
    return False


def hook_executor(module: Any) -> None:
    """Hook ``rain.executor.executor``, which was just imported."""
    _change(module.Executor, module)
    send_warnings_to(_warnings.append)


def _change(executor: Any, module: Any) -> None:
    run_task, home_of = executor.run_task, functools.cache(Home)

    @functools.wraps(run_task)
    def run(self: Any, context: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        wishes, home, hidden = _wishes(context), None, outputs[:0]
        if wishes.get("home"):
            outputs, hidden = outputs[:-1], outputs[-1:]
            with FailOpen("preparing a task's home"):
                home = home_of(self)
        try:
            try:
                with contextlib.ExitStack() as stack:
                    if home:
                        with FailOpen("giving a task its home"):
                            stack.enter_context(home.task(module, self, context))
                    _refuse_failed(inputs)
                    results = run_task(self, context, inputs, outputs)
            except (Exception, SystemExit) as error:
                failed = _failed(module, context, outputs, error) if wishes.get("soft") else None
                if failed is None:
                    raise
                results = failed
            return [*results, *(_left(module, one, context, home) for one in hidden)]
        except BaseException as error:
            _hide_our_frames(error)
            raise  # a bare one does not add this frame again
        finally:
            with FailOpen("sending warnings"):
                if _warnings:
                    _entry(context)["warnings"] = _warnings[:]
                    _warnings.clear()

    executor.run_task = run


def _wishes(context: Any) -> dict[str, Any]:
    """Take our entry, and with it a hidden output, out of a task's spec and return the entry."""
    wishes: dict[str, Any] = {}
    with FailOpen("reading what a task may do"):
        spec = context.spec
        wishes = spec.user.pop(NAME, {})
        if wishes.get("home"):
            spec.outputs = spec.outputs[:-1]
            spec.config["encode_outputs"] = spec.config["encode_outputs"][:-1]
    return wishes


def _left(module: Any, hidden: Any, context: Any, home: Home | None) -> Any:
    """Return the hidden output: what the task leaves, which may be nothing."""
    content = b""
    with FailOpen("keeping what a task leaves"):
        if home and (content := home.packed()):
            _entry(context)["home"] = len(content)
    return module.DataInstance(hidden.spec.data_type, data=content)


def _refuse_failed(inputs: Sequence[Any]) -> None:
    """Raise InputFailed if an input is no result but a failure."""
    causes: list[Cause] = []
    with FailOpen("looking for inputs of tasks that failed"):
        causes = causes_in(inputs[1:])  # the first one is the function
    if causes:
        raise InputFailed(causes)


def _hide_our_frames(error: BaseException) -> None:
    """Take our frames off the top of a traceback, which Rain sends as the task's error."""
    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename.startswith(_OUR_CODE):
        trace = trace.tb_next
    error.__traceback__ = trace


def _failed(module: Any, context: Any, outputs: Sequence[Any], error: BaseException) -> list[Any] | None:
    """Return the marked outputs of a task that raised, and note its error in its info; None after a fault."""
    with FailOpen("making a result of a task's failure"):
        _hide_our_frames(error)
        if isinstance(error, InputFailed):
            causes, text = error.causes, str(error)
            entry: dict[str, Any] = {"because": list(dict.fromkeys(one.task for one in causes))}
        else:
            causes, entry = [Cause.of(error, context.spec.name or f"task {context.spec.id}")], {}
            text = causes[0].text
        results = []
        for output in outputs:
            kind = output.spec.data_type
            info = module.ObjectInfo(user={NAME: {"failed": text}})
            content = body(causes, directory=kind.value == "dir")
            results.append(module.DataInstance(kind, data=content, info=info))
        _delete_staged_files(context)
        _entry(context).update(entry, failed=text)
        return results
    return None


def _entry(context: Any) -> dict[str, Any]:
    """Return our entry in the task's info."""
    entry: dict[str, Any] = context.info.user.setdefault(NAME, {})
    return entry


def _delete_staged_files(context: Any) -> None:
    """Delete what the task staged before it failed: the next task's files would have the same names."""
    for staged in context._staged_paths:  # noqa: SLF001 - as Rain does after a failure
        path = Path(staged._path)  # noqa: SLF001
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
