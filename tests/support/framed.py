"""Reads a command out of the frame in which it is sent."""

from __future__ import annotations

import re


def command_of(line: str) -> str:
    """Return the command that a transport has put into a frame; any other line as it is."""
    found = re.fullmatch(r"exec /bin/sh -c '[^']*' [0-9a-f]{16} (.*)", line, re.DOTALL)
    if not found:
        return line
    text = "".join(re.findall("'([^']*)'", found[1]))
    text = re.sub(r"\\0([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
    return text.encode("latin-1").decode("utf-8", "surrogateescape")
