"""Do something as a user without root, to whom modes of files matter."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path

STRANGER = 65534
"""User id of that user; whoever tests without root is that one."""


def given_to(place: Path, uid: int) -> None:
    """Make all that is in a directory another user's, and let that user come to it; only root can."""
    for path in (place, *place.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)
    for above in place.parents:
        if above.stat().st_uid == os.geteuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)


def without_root(place: Path, work: Callable[[], object]) -> None:
    """Call ``work`` in a process of its own, whose user owns ``place``; its failure is ours."""
    root = os.geteuid() == 0
    if root:
        given_to(place, STRANGER)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if root:
                os.setgroups([])
                os.setgid(STRANGER)
                os.setuid(STRANGER)
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - the other process says so
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if root and place.exists():
        given_to(place, 0)
    assert status == 0, "see the traceback on stderr"
