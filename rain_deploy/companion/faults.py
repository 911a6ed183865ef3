"""Writes errors in the companion to ``<run dir>/companion/faults.log`` and swallows them."""

import os

TYPE_CHECKING = False  # mypy reads it as True; importing typing would cost at every start of a Python
if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class FailOpen:
    """``with FailOpen("what"):`` swallows errors of its body, but neither Ctrl-C nor exits."""

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: "type[BaseException] | None", fault: BaseException | None, _trace: "TracebackType | None"
    ) -> bool:
        if not isinstance(fault, Exception):
            return False
        try:
            _note(self._doing, fault)
        except Exception:  # noqa: BLE001 - a full disk: it cannot be reported anywhere
            return True
        return True


def _note(doing: str, fault: Exception) -> None:
    import traceback
    from pathlib import Path

    if directory := os.environ.get("RAIN_DEPLOY_RUN_DIR"):
        text = f"{doing}\n{''.join(traceback.format_exception(fault))}\n"
        append(Path(directory, "companion", "faults.log"), text)


def append(path: "Path", text: str) -> None:
    """Append ``text`` in one write, so that other processes that read and write see all of it.

    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
