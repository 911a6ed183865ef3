"""Finds one task of a run by what people call it, and what is known about it."""

import contextlib
import re
from collections.abc import Iterable
from dataclasses import replace

from rain_deploy.core.run import RunRecord
from rain_deploy.errors import InputError
from rain_deploy.node.wire import PointDetail, PointRow, WireError, read
from rain_deploy.results.points import fold, numbered, parse_rows

_MOST_NAMED = 3


def find_task(rows: Iterable[PointRow], wanted: str, run: RunRecord) -> tuple[int, PointRow]:
    """Return the newest row of a task of ``run`` and its number among the points, or 0.

    ``wanted`` is that number, or session and task (``1-12``, as in the names of directories), or words and
    parameters of the name, in any order.  Raises InputError if no task, or more than one, is meant.
    """
    next_step = f"rain-deploy points {run.id} -c {run.cluster}"
    tasks = list(numbered(fold(rows, all_=True)))
    if wanted.isdecimal():
        found = [one for one in tasks if one[0] == int(wanted)]
    elif both := re.fullmatch(r"(\d+)-(\d+)", wanted):
        found = [one for one in tasks if (one[1].session, one[1].task) == (int(both[1]), int(both[2]))]
    else:
        found = [one for one in tasks if one[1].name == wanted]
        words = set(re.split(r"[\s,]+", wanted)) - {""}
        found = found or [one for one in tasks if words and words <= _words(one[1])]
    if len(found) == 1:
        return found[0]
    if not found:
        points = sum(row.point for _, row in tasks)
        raise InputError(f"there is no point {wanted}; the run has {points}", next_step=next_step)
    some = [f"{number or f'{row.session}-{row.task}'} ({row.title})" for number, row in found[:_MOST_NAMED]]
    message = f"{wanted} fits {len(found)} points: {', '.join(some)}; name one by its number"
    raise InputError(message, next_step=next_step)


def _words(row: PointRow) -> set[str]:
    pairs = {f"{name}={value}" for name, value in row.parameters.items()}
    return pairs | set(re.split(r"[\s,;]+", row.name))


def history(lines: Iterable[bytes], task: PointRow) -> tuple[PointRow, ...]:
    """Return a row per attempt of a task: how it ended in it, or ``lost`` if the attempt was."""
    marks = (f'"task": {task.task},'.encode(), f'"session": {task.session},'.encode())
    mine = (line for line in lines if all(mark in line for mark in marks))  # parsing costs more
    attempts: dict[int, PointRow] = {}
    for row in parse_rows(mine):
        if (row.session, row.task) == (task.session, task.task):
            taken_back = row.state == "submitted" and row.attempt in attempts
            attempts[row.attempt] = attempts[row.attempt] if taken_back else row
    return tuple(
        row if row.ended or number == task.attempt else replace(row, state="lost")
        for number, row in sorted(attempts.items())
    )


def detail_of(lines: Iterable[bytes], task: PointRow) -> PointDetail:
    """Return what is known about a task in its last attempt; its arguments are the same in each."""
    mark = f'"task": {task.task},'.encode()
    detail = PointDetail(task=task.task, session=task.session, attempt=task.attempt)
    for line in lines:
        if mark not in line:
            continue
        with contextlib.suppress(WireError):
            one = read(PointDetail, line)
            if (one.session, one.task) != (task.session, task.task):
                continue
            detail = replace(detail, arguments=one.arguments or detail.arguments)
            if one.attempt == task.attempt:
                more = {name: getattr(one, name) for name in ("error", "missed", "unkept")}
                detail = replace(detail, **{name: text for name, text in more.items() if text})
    return detail
