"""Removes the drafts that killed commands left on the operator's machine."""

import contextlib
import fcntl
import itertools
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rain_deploy.core.layout import DRAFT_LIFE_S, HOME_DRAFTS, TEMPORARY

_NOTES, _NOTE = "locks", "draft-"


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


@contextlib.contextmanager
def noted(home: Path, *places: Path) -> Iterator[None]:
    """Note directories outside the home that this command makes and removes, until it has removed them.

    If the command is killed meanwhile, ``clear_noted`` removes them.  The note is locked while the command
    lives.  In a home that cannot be written there is no note.
    """
    note = home / _NOTES / f"{_NOTE}{secrets.token_hex(8)}"
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            note.parent.mkdir(mode=0o700, exist_ok=True)
            held.callback(os.close, handle := os.open(note, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            held.callback(note.unlink, missing_ok=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
            os.write(handle, json.dumps([str(place.absolute()) for place in places]).encode())
        yield


@contextlib.contextmanager
def draft_next_to(home: Path, place: Path) -> Iterator[Path]:
    """Yield a new directory on the file system of ``place``; remove it at the end, or after a kill."""
    draft = place.parent / f".fetch-{secrets.token_hex(4)}"
    with noted(home, draft):
        draft.mkdir(mode=0o700)
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def clear_noted(home: Path) -> tuple[Path, ...]:
    """Remove the directories that killed commands noted and left; return what is gone."""
    gone: list[Path] = []
    for note in (home / _NOTES).glob(f"{_NOTE}*"):
        with contextlib.suppress(OSError, ValueError), _locked(note):
            places = [Path(text) for text in json.loads(note.read_bytes())]
            gone += [place for place in places if _removed(place)]
            note.unlink()
    return tuple(gone)


def _removed(place: Path) -> bool:
    """Remove a directory that no command works in; return whether it is gone now."""
    with contextlib.suppress(OSError), _locked(place):
        shutil.rmtree(place)
        return True
    return False


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file or directory.  Raises OSError if a living command holds it."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
