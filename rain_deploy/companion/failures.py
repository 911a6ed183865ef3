"""A failed task's output, and how a task that needs it recognizes it."""

import io
import json
import os
import tarfile
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import reason
from .wire import MARK

LONGEST = 65_536  # characters of an error's text; a longer one keeps its begin and its end
MOST_CAUSES = 20
_MARK = MARK.encode()


@dataclass(frozen=True, slots=True)
class Cause:
    """A task that raised."""

    task: str
    why: str  # one line
    text: str  # as Rain's error would have it

    @classmethod
    def of(cls, error: BaseException, task: str) -> "Cause":
        """Return what a task's outputs say when it raised ``error``."""
        return cls(_plain(task), _plain(reason(error)), _plain("".join(traceback.format_exception(error))))


class InputFailed(Exception):  # noqa: N818 - says what happened to the task
    """A task cannot run, because others failed."""

    def __init__(self, causes: Sequence[Cause]) -> None:
        self.causes = causes
        first = causes[0]
        why = f"not run, because it needs the result of {first.task}, which failed: {first.why}"
        super().__init__(f"{why}\n\n{first.text}")


def body(causes: Sequence[Cause], *, directory: bool) -> bytes:
    """Return what an output holds in place of the result."""
    text = json.dumps([asdict(cause) for cause in causes]).encode()
    if not directory:
        return _MARK + text
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo(MARK)
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    return archive.getvalue()


def causes_in(inputs: Sequence[Any]) -> list[Cause]:
    """Return why some of a task's inputs are no results; nothing if all are."""
    texts = [text for one in inputs if (text := _marked(one))]
    causes = (Cause(**cause) for text in texts for cause in json.loads(text))
    return list(dict.fromkeys(causes))[:MOST_CAUSES]


def _marked(one: Any) -> bytes:
    """Return the text of a failure; nothing if the input is a result.  Rain has it in memory or in a file."""
    data, path = one._data, one._path  # noqa: SLF001 - get_bytes would read all of a large file
    if data is not None:
        if not data.startswith(_MARK):
            return b""
        if one.data_type.value == "blob":
            return bytes(data[len(_MARK) :])
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            member = tar.extractfile(MARK)
            return member.read() if member else b""
    if os.path.isdir(path):  # noqa: PTH112 - for every input of every task: the quicker one
        inside = Path(path, MARK)
        return inside.read_bytes() if inside.exists() else b""
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read() if file.read(len(_MARK)) == _MARK else b""


def _plain(text: str) -> str:
    """Return a text that can be sent, and is not too long."""
    if len(text) > LONGEST:
        head, cut = LONGEST // 4, len(text) - LONGEST
        text = f"{text[:head]}\n[{cut} characters left out]\n{text[head + cut :]}"
    return text.encode(errors="backslashreplace").decode()
