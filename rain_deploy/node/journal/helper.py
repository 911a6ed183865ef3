"""Watches the tasks of a script and keeps their results; ``requests`` says how the script asks for it."""

import contextlib
import json
import math
import os
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from threading import Event

from ..files import Json, Tail, append, load, member_name
from ..points.notes import MissNote, TaskEnd
from ..run import Run
from ..wire import ClusterConfig, WireError, from_json, to_json
from .engine import Ended, Engine, EngineLost, Refused, Watched
from .home import unpack
from .listing import Listing
from .misses import Misses
from .records import HOME, Kept, Origin, Outputs, batches, end_of, is_single, plain_end, stored_of
from .segment import read_body
from .store import Journal
from .values import Value, Values

POLL_S = 0.1
"""How often the states of the watched tasks are asked for, if that takes no longer."""
ALIVE_EVERY_S = 1.0  # much less than the script waits for: each line costs the script, too
LAST_ROUNDS = 3  # before a session is closed: what ends during a round is found by the next one
MOST_WARNINGS = 20
EXPLAINED_AT_ONCE = 50  # tasks, after each look at the states: each may cost some looks at the disk


class Helper:
    """Watches tasks, and keeps their results in the journal and their ends in the run's notes."""

    def __init__(
        self,
        run: Run,
        journal: Journal,
        connect: Callable[[], Engine],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``connect`` may raise EngineLost."""
        self._run, self._lives, self._journal, self._connect = run, run.lives, journal, connect
        members, status = load(run.path.parents[1] / "server" / "cluster.json", ClusterConfig), run.status()
        sweep = json.loads(os.environ.get("RAIN_DEPLOY_SWEEP_PARTS", "{}"))
        self._origin = Origin(
            run=run.id,
            attempt=status.attempt,
            epoch=status.epoch,
            sweep=sweep,
            node_name=partial(member_name, members.nodes if members else ()),
        )
        self._ends = run.path / "companion" / "ends.jsonl"
        self._ended = {(end.session, end.task) for end in _noted(self._ends)}
        self._not_noted: list[TaskEnd] = []
        self._watched: dict[tuple[int, int], Watched] = {}
        self._waiting: set[tuple[int, int]] = set()  # outputs of tasks that are watched
        self._unkept: set[tuple[int, int]] = set()
        self._unexplained: deque[Watched] = deque()
        self._engine: Engine | None = None
        self._lost = ""  # why the connection to Rain failed; empty again once the user has been told
        self._values = Values()
        self._listing, self._listed = Listing.of(run), False
        self._misses = Misses(journal, run.id, sweep, self._listing.files)
        self._warned: set[str] = set()
        self._clock = clock
        self._told_s = -math.inf  # when the script heard last that its question is worked on
        self.stopping = False
        for damage in journal.load():
            self.warn(damage)
        journal.tidy()

    def find(self, request: Json) -> Json:
        """Return the whole results that are kept for these keys, the failures, and who has to run alone."""
        keys, found = request["keys"], dict[str, Json]()
        run = self._run.id if self._run.about.fresh else ""
        kept = self._journal.results(keys, run=run, whole=True, tell=self._alive)
        for key, (record, places) in kept.items():
            outputs = [
                {
                    "info": output.info,
                    "file": place.file,
                    "offset": place.offset,
                    "size_bytes": place.size_bytes,
                }
                for output, place in zip(record.outputs, places, strict=True)
                if output.data_type != HOME
            ]
            found[key] = {"info": record.info, "outputs": outputs}
        suspects = list(self._lives.suspects.intersection(keys))
        return {"found": found, "failures": self._failures(keys), "suspects": suspects}

    def kept(self, request: Json) -> Json:
        """Keep what is finished, then do as ``find``: through Rain, the script would fetch it once more."""
        self.round()
        return self.find(request)

    def _failures(self, keys: list[str]) -> dict[str, str]:
        """Return why tasks are not run in this attempt: they failed in an earlier one, or are given up."""
        failures = {
            key: record.message
            for key, record in self._journal.failures(keys).items()
            if record.run == self._run.id and record.attempt < self._origin.attempt
        }
        given_up = self._lives.given_up
        return failures | {key: given_up[key] for key in keys if key in given_up}

    def serve(self, request: Json) -> None:
        """Note the ends of tasks that the script does not submit: their results, or failures, are kept."""
        tasks = request["tasks"]
        records = self._journal.results([one["key"] for one in tasks if not one["message"]])
        ends = []
        for one in tasks:
            ids = {"session": one["session"], "task": one["task"]}
            if one["message"]:
                ends.append(TaskEnd(**ids, state="failed", message=one["message"]))
            elif one["key"] in records:
                record, places = records[one["key"]]
                ends.append(end_of(record, **ids, hit=True))
                for output, place in zip(record.outputs, places, strict=True):
                    if output.data_type == HOME and (content := read_body(place)):
                        self._bring_home(one["session"], one["task"], record.name, content)
        self._note(ends)

    def watch(self, request: Json) -> None:
        """Watch tasks that the script has submitted.  It did so just now, so Rain itself is there."""
        self._tell_lost()
        for one in request["tasks"]:
            task = from_json(Watched, one)
            if task.id not in self._ended:
                self._watched[task.id] = task
                self._waiting.update((task.session, output.id) for output in task.outputs)
                self._unexplained.append(task)

    def _forget(self, task: Watched) -> None:
        self._watched.pop(task.id, None)
        self._waiting.difference_update((task.session, output.id) for output in task.outputs)

    def _forget_session(self, session: int) -> None:
        for task in [one for one in self._watched.values() if one.session == session]:
            self._forget(task)
        self._unkept = {name for name in self._unkept if name[0] != session}

    def explain(self, most: int = EXPLAINED_AT_ONCE) -> None:
        """Note why results of some more tasks are not kept: little at a time, because results come first."""
        missed = []
        for _ in range(min(most, len(self._unexplained))):
            task = self._unexplained.popleft()
            if why := self._misses.why(task):
                missed.append(MissNote(task.session, task.task, why))
        if not self._unexplained and self._origin.attempt == 1:
            missed += (MissNote(0, 0, why, of_all=True) for why in self._misses.changed())
        if missed:
            lines = (json.dumps(to_json(note)) + "\n" for note in missed)
            append(self._run.path / "companion" / "misses.jsonl", "".join(lines))

    def unkeep(self, request: Json) -> None:
        """Let Rain delete objects; those of watched tasks once their results are kept."""
        objects = {(session, number) for session, number in request["objects"]}
        self._unkept |= objects & self._waiting
        self._release(objects - self._waiting)

    def close(self, request: Json) -> None:
        """Keep what is finished of a session, and forget it."""
        session = request["session"]
        for _ in range(LAST_ROUNDS):
            if not self.round(session):
                break
        self._forget_session(session)

    def round(self, session: int | None = None, go_on: Callable[[], bool] = lambda: True) -> int:
        """Keep the results of the tasks that have ended; return how many there were.

        ``go_on`` is asked after each batch: the script may want something.
        """
        self._note([])
        watched = [one for one in self._watched.values() if session in {None, one.session}]
        if not watched:
            return 0
        count, is_new = 0, self._engine is None
        try:
            self._engine = self._engine or self._connect()
            for number, mine in groupby(watched, key=lambda one: one.session):
                try:
                    count += self._keep_ended(self._engine, list(mine), go_on)
                except Refused as error:
                    if "Session" not in str(error):  # the script closed it: it does without us
                        self.warn(f"results of a session are not kept in the journal any more: {error}")
                    self._forget_session(number)
        except EngineLost as error:
            self._engine = None
            if not is_new:  # Rain may be there: one new connection is tried
                return count + self.round(session, go_on)
            self._lost = str(error)
            for one in watched:
                self._forget(one)
        return count

    def _keep_ended(self, engine: Engine, tasks: list[Watched], go_on: Callable[[], bool]) -> int:
        """Keep the results of those tasks of a session that have ended, until the script wants something."""
        count, enough = 0, Event()
        for batch in batches(engine.ended(tasks, self._alive, enough.is_set)):
            count += len(batch)
            self._keep(batch)
            batch.clear()  # the contents take memory
            if self.stopping or not go_on():
                enough.set()
        return count

    def _alive(self) -> None:
        """Let the script know now and then that we work: it may wait for an answer."""
        now_s = self._clock()
        if now_s >= self._told_s + ALIVE_EVERY_S:
            self._told_s = now_s
            print(json.dumps({"n": 0}), flush=True)

    def end(self, rain_is_there: Callable[[], bool] = lambda: False) -> None:
        """End the child that loads values.  If Rain itself is gone, its supervisor says so, and we do not."""
        if self._lost and rain_is_there():
            self._tell_lost()
        self._values.close()

    def _tell_lost(self) -> None:
        lost, self._lost = self._lost, ""
        if lost:
            self.warn(f"some results are not kept in the journal: the connection to Rain failed: {lost}")

    def _keep(self, batch: list[Ended]) -> None:
        """Store the results of a batch of tasks, then note their ends, then let Rain delete them."""
        kept, ends = self._records(batch)
        self._write(kept)
        for one in batch:
            if one.home:
                self._bring_home(*one.task.id, one.task.name, one.home.data)
            for text in one.warnings:
                self.warn(f"{one.task.name or one.task.task_type}: {text}")
        self._note(ends)
        released = {name for one in batch if not one.hard for name in self._released(one.task)}
        self._unkept -= released
        self._release(released)
        for one in batch:
            self._forget(one.task)
        for session in {one.task.session for one in batch if one.hard}:
            self._forget_session(session)

    def _records(self, batch: list[Ended]) -> tuple[list[Kept], list[TaskEnd]]:
        """Return what is stored and noted of a batch.  A fault with one task costs only that one's result."""
        kept, ends = list[Kept](), list[TaskEnd]()
        contents = [self._stored(one) for one in batch]
        for one, stored, value in zip(batch, contents, self._loaded(contents), strict=True):
            try:
                record = self._origin.record(one, stored, value)
                session, task = one.task.id
                ends.append(end_of(record, session=session, task=task, hard=one.hard))
                if record.key and not ends[-1].died and (record.outputs or record.message):
                    kept.append((record, [body for _, body in stored]))
            except Exception as fault:  # noqa: BLE001 - what Rain says of a task can be anything
                self.fault(f"keeping the result of {one.task.name or one.task.task_type}", fault)
                ends.append(plain_end(one))
        return kept, ends

    def _stored(self, one: Ended) -> Outputs:
        """Return what is stored of a task's outputs."""
        try:
            return stored_of(one)
        except Exception as fault:  # noqa: BLE001 - what Rain says of an output can be anything
            self.fault(f"reading the outputs of {one.task.name or one.task.task_type}", fault)
            return []

    def _loaded(self, contents: list[Outputs]) -> list[Value]:
        """Return the value of each task that has one output: those of all are loaded at once."""
        values = [Value()] * len(contents)
        single = [place for place, stored in enumerate(contents) if is_single(stored)]
        try:
            for place, value in zip(single, self._values.of([contents[at][0] for at in single]), strict=True):
                values[place] = value
        except Exception as fault:  # noqa: BLE001 - results are kept without their values
            self.fault("reading the values of results", fault)
        return values

    def _released(self, task: Watched) -> Iterator[tuple[int, int]]:
        """Yield the outputs of a task that has ended which only the helper kept."""
        for output in task.outputs:
            name = (task.session, output.id)
            if name in self._unkept or (task.key and not output.kept):
                yield name
        if task.home is not None:
            yield task.session, task.home

    def _bring_home(self, session: int, task: int, name: str, content: bytes) -> None:
        """Unpack what a task printed and wrote.  A full disk costs only that."""
        safe = "".join(c if c.isalnum() or c in "-_=." else "-" for c in name)[:80]
        try:
            unpack(content, self._run.path / "tasks" / f"{session}-{task}-{safe}".rstrip("-."))
        except OSError as error:
            self.warn(f"what tasks print and write is not kept any more: {error.strerror or error}")

    def warn(self, text: str) -> None:
        """Add a sentence to the run's warnings, once."""
        if text not in self._warned and len(self._warned) < MOST_WARNINGS:
            with contextlib.suppress(OSError):
                append(self._run.path / "companion" / "warnings.txt", f"{text}\n")
                self._warned.add(text)

    def fault(self, doing: str, fault: Exception) -> None:
        """Note a fault of our own."""
        traceback.print_exception(fault, file=sys.stderr)
        self.warn(f"{doing} failed: {type(fault).__name__}: {str(fault)[:200]}")

    def _write(self, kept: list[Kept]) -> None:
        listing = [] if self._listed or not kept else self._listing.record(self._run, self._journal)
        try:
            self._journal.write([*listing, *kept], tell=self._alive)
            self._listed |= bool(kept)
        except OSError as error:
            self.warn(f"results are not kept in the journal any more: {error.strerror or error}")
        except Exception as fault:  # noqa: BLE001 - one record that cannot be written must cost no other one
            if len(kept) == 1:
                self.fault(f"keeping the result of {kept[0][0].name or kept[0][0].task_type}", fault)
            else:
                for one in kept:
                    self._write([one])

    def _note(self, ends: list[TaskEnd]) -> None:
        """Note ends; those that a full disk does not take are tried again in the next round."""
        self._ended |= {(end.session, end.task) for end in ends}
        self._not_noted += ends
        if self._not_noted:
            with contextlib.suppress(OSError):
                append(self._ends, "".join(json.dumps(to_json(end)) + "\n" for end in self._not_noted))
                self._not_noted = []

    def _release(self, objects: set[tuple[int, int]]) -> None:
        if self._engine:
            with contextlib.suppress(EngineLost):
                self._engine.unkeep(objects)


def _noted(path: Path) -> Iterator[TaskEnd]:
    """Yield the ends that an earlier helper of this attempt noted."""
    for note in Tail(path).json_lines():
        with contextlib.suppress(WireError):
            yield from_json(TaskEnd, note)
