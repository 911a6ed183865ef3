"""Saves the numbered pictures of a run: each figure as PNG and SVG, no half files, no number used twice."""

import hashlib
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib as mpl

LOOKS = ("bbox_extra_artists", "bbox_inches", "dpi", "edgecolor", "facecolor", "pad_inches", "transparent")
"""Arguments of the script's savefig that apply to our pictures too; the others are for its own file."""


class Album:
    """The pictures in ``directory``.  Processes may share it: making a file claims its number."""

    def __init__(self, directory: str, save: Callable[..., Any]) -> None:
        self._directory = Path(directory)
        self._save = save
        self._number = 1
        self._kept: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()

    def keep(self, figure: Any, arguments: dict[str, Any] | None = None) -> None:
        """Save the figure under the next number, unless it looks the same as when it was last saved.

        Raises OSError, and whatever drawing raises.
        """
        look = hashlib.sha256(self._drawn(figure, "rgba")).digest()
        if self._kept.get(figure) == look:
            return
        asked = {name: value for name, value in (arguments or {}).items() if name in LOOKS}
        number = self._claim(self._drawn(figure, "png", **asked))
        self._kept[figure] = look
        picture = self._part(self._drawn(figure, "svg", metadata={"Date": None}, **asked))
        picture.replace(self._directory / f"{number:02}.svg")

    def _drawn(self, figure: Any, kind: str, **asked: Any) -> bytes:
        target = io.BytesIO()
        # The script did not ask for this drawing, so its warnings would only confuse.
        with warnings.catch_warnings(), mpl.rc_context({"svg.hashsalt": "rain-deploy"}):
            warnings.simplefilter("ignore")
            self._save(figure, target, format=kind, **asked)
        return target.getvalue()

    def _claim(self, png: bytes) -> int:
        """Save the picture under the next free number: a hard link fails if the name exists."""
        part = self._part(png)
        try:
            while True:
                number, self._number = self._number, self._number + 1
                try:
                    (self._directory / f"{number:02}.png").hardlink_to(part)
                except FileExistsError:
                    continue
                return number
        finally:
            part.unlink()

    def _part(self, content: bytes) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f".{os.getpid()}.part"
        path.write_bytes(content)
        return path
