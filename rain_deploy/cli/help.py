"""Format the help."""

from collections.abc import Iterable

import click

_HYPHEN = "\0"  # stands for one where a line must not be broken


class Formatter(click.HelpFormatter):
    """Breaks lines between words only; click also breaks them at hyphens, such as those of file names."""

    def write(self, string: str) -> None:
        super().write(string.replace(_HYPHEN, "-"))

    def write_text(self, text: str) -> None:
        super().write_text(text.replace("-", _HYPHEN))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        whole = [(name, text.replace("-", _HYPHEN)) for name, text in rows]
        super().write_dl(whole, col_max, col_spacing)


class HelpContext(click.Context):
    """A context whose help is made by our formatter."""

    formatter_class = Formatter
