"""What counts as the value of a result: a number, a short text, or a small dict, tuple or list with numbers.

As a program, this is the child in which the journal's helper loads results (``node/journal/values.py``).  It
needs neither Rain nor the rest of the companion.  Python's json writes NaN and Infinity as such.
"""

import contextlib
import io
import json
import os
import pickle
import re
import resource
import signal
import socket
import sys
from typing import Any, BinaryIO

PLAIN_NUMBER = re.compile(r"\s{0,9}[+-]?(\d{1,30}\.?\d{0,30}|\.\d{1,30})([eE][+-]?\d{1,3})?\s{0,9}")
"""A text that contains nothing else counts as a number."""
LONGEST_JSON = 20_000  # length of the longest text that is read as JSON
LONGEST = 200  # length of the longest text that is a value, and of the longest name of one
MOST_VALUES = 50
MODULES = sys.stdlib_module_names | {"cloudpickle", "numpy"}
"""What a result may need to be loaded here.  Others would cost seconds, or run the user's code."""
_LIMITS = {resource.RLIMIT_AS: 1 << 30, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_CORE: 0}  # of the child

Note = dict[str, Any]


def value_note(value: Any) -> Note:
    """Return ``value`` of a number or short text, ``values`` by name of what has numbers in it; else nothing.

    The items of a tuple or list are ``value_0``, ``value_1``; those of a named tuple have its names.  Of a
    dict, items that are no numbers or short texts are left out.  What has more than 50 items is data.
    """
    if (single := scalar(value)) is not None:
        return {"value": single} if _is_short(single) else {}
    if hasattr(value, "_asdict"):
        value = value._asdict()
    elif getattr(value, "ndim", 0) == 1:  # an array
        value = list(value) if len(value) <= MOST_VALUES else []
    if isinstance(value, tuple | list):
        value = {f"value_{place}": item for place, item in enumerate(value[: MOST_VALUES + 1])}
    if not isinstance(value, dict) or len(value) > MOST_VALUES:
        return {}
    found = {str(name)[:LONGEST]: scalar(item) for name, item in value.items()}
    kept = {name: item for name, item in found.items() if item is not None and _is_short(item)}
    return {"values": kept} if any(not isinstance(item, str) for item in kept.values()) else {}


def text_note(text: str) -> Note:
    """Return the value of a text: a number, what is in its JSON, or the one line that it is."""
    if PLAIN_NUMBER.fullmatch(text):
        return {"value": int(text) if text.strip().lstrip("+-").isdigit() else float(text)}
    if text[:1] in {"{", "["} and len(text) <= LONGEST_JSON:
        with contextlib.suppress(ValueError, RecursionError):  # not JSON
            return value_note(json.loads(text))
    line = text.strip()
    return value_note(line) if line.isprintable() else {}


def scalar(value: Any) -> bool | float | str | None:
    """Return a bool, number or text, also one that is numpy's; None for anything else."""
    if type(value).__module__ == "numpy" and value.ndim == 0:
        value = value.item()
    if isinstance(value, int) and value.bit_length() >= sys.float_info.max_exp:  # too large for a table
        return None
    return value if isinstance(value, (bool, int, float, str)) else None


def _is_short(value: bool | float | str) -> bool:  # noqa: FBT001 - it is a value
    return not isinstance(value, str) or 0 < len(value) <= LONGEST


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] in MODULES:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module} is not loaded here")


def loaded_note(body: bytes, content_type: str) -> Note:
    """Return the value of an output of a task, from its bytes.  Raises what the bytes make Python raise."""
    if content_type in {"pickle", "cloudpickle"}:
        return value_note(_Unpickler(io.BytesIO(body)).load())
    if content_type == "json":
        return value_note(json.loads(body))
    if content_type == "cbor":
        import cbor  # type: ignore[import-not-found]  # one of Rain's dependencies

        return value_note(cbor.loads(body))
    if not content_type or content_type.startswith("text"):
        return text_note(body.decode(content_type.partition("-")[2] or "utf-8"))
    return {}


def answer(channel: BinaryIO) -> None:
    """Answer questions, one line of JSON and a body each, until the channel is closed."""
    for line in channel:
        question = json.loads(line)
        note = b"{}"
        signal.setitimer(signal.ITIMER_REAL, question["limit_s"])  # ends us, should nobody else
        try:
            body = channel.read(question["size_bytes"])
            if question["numpy"]:
                import numpy as np  # noqa: F401 - here it is not counted as the time of a value
            note = json.dumps(loaded_note(body, question["content_type"])).encode()
        except BaseException:  # noqa: BLE001, S110 - a result can raise anything, exits too
            pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        channel.write(b'{"number": %d, "note": %b}\n' % (question["number"], note))
        channel.flush()


def main() -> None:
    """Answer on standard input, a socket, within limits of memory; results cannot write files."""
    channel = socket.socket(fileno=os.dup(0)).makefile("rwb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):  # what a result prints must not be taken for an answer
        os.dup2(nothing, standard)
    for limit, most in _LIMITS.items():
        hard = resource.getrlimit(limit)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (least, least))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    answer(channel)  # type: ignore[arg-type]  # it reads and writes


if __name__ == "__main__":
    main()
