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
_RAIN = re.compile(r"/site-packages/rain/|/rain_deploy_companion/")


def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write what Python would print to stderr, folded; one line if Rain's server was lost."""
    while _is_lost(error) and error.__context__:  # leaving a session asks the server once more
        error = error.__context__
        kind, trace = type(error), error.__traceback__
    text = "".join(traceback.format_exception(kind, error, trace))
    lines = [_lost(trace)] if _is_lost(error) else _folded(text.splitlines())
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.stderr.flush()


def _is_lost(error: BaseException) -> bool:
    return type(error).__module__.startswith("capnp") and "disconnected" in str(error)


def _lost(trace: TracebackType | None) -> str:
    """Return where the script was when the server ended; a traceback would show Rain's calls alone."""
    own = [frame for frame in traceback.extract_tb(trace) if "/site-packages/" not in frame.filename]
    where = f"{os.path.relpath(own[-1].filename)} line {own[-1].lineno}: " if own else ""
    return f"{where}the script lost its connection to Rain's server and ends here"


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
