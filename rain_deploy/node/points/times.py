"""Reads the times in what Rain says of a task."""

from datetime import datetime
from typing import NamedTuple

from ..files import Json


class Times(NamedTuple):
    """When a task started and ended, and how long it took; None for what is not known."""

    started_s: float | None
    ended_s: float | None
    duration_s: float | None

    @classmethod
    def of(cls, info: Json, started_s: float | None = None) -> "Times":
        """Return what Rain's information about a task says; ``started_s`` is for one without its start."""
        if start := info.get("start_time"):
            started_s = epoch_s(start)
        duration_s = info.get("duration")
        ended_s = None if started_s is None or duration_s is None else started_s + duration_s
        return cls(started_s, ended_s, duration_s)


def epoch_s(timestamp: str) -> float:
    """Return the seconds since 1970 of a timestamp of Rain.  Raises ValueError."""
    return datetime.fromisoformat(timestamp).timestamp()
