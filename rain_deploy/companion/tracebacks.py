"""Prints the exception that ends the script with the paths that its author knows, and Rain's frames folded.

A task's exception carries the traceback of the task's process as text; it is folded in the same way.
"""

import os
import re
import sys
import traceback
from collections.abc import Iterator
from types import TracebackType

_FRAME = re.compile(r'  File "([^"]*)", line \d+')
_RAIN = re.compile(r"/site-packages/rain/")


def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write what Python would print to stderr, folded."""
    text = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write("".join(f"{line}\n" for line in _folded(text.splitlines())))
    sys.stderr.flush()


def _folded(lines: list[str]) -> Iterator[str]:
    """Yield the lines with a count in place of Rain's own frames, and relative paths of the user's files."""
    files = f"{os.environ.get('RAIN_DEPLOY_RUN_DIR', '')}/files/"
    inside, hidden = False, 0
    for line in lines:
        if frame := _FRAME.match(line):
            inside = bool(_RAIN.search(frame[1]))
            hidden += inside
        elif not line.startswith("    "):  # a frame's code and marks are indented deeper than its first line
            inside = False
        if inside:
            continue
        if hidden:
            yield f"  ({hidden} call{'s' * (hidden > 1)} inside Rain)"
            hidden = 0
        yield line.replace(f'"{files}', '"') if frame else line
