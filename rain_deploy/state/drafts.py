"""Removes the drafts that killed commands left on the operator's machine."""

import contextlib
import itertools
import re
import shutil
import tempfile
import time
from pathlib import Path

from rain_deploy.core.layout import DRAFT_LIFE_S, HOME_DRAFTS, TEMPORARY


def clear_drafts(home: Path, temporary: Path | None = None) -> tuple[Path, ...]:
    """Remove what is older than any command that still works on it; return what is gone.

    ``temporary``: where temporary directories are; None: the system's place.
    """
    name = re.compile(re.escape(TEMPORARY) + r"[a-z0-9_]{8}")
    place = temporary or Path(tempfile.gettempdir())
    in_home = itertools.chain.from_iterable(home.glob(pattern) for pattern in HOME_DRAFTS)
    gone = []
    for path in (*in_home, *(path for path in place.glob(f"{TEMPORARY}*") if name.fullmatch(path.name))):
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime < DRAFT_LIFE_S or path.is_symlink():
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            gone.append(path)
    return tuple(gone)
