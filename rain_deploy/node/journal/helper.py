"""Watches the tasks of a script and keeps their results; ``requests`` says how the script asks for it."""

import contextlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from ..files import Json, Tail, load, member_name
from ..points.notes import EXECUTOR_LOST, MissNote, TaskEnd
from ..run import Run
from ..wire import LITTLE_BYTES, ClusterConfig, WireError, from_json, to_json
from .engine import Ended, Engine, EngineLost, Watched
from .home import unpack
from .listing import Listing
from .misses import Misses
from .segment import Output, Record, read_body
from .store import Journal
from .values import Value, Values

POLL_S = 0.1
"""How often the states of the watched tasks are asked for."""
LAST_ROUNDS = 3  # before a session is closed: what ends during a round is found by the next one
MOST_WARNINGS = 20
EXPLAINED_AT_ONCE = 50  # tasks, after each look at the states: each may cost some looks at the disk
HOME = "home"  # data type of the output with what a task printed and wrote


class Helper:
    """Watches tasks, and keeps their results in the journal and their ends in the run's notes."""

    def __init__(self, run: Run, journal: Journal) -> None:
        self._run, self._journal, self._status, self._lives = run, journal, run.status(), run.lives
        members = load(run.path.parents[1] / "server" / "cluster.json", ClusterConfig)
        self._node_name = partial(member_name, members.nodes if members else ())
        self._ends = run.path / "companion" / "ends.jsonl"
        self._ended = {(end.session, end.task) for end in _noted(self._ends)}
        self._watched: dict[tuple[int, int], Watched] = {}
        self._unkept: set[tuple[int, int]] = set()
        self._unexplained: deque[Watched] = deque()
        self._engine: Engine | None = None
        self._values = Values()
        parts = json.loads(os.environ.get("RAIN_DEPLOY_SWEEP_PARTS", "{}"))
        self._listing = Listing.of(run)
        self._misses = Misses(journal, run.id, parts, self._listing.files)
        self._warned: set[str] = set()
        self.stopping = False
        for damage in journal.load():
            self._warn(damage)
        journal.tidy()

    def find(self, request: Json) -> Json:
        """Return the whole results that are kept for these keys, the failures, and who has to run alone."""
        keys = request["keys"]
        found = {}
        for key, (record, places) in self._journal.results(keys).items():
            if self._run.about.fresh and record.run != self._run.id:
                continue
            if all(read_body(place) is not None for place in places):
                both = zip(record.outputs, places, strict=True)
                wanted = [place for output, place in both if output.data_type != HOME]
                found[key] = to_json({"record": record, "places": wanted})
            else:
                self._journal.drop(key)
        suspects = list(self._lives.suspects.intersection(keys))
        return {"found": found, "failures": self._failures(keys), "suspects": suspects}

    def _failures(self, keys: list[str]) -> dict[str, str]:
        """Return why tasks are not run in this attempt: they failed in an earlier one, or are given up."""
        failures = {
            key: record.message
            for key, record in self._journal.failures(keys).items()
            if record.run == self._run.id and record.attempt < self._status.attempt
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
                ends.append(_end(record, **ids, hit=True))
                for output, place in zip(record.outputs, places, strict=True):
                    if output.data_type == HOME and (content := read_body(place)):
                        self._bring_home(one["session"], one["task"], record.name, content)
        self._note(ends)

    def watch(self, request: Json) -> None:
        """Watch tasks that the script has submitted."""
        for one in request["tasks"]:
            task = from_json(Watched, one)
            if task.id not in self._ended:
                self._watched[task.id] = task
                self._unexplained.append(task)

    def explain(self, most: int = EXPLAINED_AT_ONCE) -> None:
        """Note why results of some more tasks are not kept: little at a time, because results come first."""
        missed = []
        for _ in range(min(most, len(self._unexplained))):
            task = self._unexplained.popleft()
            if why := self._misses.why(task):
                missed.append(MissNote(task.session, task.task, why))
        if not self._unexplained and self._status.attempt == 1:
            missed += (MissNote(0, 0, why, tasks) for why, tasks in self._misses.changed())
        if missed:
            lines = (json.dumps(to_json(note)) + "\n" for note in missed)
            _append(self._run.path / "companion" / "misses.jsonl", "".join(lines))

    def unkeep(self, request: Json) -> None:
        """Let Rain delete objects; those of watched tasks once their results are kept."""
        objects = {(session, number) for session, number in request["objects"]}
        waiting = {(one.session, out.id) for one in self._watched.values() for out in one.outputs}
        self._unkept |= objects & waiting
        self._release(objects - waiting)

    def close(self, request: Json) -> None:
        """Keep what is finished of a session, and forget it."""
        session = request["session"]
        for _ in range(LAST_ROUNDS):
            if not self.round(session, tell=_alive):
                break
        self._watched = {key: one for key, one in self._watched.items() if one.session != session}

    def round(self, session: int | None = None, tell: Callable[[], None] = lambda: None) -> int:
        """Keep the results of the tasks that have ended; return how many there were.

        ``tell`` is called after each batch: who waits for the last one sees that there is progress.
        """
        count = 0
        watched = [one for one in self._watched.values() if session in {None, one.session}]
        if not watched:
            return 0
        try:
            self._engine = self._engine or Engine(*os.environ["RAIN_DEPLOY_SERVER"].rsplit(":", 1))
            for batch in self._engine.ended(watched):
                self._keep(batch)
                count += len(batch)
                tell()
                if self.stopping:
                    break
        except EngineLost:
            self._watched = {}
        return count

    def end(self) -> None:
        """End the child that loads values."""
        self._values.close()

    def _keep(self, batch: list[Ended]) -> None:
        """Store the results of a batch of tasks, then note their ends, then let Rain delete them."""
        records = [self._record(one) for one in batch]
        kept, size_bytes = list[tuple[Record, list[bytes]]](), 0
        for record, bodies in records:
            if record.key and (record.kind != "result" or record.outputs):
                more_bytes = len(record.message) + sum(map(len, bodies))
                if size_bytes + more_bytes > LITTLE_BYTES:
                    self._write(kept)
                    kept, size_bytes = [], 0
                kept.append((record, bodies))
                size_bytes += more_bytes
        self._write(kept)
        for one in batch:
            if one.home:
                self._bring_home(*one.task.id, one.task.name, one.home.data)
            for text in one.ours.get("warnings", ()):
                self._warn(f"{one.task.name or one.task.task_type}: {text}")
        self._note(
            replace(_end(record, session=one.task.session, task=one.task.task), hard=one.hard)
            for one, (record, _) in zip(batch, records, strict=True)
        )
        released = {name for one in batch if not one.hard for name in self._released(one.task)}
        self._unkept -= released
        self._release(released)
        for one in batch:
            self._watched.pop(one.task.id, None)
        gone = {one.task.session for one in batch if one.hard}
        self._watched = {name: one for name, one in self._watched.items() if one.session not in gone}

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
            self._warn(f"what tasks print and write is not kept any more: {error.strerror or error}")

    def _warn(self, text: str) -> None:
        if text not in self._warned and len(self._warned) < MOST_WARNINGS:
            self._warned.add(text)
            with contextlib.suppress(OSError):
                _append(self._run.path / "companion" / "warnings.txt", f"{text}\n")

    def _record(self, one: Ended) -> tuple[Record, list[bytes]]:
        """Return the record of a task that has ended, and the content of its outputs."""
        task, info = one.task, one.info
        stored, value = _stored(one), Value()
        if stored and len(one.contents) == 1:
            value = self._values.value_of(*stored[0])
        started_s, duration_s = _epoch_s(info.get("start_time")), info.get("duration")
        both = started_s is not None and duration_s is not None
        record = Record(
            key=task.key,
            kind="result" if not one.error else "death" if EXECUTOR_LOST in one.error else "failure",
            name=task.name,
            task_type=task.task_type,
            run=self._run.id,
            attempt=self._status.attempt,
            epoch=self._status.epoch,
            node=self._node_name(info["governor"]) if info.get("governor") else "",
            started_s=started_s,
            duration_s=duration_s,
            ended_s=(started_s or 0.0) + (duration_s or 0.0) if both else None,
            info=info,
            outputs=tuple(output for output, _ in stored),
            message=one.error,
            value=value.value,
            values=value.values,
            parts={**task.parts, **self._misses.sweep} if task.key else {},
        )
        return record, [body for _, body in stored]

    def _write(self, kept: list[tuple[Record, list[bytes]]]) -> None:
        try:
            if kept:
                self._journal.write([*self._listing.record(self._run, self._journal), *kept])
        except OSError as error:
            self._warn(f"results are not kept in the journal any more: {error.strerror or error}")

    def _note(self, ends: Iterable[TaskEnd]) -> None:
        ends = list(ends)
        if ends:
            _append(self._ends, "".join(json.dumps(to_json(end)) + "\n" for end in ends))
            self._ended |= {(end.session, end.task) for end in ends}

    def _release(self, objects: set[tuple[int, int]]) -> None:
        if self._engine:
            with contextlib.suppress(EngineLost):
                self._engine.unkeep(objects)


def _alive() -> None:
    """Let the script know that its question is being worked on."""
    print(json.dumps({"n": 0}), flush=True)


def _end(record: Record, *, session: int, task: int, hit: bool = False) -> TaskEnd:
    return TaskEnd(
        session=session,
        task=task,
        state="finished" if record.kind == "result" else "failed",
        started_s=record.started_s,
        ended_s=record.ended_s,
        duration_s=record.duration_s,
        node=record.node,
        message=record.message,
        value=record.value,
        values=record.values,
        hit=hit,
    )


def _stored(one: Ended) -> list[tuple[Output, bytes]]:
    """Return the outputs of a task, and its home if there is one; nothing unless all were fetched."""
    stored = []
    for about, content in zip(one.task.outputs, one.contents, strict=False):
        if content is None:
            return []
        content_type = content.info.get("content_type") or about.content_type
        kinds = {"data_type": about.data_type, "content_type": content_type}
        stored.append((Output.of(content.data, info=content.info, **kinds), content.data))
    if one.home and stored:
        home = Output.of(one.home.data, info={}, data_type=HOME, content_type="")
        stored.append((home, one.home.data))
    return stored


def _epoch_s(timestamp: Any) -> float | None:
    return datetime.fromisoformat(timestamp).timestamp() if timestamp else None


def _noted(path: Path) -> Iterator[TaskEnd]:
    """Yield the ends that an earlier helper of this attempt noted."""
    for note in Tail(path).json_lines():
        with contextlib.suppress(WireError):
            yield from_json(TaskEnd, note)


def _append(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
