"""Changes what a task that raises does to the others: nothing, where the script's side allows it.

Rain fails a session with its first failed task.  A Python task whose spec says ``soft`` in our entry of
``user`` returns marked outputs instead, and one that needs such an output does the same without running.
The user's function never sees the entry.  A task without the entry runs as if this module did not exist.
"""

import functools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import FailOpen, send_warnings_to
from .failures import Cause, InputFailed, body, causes_in
from .wire import NAME

_OUR_CODE = str(Path(__file__).parent)
_warnings: list[str] = []
"""What went wrong here.  The task's info takes it to the server's node."""


def usable() -> bool:
    """Return True if tasks can be changed; asked in the script's process, which runs the same code."""
    with FailOpen("preparing what tasks may do"):
        import rain.executor.executor as module

        _change(type("Executor", (module.Executor,), {}), module)
        return True
    return False


def hook_executor(module: Any) -> None:
    """Hook ``rain.executor.executor``, which was just imported."""
    send_warnings_to(_warnings.append)
    _change(module.Executor, module)


def _change(executor: Any, module: Any) -> None:
    run_task = executor.run_task

    @functools.wraps(run_task)
    def run(self: Any, context: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        wishes = _wishes(context)
        try:
            _refuse_failed(inputs)
            return run_task(self, context, inputs, outputs)
        except (Exception, SystemExit) as error:
            _hide_our_frames(error)
            if wishes.get("soft"):
                with FailOpen("making a result of a task's failure"):
                    return _failed(module, context, outputs, error)
            raise  # a bare one does not add this frame again
        finally:
            with FailOpen("sending warnings"):
                if _warnings:
                    _entry(context)["warnings"] = _warnings[:]
                    _warnings.clear()

    executor.run_task = run


def _wishes(context: Any) -> dict[str, Any]:
    """Take our entry out of a task's spec and return it."""
    with FailOpen("reading what a task may do"):
        return dict(context.spec.user.pop(NAME, {}))
    return {}


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


def _failed(module: Any, context: Any, outputs: Sequence[Any], error: BaseException) -> list[Any]:
    """Return the marked outputs of a task that raised, and put its error into its info."""
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
