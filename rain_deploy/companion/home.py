"""A task at home: it finds the run's files, and what it prints, shows and writes is kept.

Rain gives each task an empty directory, and drops what is left in it.  With this, the directory has the
run's files at the relative paths that the script uses.  When the task ends, one tar holds ``output.log`` (the
end of what it printed), ``figures/``, ``files/`` (what it wrote) and ``left.txt`` (a line for what is too
large).
"""

import contextlib
import ctypes
import functools
import io
import json
import os
import shutil
import stat
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import FailOpen, warn
from .mirror import Mirror

MOST_OUTPUT_BYTES = 65_536
MOST_FILES_BYTES = 4_000_000  # of figures as well as of files
MOST_LINES = 100  # about what was left
_HEADER_BYTES = 1024  # what a small file takes in a tar besides its content, or nearly so
_library = ctypes.CDLL(None)


class Home:
    """What a process of Rain needs to have its tasks at home, one at a time."""

    def __init__(self, executor: Any) -> None:
        self._root = Path(os.path.realpath(executor.task_path))
        self._figures = f"{self._root.parent}/figures"
        self._starts: list[int] = []
        self._cwd = "."
        self._mirror: Mirror | None = None
        with FailOpen("finding the run's files for its tasks"):
            run = Path(os.environ["RAIN_DEPLOY_RUN_DIR"])
            about, shipped = (json.loads((run / name).read_bytes()) for name in ("run.json", "shipped.json"))
            pristine = run / "shipped"  # on the node where the script runs, and may change its files
            self._cwd = os.path.normpath(about["cwd"])
            self._mirror = Mirror(self._root, pristine if pristine.is_dir() else run / "files", shipped)

    @contextlib.contextmanager
    def task(self, module: Any, executor: Any, context: Any) -> Iterator[None]:
        """Let ``executor`` run a task at home, as long as the context lasts."""
        empty, task_path = module.remove_dir_content, executor.task_path

        def fill(_path: str) -> None:
            mirror, self._mirror = self._mirror, None  # after a fault, tasks do without
            with FailOpen("giving a task the run's files"):
                if mirror:
                    mirror.reset()
                    cwd = self._root / self._cwd
                    cwd.mkdir(parents=True, exist_ok=True)
                    executor.task_path = str(cwd)  # where Rain goes next
                    self._mirror = mirror
                    return
            empty(task_path)

        module.remove_dir_content = fill
        try:
            with FailOpen("preparing what is kept of a task"):
                self._prepare(context)
            yield
        finally:
            module.remove_dir_content, executor.task_path = empty, task_path

    def _prepare(self, context: Any) -> None:
        self._starts = []  # those of the last task would be wrong, if this fails
        os.environ["RAIN_DEPLOY_FIGURES"] = self._figures
        shutil.rmtree(self._figures, ignore_errors=True)  # of a task that failed hard
        _flush()
        self._starts = [_size(descriptor) for descriptor in (1, 2)]
        for name in ("stage_file", "stage_directory"):
            setattr(context, name, self._staging(getattr(context, name)))

    def _staging(self, stage: Any) -> Any:
        """Return a method of Rain's context that moves a file or directory away, for one that may be ours."""

        @functools.wraps(stage)
        def staged(path: str, *args: Any, **kwargs: Any) -> Any:
            if self._mirror:  # Rain would move the file behind a link, so a fault here must fail the task
                self._mirror.own(Path(os.path.abspath(path)))  # noqa: PTH100 - Path.resolve follows links
            return stage(path, *args, **kwargs)

        return staged

    def packed(self) -> bytes:
        """Return the tar of what the task leaves; nothing if it leaves nothing.  Raises OSError."""
        packed = _Tar()
        with FailOpen("keeping what a task printed"):
            packed.add("output.log", self._output())
        with FailOpen("keeping a task's figures"):
            self._pack_figures(packed)
        with FailOpen("keeping the files that a task wrote"):
            self._pack_files(packed)
        os.environ.pop("RAIN_DEPLOY_FIGURES", None)
        return packed.close()

    def _output(self) -> bytes:
        """Return the end of what was printed to stdout and then to stderr, also by the task's children."""
        _flush()
        errors = _read(2, self._starts[1], MOST_OUTPUT_BYTES // 2)
        return _read(1, self._starts[0], MOST_OUTPUT_BYTES - len(errors)) + errors

    def _pack_figures(self, packed: "_Tar") -> None:
        if ours := sys.modules.get(f"{__package__}.figures"):
            ours.keep_and_close()
        figures = Path(self._figures)
        if figures.exists():
            names = sorted(path.name for path in figures.iterdir() if not path.name.startswith("."))
            packed.add_files("figures", figures, names)
            shutil.rmtree(figures)

    def _pack_files(self, packed: "_Tar") -> None:
        if not self._mirror:
            return
        cwd = self._root / self._cwd
        written = [(size, os.path.relpath(self._root / name, cwd)) for name, size in self._mirror.written()]
        packed.add_files("files", cwd, [name for _, name in sorted(written) if not name.startswith("..")])
        for name in self._mirror.changed_behind_links():
            warn(f"a task wrote to {name}, a large file of the run, which tasks on a node share")


class _Tar:
    """A tar in memory, made for its first file, and a list of what is too large for it."""

    def __init__(self) -> None:
        self._content = io.BytesIO()
        self._left: list[str] = []

    @functools.cached_property
    def _tar(self) -> tarfile.TarFile:
        return tarfile.open(fileobj=self._content, mode="w")

    def add(self, name: str, content: bytes) -> None:
        if content:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            self._tar.addfile(member, io.BytesIO(content))

    def add_files(self, folder: str, place: Path, names: list[str]) -> None:
        """Add the files in ``place``, in this order, as long as they fit."""
        room = MOST_FILES_BYTES
        for name in names:
            path = place / name
            size = path.stat().st_size
            if size + _HEADER_BYTES > room:
                self._left.append(f"{folder}/{name}: {size} bytes, beyond the 4 MB that are kept of a task")
                continue
            room -= size + _HEADER_BYTES
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = size
            with path.open("rb") as file:
                self._tar.addfile(member, file)

    def close(self) -> bytes:
        """Return the tar, with a file of what was left; nothing if it is empty."""
        lines = self._left[:MOST_LINES]
        if more := len(self._left) - len(lines):
            lines.append(f"and {more} more")
        self.add("left.txt", "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"))
        if "_tar" not in vars(self):
            return b""  # most tasks leave nothing
        self._tar.close()
        return self._content.getvalue()


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    _library.fflush(None)  # what libraries print


def _size(descriptor: int) -> int:
    """Return the size of the log that Rain lets a descriptor write to; 0 if it is no file."""
    found = os.fstat(descriptor)
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _read(descriptor: int, start: int, most: int) -> bytes:
    """Return the end of what was written since ``start``, with a line if it does not begin there."""
    size = _size(descriptor) - start
    if size <= 0:
        return b""
    with Path(f"/proc/self/fd/{descriptor}").open("rb") as file:
        file.seek(start + max(0, size - most))
        text = file.read(most)
    return f"[the first {size - most} bytes are left out]\n".encode() + text if size > most else text
