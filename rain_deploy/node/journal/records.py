"""What is kept and noted of a task that has ended."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ..points.notes import TaskEnd
from ..points.times import Times
from ..wire import LITTLE_BYTES
from .engine import Ended
from .segment import Output, Record
from .values import Value

HOME = "home"  # data type of the output with what a task printed and wrote
Outputs = list[tuple[Output, bytes]]  # of one task, with their bodies
Kept = tuple[Record, list[bytes]]
MOST_TASKS = 500  # that are stored in one segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the records of one attempt come from: the fields that all of them share."""

    run: str
    attempt: int
    epoch: int
    sweep: dict[str, str]
    """Parts of keys that all of its tasks share."""
    node_name: Callable[[str], str]

    def record(self, one: Ended, stored: Outputs, value: Value) -> Record:
        """Return the record of a task that has ended."""
        task, info = one.task, one.info
        times = Times.of(info)
        return Record(
            key=task.key,
            kind="failure" if one.error else "result",
            name=task.name,
            task_type=task.task_type,
            run=self.run,
            attempt=self.attempt,
            epoch=self.epoch,
            node=self.node_name(info["governor"]) if info.get("governor") else "",
            started_s=times.started_s,
            duration_s=times.duration_s,
            ended_s=times.ended_s,
            info=info,
            outputs=tuple(output for output, _ in stored),
            message=one.error,
            value=value.value,
            values=value.values,
            parts={**task.parts, **self.sweep} if task.key else {},
        )


def stored_of(one: Ended) -> Outputs:
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


def is_single(stored: Outputs) -> bool:
    """Return whether a task has one output, besides what it printed and wrote."""
    return sum(output.data_type != HOME for output, _ in stored) == 1


def batches(ended: Iterable[Ended]) -> Iterator[list[Ended]]:
    """Yield tasks in groups that each make a segment that is copied at once, if it is more than one task.

    Many at once, because each segment costs a sync.  What came before an error comes before it.
    """
    batch, size_bytes = list[Ended](), 0
    try:
        for one in ended:
            if batch and size_bytes + one.size_bytes > LITTLE_BYTES:
                yield batch
                batch, size_bytes = [], 0
            batch.append(one)
            size_bytes += one.size_bytes
            del one  # its content takes memory
            if len(batch) == MOST_TASKS or size_bytes >= LITTLE_BYTES:
                yield batch
                batch, size_bytes = [], 0
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def end_of(record: Record, *, session: int, task: int, hit: bool = False, hard: bool = False) -> TaskEnd:
    """Return the note of an end that is in the journal."""
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
        hard=hard,
    )


def plain_end(one: Ended) -> TaskEnd:
    """Return the note of an end that nothing more can be said of."""
    session, task = one.task.id
    state = "failed" if one.error else "finished"
    return TaskEnd(session=session, task=task, state=state, message=one.error, hard=one.hard)
