"""Loads the values of results in a child process, so that no result can harm or stop the helper."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from ..wire import Parameter, WireError, read
from .segment import Output

MOST_BYTES = 1 << 16  # larger results are data
_MOST_ANSWER_BYTES = 1 << 20
_START_S = 20.0  # the child's start, or its import of numpy, on a busy machine
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

    def get(self, content_type: str, body: bytes, limit_s: float) -> Value:
        """Return the value of a body.  Raises OSError (also if the time is over) or WireError."""
        if not self._number:
            self._ask("text", b"", _START_S)
        if not self._has_numpy and b"numpy" in body:
            self._ask("text", b"", _START_S, numpy=True)
            self._has_numpy = True
        return self._ask(content_type, body, limit_s)

    def _ask(self, content_type: str, body: bytes, limit_s: float, *, numpy: bool = False) -> Value:
        deadline = time.monotonic() + limit_s
        self._number += 1
        question = {"number": self._number, "content_type": content_type, "size_bytes": len(body)}
        line = json.dumps(question | {"limit_s": limit_s, "numpy": numpy}).encode()
        self._channel.settimeout(limit_s)
        self._channel.sendall(line + b"\n" + body)
        answer = read(_Answer, self._line(deadline))
        if answer.number != self._number:
            raise WireError("it answers another question")
        return answer.note

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
        """Kill it."""
        self._channel.close()
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)


class Values:
    """Loads values, one after the other.  A child that a result killed or stopped is replaced."""

    def __init__(self, program: Path = _PROGRAM, *, patience_s: float = 30.0) -> None:
        """``patience_s``: how long it waits for results that cannot be loaded, all together."""
        self._program = program
        self._child: _Child | None = None
        self._patience_s = patience_s

    def value_of(self, output: Output, body: bytes, timeout_s: float = 2.0) -> Value:
        """Return the value of an output; empty if it has none or cannot be loaded in time."""
        small = output.data_type == "blob" and 0 < len(body) <= MOST_BYTES
        if not small or self._patience_s <= 0:
            return Value()
        started = time.monotonic()
        if self._child and not self._child.alive():
            self.close()
        try:
            self._child = self._child or _Child(self._program)
            return self._child.get(output.content_type, body, timeout_s)
        except (OSError, WireError):
            self._patience_s -= time.monotonic() - started
            self.close()
            return Value()

    def close(self) -> None:
        """End the child."""
        if self._child:
            self._child.end()
            self._child = None
