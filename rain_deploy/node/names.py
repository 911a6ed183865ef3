"""Parameters in the name of a task: ``mnist size=32 dropout=0.2`` -> size 32, dropout 0.2."""

from __future__ import annotations

import math
import re

Value = int | float | bool | str

_PAIR = re.compile(r"""(?<![\w.\-])([A-Za-z_][\w.\-]*)=(?:"([^"]*)"|'([^']*)'|([^\s,;]+))""")
_INTEGER = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WORDS = {"true": True, "false": False}


def parameters(name: str) -> dict[str, Value]:
    """Pairs ``key=value``, apart by blanks, commas or semicolons; of a repeated key the last counts."""
    found: dict[str, Value] = {}
    for match in _PAIR.finditer(name):
        key, double, single, bare = match.groups()
        quoted = double if double is not None else single
        found[key] = _value(bare) if quoted is None else quoted
    return found


def _value(text: str) -> Value:
    if _NUMBER.fullmatch(text) and math.isfinite(number := float(text)):
        return int(text) if _INTEGER.fullmatch(text) else number
    return _WORDS.get(text.lower(), text)
