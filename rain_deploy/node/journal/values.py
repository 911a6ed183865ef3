"""Loads the values of results in a child process, so that no result can harm or stop the helper."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from ..wire import Parameter, WireError, read
from .segment import Output

MOST_BYTES = 1 << 16  # larger results are data; of those that the child gets at once, too
MOST_AT_ONCE = 200
_MOST_ANSWER_BYTES = 1 << 20
_START_S = 20.0  # the child's start, or its import of numpy, on a busy machine
_START_COSTS_S = 10.0  # of the patience, if it fails: another one would probably fail too
_NOT_INHERITED = {"RAIN_DEPLOY_COMPANION", "RAIN_DEPLOY_SCRIPT", "RAIN_DEPLOY_RUN_DIR"}
_PROGRAM = Path(__file__).parents[2] / "site" / "rain_deploy_companion" / "values.py"


@dataclass(frozen=True, slots=True)
class Value:
    """The value of a result; empty if it has none."""

    value: Parameter | None = None
    values: dict[str, Parameter | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Answer:
    number: int
    note: Value


class _Child:
    """The child process."""

    def __init__(self, program: Path) -> None:
        """Start it.  Raises OSError."""
        self._channel, theirs = socket.socketpair()
        env = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-B", str(program)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={**env, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        self._number = 0
        self._has_numpy = False
        self._read = b""

    def start(self) -> None:
        """Return once it answers.  Raises OSError or WireError."""
        list(self._ask([("text", b"")], _START_S))

    def get(self, bodies: Sequence[tuple[str, bytes]], limit_s: float) -> Iterator[Value]:
        """Yield the value of each body.  Raises OSError (also if one takes too long) or WireError."""
        if not self._has_numpy and any(b"numpy" in body for _, body in bodies):
            list(self._ask([("text", b"")], _START_S, numpy=True))
            self._has_numpy = True
        yield from self._ask(bodies, limit_s)

    def _ask(
        self, bodies: Sequence[tuple[str, bytes]], limit_s: float, *, numpy: bool = False
    ) -> Iterator[Value]:
        """Send all questions, then take the answers.  Both fit into what a socket holds."""
        first, pieces = self._number + 1, list[bytes]()
        self._number += len(bodies)
        for number, (content_type, body) in enumerate(bodies, first):
            question = {"number": number, "content_type": content_type, "size_bytes": len(body)}
            line = json.dumps(question | {"limit_s": limit_s, "numpy": numpy}).encode()
            pieces += (line, b"\n", body)
        self._channel.settimeout(limit_s)
        self._channel.sendall(b"".join(pieces))
        for number in range(first, self._number + 1):
            answer = read(_Answer, self._line(time.monotonic() + limit_s))
            if answer.number != number:
                raise WireError("it answers another question")
            yield answer.note

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._read:
            self._channel.settimeout(max(deadline - time.monotonic(), 0.001))
            more = self._channel.recv(1 << 16)
            if not more or len(self._read) > _MOST_ANSWER_BYTES:
                raise WireError("it ended, or says too much")
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line

    def alive(self) -> bool:
        """Return False once it has ended."""
        return self._process.poll() is None

    def end(self) -> None:
        """Kill the child process."""
        self._channel.close()
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)


class Values:
    """Loads values, many at once.  A child that a result killed or stopped is replaced."""

    def __init__(self, program: Path = _PROGRAM, *, patience_s: float = 30.0) -> None:
        """``patience_s``: how long it waits for results that cannot be loaded, all together."""
        self._program = program
        self._child: _Child | None = None
        self._patience_s = patience_s

    def of(self, results: Sequence[tuple[Output, bytes]], timeout_s: float = 2.0) -> list[Value]:
        """Return the values of outputs; that of one which has none, or cannot be loaded in time, is empty."""
        found = [Value()] * len(results)
        loadable = deque(
            place
            for place, (output, body) in enumerate(results)
            if output.data_type == "blob" and 0 < len(body) <= MOST_BYTES
        )
        while loadable and self._patience_s > 0:
            batch = [
                (results[place][0].content_type, results[place][1]) for place in _together(loadable, results)
            ]
            started = time.monotonic()
            try:
                for value in self._running().get(batch, timeout_s):
                    found[loadable.popleft()] = value
                    started = time.monotonic()
            except (OSError, WireError):
                loadable.popleft()
                self._patience_s -= time.monotonic() - started
                self.close()
        return found

    def _running(self) -> _Child:
        """Return a child that runs.  Raises OSError or WireError."""
        if self._child and not self._child.alive():
            self.close()
        if not self._child:
            self._patience_s -= _START_COSTS_S
            self._child = _Child(self._program)
            self._child.start()
            self._patience_s += _START_COSTS_S
        return self._child

    def close(self) -> None:
        """End the child."""
        if self._child:
            self._child.end()
            self._child = None


def _together(places: Iterable[int], results: Sequence[tuple[Output, bytes]]) -> Iterator[int]:
    """Yield the first of these places: so many that the results fit into what a socket holds."""
    size_bytes = 0
    for place in islice(places, MOST_AT_ONCE):
        size_bytes += len(results[place][1])
        if size_bytes > MOST_BYTES:
            return
        yield place
