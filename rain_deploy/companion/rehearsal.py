"""Tries a script's plan: only the first task of each kind runs, and the script ends where it needs others.

``RAIN_DEPLOY_REHEARSE`` is ``first``, or the directory of a first run.  The process of a second run sends
nothing to Rain: it takes the results that the first has fetched, and compares the keys of all tasks.
``companion/rehearsal.json`` has what was found (``node/wire/rehearsal.py``).
"""

import atexit
import contextlib
import functools
import hashlib
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from . import FailOpen
from .journal.keys import Doubt, Keys

PROGRAMS = {"buildin/run": "Execute"}
FAILED = re.compile(r"^Task <\w+ (\d+)/(\d+),")
CREATED = re.compile(r'File "(.+?)", line (\d+)')


class Ended(SystemExit):
    """The script needs the result of a task that was not run."""


def hook_client(rain: Any) -> None:
    """Hook ``rain.client``, which was just imported."""
    run_dir = Path(os.environ["RAIN_DEPLOY_RUN_DIR"])
    earlier = os.environ["RAIN_DEPLOY_REHEARSE"]
    rehearsal = Rehearsal(rain, run_dir, None if earlier == "first" else Path(earlier))
    session, client = rain.session.Session, rain.client.Client
    session.submit = _wrapped(session.submit, rehearsal.submit)
    for name in ("_fetch", "_wait", "_wait_all", "_wait_some", "_unkeep", "_get_state", "_close_session"):
        setattr(client, name, _wrapped(getattr(client, name), getattr(rehearsal, name)))
    atexit.register(rehearsal.write)


