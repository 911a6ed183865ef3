"""What the stream of results holds, and what stays on the node."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of what is pulled of a run; what is over a limit stays on the node, and all else is pulled."""

    files: int = 200_000  # files, links and empty directories
    file_bytes: int = 20 * 10**9  # content of a file; holes do not count
    total_bytes: int = 100 * 10**9  # lengths of all files, with holes


def map_of_parts(parts: Iterable[tuple[int, int]]) -> bytes:
    """Return the map of a file with holes, as it is sent before its parts and hashed with them."""
    numbers = [number for part in parts for number in part]
    return "\n".join(map(str, (len(numbers) // 2, *numbers, ""))).encode()


class LeftKind(enum.StrEnum):
    """The kinds of results that stay on a node."""

    MUCH = "much"  # it is too large
    MANY = "many"  # there are too many files
    LINK = "link"  # leads out of the results; what it leads to is no result
    UNREADABLE = "unreadable"
    SPECIAL = "special"  # a pipe, a socket or a device: it has no content
    REFUSED = "refused"  # there is no place for it on the laptop, or it is not safe


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A result that stays on the node."""

    path: str  # in the run's directory
    kind: str  # a ``LeftKind``, or one of a newer version
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOuts:
    """left.json, the last but one in the stream of ``pack``: all that stays on the node."""

    left: tuple[LeftOut, ...] = ()
    more: int = 0  # how many are not named

    def __len__(self) -> int:
        return len(self.left) + self.more

    @property
    def hold(self) -> bool:
        """Return True if some have content: deleting the node would lose it."""
        empty = {LeftKind.SPECIAL, LeftKind.LINK}
        return self.more > 0 or any(one.kind not in empty for one in self.left)
