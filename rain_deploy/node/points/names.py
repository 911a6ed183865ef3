"""Reads what a task's name and its error say."""

import math
import re

from ..wire import Parameter

_PAIR = re.compile(r"""(?<![\w.\-])([A-Za-z_][\w.\-]*)=(?:"([^"]*)"|'([^']*)'|([^\s,;]+))""")
_INTEGER = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WORDS = {"true": True, "false": False}
_FRAME = re.compile(r'  File "([^"\n]*)", line \d+.*\n(?:    .*\n)*')
_RAIN = re.compile(r"/site-packages/rain/|/rain_deploy_companion/")
_HIDDEN = "\0"
_NO_REASON = {"", "Task failed in executor"}


def reason(error: str) -> str:
    """Return the line of a task's error that says why: a traceback's exception, a program's first line."""
    lines = [line for line in error.splitlines() if line.strip() not in _NO_REASON]
    if lines and lines[0].startswith("Traceback"):
        frames = [number for number, line in enumerate(lines) if line.startswith("  File ")]
        after = lines[frames[-1] + 1 if frames else 1 :]  # an exception's text may have more lines
        lines = [line for line in after if not line.startswith(" ")] or lines[-1:]
    return lines[0].strip() if lines else ""


def readable(error: str, files: str) -> str:
    """Return a task's error as its author knows it: calls inside Rain are counted, and paths are relative.

    ``files`` is the absolute path of the run's files, the same on all nodes.
    """
    folded = _FRAME.sub(lambda frame: _HIDDEN if _RAIN.search(frame[1]) else frame[0], error)
    counted = re.sub(f"{_HIDDEN}+", lambda calls: _calls(len(calls[0])), folded)
    return counted.replace(f"{files}/", "") if files else counted


def _calls(number: int) -> str:
    return f"  ({number} call{'s' * (number > 1)} inside Rain)\n"


def parameters(name: str) -> dict[str, Parameter | None]:
    """Return the pairs in a name such as ``mnist size=32, act=relu``; the last of a repeated key counts."""
    found: dict[str, Parameter | None] = {}
    for match in _PAIR.finditer(name):
        key, double, single, bare = match.groups()
        if bare is None:
            found[key] = single if double is None else double
        elif _NUMBER.fullmatch(bare) and math.isfinite(number := float(bare)):
            found[key] = int(bare) if _INTEGER.fullmatch(bare) else number
        else:
            found[key] = _WORDS.get(bare.lower(), bare)
    return found