class Kind:
    """The tasks of one function, program or built-in type."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.tried = ""  # the task that ran
        self.waits = False  # it needs results of tasks that were not run
        self.seconds: float | None = None
        self.error = ""


class Rehearsal:
    """The rehearsal in the script's process."""

    def __init__(self, rain: Any, run_dir: Path, earlier: Path | None) -> None:
        self._rain, self._earlier = rain, earlier
        self._directory = run_dir / "companion"
        self._files = run_dir / "files"
        self._cwd = Path.cwd()
        self._keys = Keys("rehearsal", str(self._files))
        self._kinds: dict[str, Kind] = {}
        self._running: dict[Any, tuple[Any, Kind]] = {}  # the tasks that run, by id
        self._planned: set[Any] = set()  # ids of the tasks that do not run
        self._planned_outputs: set[Any] = set()  # and of their outputs
        self._absent: set[Any] = set()  # ids of objects that Rain does not have
        self._places: dict[Any, str] = {}  # where the content of an output is kept, by its id
        self._plan: list[dict[str, Any]] = []
        self._ended = self._left = ""
        self._memory_bytes = 0

    def submit(self, plain: Callable[..., Any], session: Any) -> None:
        """Send the first task of each kind, and note all."""
        tasks, objects = list(session._tasks), list(session._dataobjs)
        keys = self._keys.of_tasks(tasks)
        functions = {each.id: function for function, each in session._static_data.items()}
        chosen = [task for task in tasks if self._take(task)]
        for task in tasks:
            with FailOpen("noting a task's plan"):
                self._plan.append(self._parts(task, functions))
            if not isinstance(key := keys[task.id], Doubt):
                self._places |= {each.id: f"{key.hex}-{i}" for i, each in enumerate(task.outputs)}
        made = {each.id for task in tasks for each in task.outputs}
        if self._earlier:
            self._absent |= {each.id for each in objects}
            self._account(session, tasks, objects)
            return
        absent = made - {each.id for task in chosen for each in task.outputs}
        self._absent |= absent
        session._tasks, session._dataobjs = chosen, [each for each in objects if each.id not in absent]
        plain(session)
        running = {task.id for task in chosen}
        rest = [task for task in tasks if task.id not in running]
        self._account(session, rest, [each for each in objects if each.id in absent])

    def _account(self, session: Any, tasks: list[Any], objects: list[Any]) -> None:
        """Do what ``Session.submit`` does with what it has sent."""
        states = self._rain.rpc.common
        for task in tasks:
            task._state = states.TaskState.notAssigned
        for each in objects:
            each._state = states.DataObjectState.unfinished
        session._submitted_tasks += tasks
        session._submitted_dataobjs += objects
        session._tasks, session._dataobjs = [], []

    def _take(self, task: Any) -> bool:
        """Return whether a task runs: it is the first of its kind that can."""
        name, identity = self._kind(task)
        kind = self._kinds.setdefault(identity, Kind(name))
        kind.count += 1
        if not kind.tried and not any(each.id in self._planned_outputs for each in task.inputs):
            kind.tried, kind.waits = task.name or name, False
            self._running[task.id] = task, kind
            return True
        kind.waits = not kind.tried
        self._planned.add(task.id)
        self._planned_outputs |= {each.id for each in task.outputs}
        return False

    def _kind(self, task: Any) -> tuple[str, str]:
        """Return what the user calls this kind of task, and what tells it from others."""
        kind = str(task.task_type)
        if kind == "py/":
            function = task.inputs[0]
            return str(function.spec.label), f"{kind} {self._keys.of_object(function)}"
        if kind in PROGRAMS:
            program = str(task.spec.config["args"][0])
            return f"{PROGRAMS[kind]} {program}", f"{kind} {program}"
        return kind, kind

    def _parts(self, task: Any, functions: dict[Any, Any]) -> dict[str, Any]:
        """Return what the key of a task is made of, by names that mean something to the user."""
        config = self._keys.config(task.spec)
        parts = {"name": task.name, "resources": task.spec.resources, "attributes": task.spec.user}
        given = list(task.inputs.items())
        if task.task_type == "py/":
            parts["function"] = self._keys.of_object(given.pop(0)[1])
            names = _names(functions.get(task.inputs[0].id))
            arguments = dict(zip(names, config["args"], strict=False)) | dict(config["kwargs"])
            parts |= {f"argument {name}": value for name, value in arguments.items()}
        else:
            parts["settings"] = config
        for place, (label, each) in enumerate(given):
            if each._data is not None:
                parts[f"input {label or place}"] = self._keys.of_object(each)
        digests = {name: hashlib.sha256(repr(part).encode()).hexdigest()[:16] for name, part in parts.items()}
        found = [Path(path, line) for path, line in CREATED.findall(task._stack or "") if self._ours(path)]
        line = f"{found[-1].parent.name}, line {found[-1].name}" if found else ""
        return {"kind": self._kind(task)[0], "line": line, "parts": digests}

    def _ours(self, path: str) -> bool:
        return (self._cwd / path).resolve().is_relative_to(self._files.resolve())

    def _fetch(self, plain: Callable[..., Any], client: Any, each: Any) -> Any:
        if each.state is None or not each._keep:
            return plain(client, each)
        if each._data is not None:  # Rain's server panics when it is asked for a constant
            return self._instance(each, each._data, {"size": len(each._data)})
        kept = self._place(each)
        if self._earlier and kept and kept.exists():
            info = json.loads(kept.with_suffix(".json").read_text())
            return self._instance(each, kept.read_bytes(), info)
        if self._earlier or each.id in self._absent:
            self._end(f"fetches {self._maker(each)}")
        instance = plain(client, each)
        with FailOpen("keeping a result for the second run"):
            if kept:
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.with_suffix(".json").write_text(json.dumps(each._info._to_json()))
                kept.write_bytes(instance._data)
        return instance

    def _place(self, each: Any) -> Path | None:
        name = self._places.get(each.id)
        return (self._earlier or self._directory.parent) / "companion" / "kept" / name if name else None

    def _instance(self, each: Any, data: bytes, info: dict[str, Any]) -> Any:
        each._info = self._rain.client.ObjectInfo._from_json(info)
        return self._rain.client.DataInstance(data=data, data_object=each, data_type=each.spec.data_type)

    def _wait(self, plain: Callable[..., Any], client: Any, tasks: Any, objects: Any) -> None:
        run = [task for task in tasks if task.id in self._running]
        here = [each for each in objects if each.id not in self._absent and each._data is None]
        if not self._earlier and (run or here):
            plain(client, run, here)
        missing = [task for task in tasks if task.id in self._planned]
        missing += [each for each in objects if each.id in self._planned_outputs]
        if missing:
            self._end(f"waits for {self._maker(missing[0])}")

    def _wait_all(self, plain: Callable[..., Any], client: Any, session: Any) -> None:
        if missing := sum(task.id in self._planned for task in session._submitted_tasks):
            self._end("waits for all tasks", f"of which {missing} were not run")
        if not self._earlier:
            plain(client, session)

    def _wait_some(self, plain: Callable[..., Any], client: Any, tasks: Any, objects: Any) -> Any:
        del plain, client
        self._end(f"waits for some of {len(tasks) + len(objects)} tasks", "which is not tried")

    def _unkeep(self, plain: Callable[..., Any], client: Any, objects: Iterable[Any]) -> None:
        if here := [each for each in objects if each.id not in self._absent]:
            plain(client, here)

    def _get_state(self, plain: Callable[..., Any], client: Any, tasks: Any, objects: Any) -> None:
        run = [task for task in tasks if task.id in self._running and not self._earlier]
        here = [each for each in objects if each.id not in self._absent]
        if run or here:
            plain(client, run, here)

    def _close_session(self, plain: Callable[..., Any], client: Any, session: Any) -> Any:
        with FailOpen("waiting for the tasks that run"):
            self._collect(session)
        return plain(client, session)

    def _collect(self, session: Any) -> None:
        """Wait for the tasks of a session that run, and note how they ended."""
        if self._earlier or not session.active:
            return
        mine = [one for one in self._running.values() if one[0]._session is session]
        for task, kind in mine:
            if kind.seconds is None and not kind.error:
                try:
                    session.client._wait([task], [])
                    session.client._get_state([task], [])
                    kind.seconds = task.info.duration
                except self._rain.TaskException as error:
                    failed = FAILED.search(str(error))
                    name = tuple(map(int, failed.groups())) if failed else task.id
                    self._running.get(name, (task, kind))[1].error = _reason(str(error))
                    break  # the session is lost with it
        self._memory_bytes = max(self._memory_bytes, *_peaks(), 0)

    def _maker(self, thing: Any) -> str:
        """Return the name of a task, or of the task that makes an object."""
        for task in thing._session._submitted_tasks:
            if task is thing or any(each is thing for each in task.outputs):
                return f"the result of {task.name or self._kind(task)[0]!r}"
        return "a result"

    def _end(self, doing: str, why: str = "which was not run") -> None:
        """End the script, and note where."""
        where, line, script = self._where()
        total = len(script.read_bytes().splitlines()) if script else 0
        self._ended = f"{where} {doing}, {why}" if where else f"the script {doing}, {why}"
        if script and total > line:
            self._left = f"lines {line + 1} to {total} of {script.name} were not tried"
        for session in {id(task._session): task._session for task, _kind in self._running.values()}.values():
            with FailOpen("waiting for the tasks that run"):
                self._collect(session)
        self.write()
        raise Ended(0)

    def _where(self) -> tuple[str, int, Path | None]:
        """Return where the script is now, in words, and the line of the script itself."""
        frame: FrameType | None = sys._getframe(1)
        where, line, script = "", 0, None
        while frame is not None:
            path = frame.f_code.co_filename
            if self._ours(path):
                where = where or f"{Path(path).name}, line {frame.f_lineno},"
                line, script = frame.f_lineno, (self._cwd / path).resolve()
            frame = frame.f_back
        return where, line, script

    def write(self) -> None:
        """Write what was found so far."""
        with FailOpen("writing what the rehearsal found"):
            found = {
                "ended": self._ended,
                "left": self._left,
                "memory_bytes": self._memory_bytes,
                "kinds": [vars(kind) for kind in self._kinds.values()],
                "unstable": list(self._unstable()) if self._earlier else [],
            }
            self._directory.mkdir(exist_ok=True)
            (self._directory / "rehearsal.json").write_text(json.dumps(found))
            (self._directory / "plan.json").write_text(json.dumps(self._plan))

    def _unstable(self) -> Iterator[str]:
        """Yield what differs from the plan of the first run, a sentence for each kind of task and part."""
        before = json.loads((self._earlier / "companion" / "plan.json").read_text()) if self._earlier else []
        different: dict[tuple[str, str], list[str]] = {}
        for one, other in zip(before, self._plan, strict=False):
            if one["kind"] != other["kind"]:
                yield f"{other['line']}: the order of the tasks differs from run to run"
                break
            for part in one["parts"].keys() | other["parts"].keys():
                if one["parts"].get(part) != other["parts"].get(part):
                    different.setdefault((one["kind"], part), []).append(other["line"])
        for (kind, part), lines in sorted(different.items()):
            tasks = "1 task" if len(lines) == 1 else f"{len(lines)} tasks"
            where = f"{lines[0]}: " if lines[0] else ""
            yield f"{where}the {part} of {kind} differs from run to run ({tasks})"
        if len(self._plan) > len(before) or (not self._ended and len(self._plan) < len(before)):
            yield f"the first run made {len(before)} tasks, and the second {len(self._plan)}"


def _names(function: Any) -> list[str]:
    """Return the names of a function's arguments after the context."""
    with contextlib.suppress(TypeError, ValueError):
        return list(inspect.signature(function).parameters)[1:]
    return []


def _reason(message: str) -> str:
    """Return the last line of the error in a TaskException, which names the user's exception."""
    error = message.partition("\nTask created at:")[0].removesuffix("\nTask failed in executor")
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _peaks() -> Iterator[int]:
    """Yield the most memory that each process of a task on this node has used."""
    mark = f"RAIN_DEPLOY_SERVICE={os.environ.get('RAIN_DEPLOY_SERVICE')}".encode()
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if b"rain.executor" in (place / "cmdline").read_bytes() and mark in (
                place / "environ"
            ).read_bytes().split(b"\0"):
                status = (place / "status").read_text()
                yield int(status.partition("VmHWM:")[2].split()[0]) << 10


def _wrapped(plain: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return ours(plain, *args, **kwargs)

    return wrapper
