"""What the lab was asked: one record per request."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs


@dataclass(slots=True, eq=False)
class Request:
    """Filled as the request is served; times are epoch seconds by this machine's clock."""

    method: str
    path: str  # as on the wire, prefix included, without the query
    query: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    source_ip: str
    began_s: float = field(default_factory=time.time)
    ended_s: float | None = None
    zone: str = ""
    operation: str = ""  # "" is not documented
    parameters: dict[str, str] = field(default_factory=dict)
    key: str = ""
    signature: str = ""  # "ok", "not needed", or why it was refused
    in_flight: int = 0  # the most requests of this operation that were served at once while this one was
    committed: bool = False  # it changed something
    made: str = ""  # id of what it created or acted on
    status: int | None = None  # None: no answer was sent

    @property
    def documented(self) -> bool:
        return self.operation != ""

    @property
    def signed(self) -> bool:
        return self.signature in {"ok", "not needed"}

    @property
    def json(self) -> dict[str, Any]:
        """The body; empty for none or for no JSON object."""
        try:
            found = json.loads(self.body or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def arguments(self) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(self.query).items()}

    def __str__(self) -> str:
        return f"{self.operation or 'undocumented'}: {self.method} {self.path} -> {self.status}"


class Log(list[Request]):
    """All requests in the order of their arrival; may be read while the lab serves."""

    def __init__(self) -> None:
        super().__init__()
        self._flying: list[Request] = []
        self._lock = threading.Lock()

    def begin(self, request: Request) -> None:
        """Record it as soon as its operation is known."""
        with self._lock:
            self.append(request)
            self._flying.append(request)
            counts = Counter(each.operation for each in self._flying)
            for each in self._flying:
                each.in_flight = max(each.in_flight, counts[each.operation])

    def end(self, request: Request, status: int | None) -> None:
        """Record that it was answered, or with None that it was left without an answer."""
        with self._lock:
            request.ended_s = time.time()
            request.status = status
            self._flying.remove(request)

    def of(self, *operations: str) -> list[Request]:
        """Those of the given operations, by name."""
        return [each for each in self if each.operation in operations]

    @property
    def changes(self) -> list[Request]:
        """All but reads."""
        return [each for each in self if each.method != "GET"]

    def peak(self, operation: str) -> int:
        """How many requests of an operation were served at once."""
        return max((each.in_flight for each in self.of(operation)), default=0)
