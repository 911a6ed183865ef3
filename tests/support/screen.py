"""What this process prints and draws, as far as it has come."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.waiting import wait_for


class Screen:
    """Both streams since the last ``forget``."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def look(self) -> None:
        """Take in what has come."""
        out, err = self._capsys.readouterr()
        self.out += out
        self.err += err

    def forget(self) -> None:
        """Begin anew."""
        self.look()
        self.out = self.err = ""

    def until(self, condition: Callable[[Screen], bool]) -> None:
        """Wait until it looks like this: another thread draws, and a busy machine lets it wait."""

        def holds() -> bool:
            self.look()
            return condition(self)

        wait_for(holds, describe=lambda: f"{self.out!r} {self.err!r}")

    def until_drawn(self, *words: str) -> None:
        """Wait until the words are on standard error."""
        self.until(lambda screen: all(each in screen.err for each in words))
