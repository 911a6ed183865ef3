"""The documentation names everything that there is, and every link in it leads somewhere.

``python -m tests.unit.test_docs`` writes docs/reference/options.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from rain_deploy.cli.command import Flag, help_of
from rain_deploy.cli.main import VERBS, root
from rain_deploy.options.table import OPTIONS, Group, Option, variable

ROOT = Path(__file__).resolve().parents[2]
OPTIONS_PAGE = ROOT / "docs/reference/options.md"
REFERENCE = (ROOT / "docs/reference.md").read_text("utf-8")
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("ansible/*.md")]
HEAD = """# Options

This page is generated from the code: `rain_deploy/options/table.py` and the commands.

The command line wins over the environment, and the environment wins over `rain-deploy.toml`.  The values of
`--with`, `--files` and `--env` are combined; if all three set the same variable, the same order decides.

Paths in the file are relative to the file.  In an environment variable, separate several values with spaces,
and several paths with colons.

A DURATION is a number of seconds, or a time such as `30s`, `60m`, `12h` or `2d`.  An AMOUNT is in the
currency of the prices: CHF, unless `prices` sets another.
"""
COLUMNS = "| option | verbs | what it does | environment | rain-deploy.toml |"


def options_page() -> str:
    """docs/reference/options.md, from the table and from the commands."""
    taken: dict[str, list[str]] = {}
    own: dict[str, list[str]] = {}
    for verb in VERBS:
        for option in flags(verb):
            if option.name in OPTIONS:
                taken.setdefault(str(option.name), []).append(verb)
            else:
                own.setdefault(row(option), []).append(verb)
    lines = [HEAD]
    for group in Group:
        lines += [f"## {group}", "", COLUMNS, "|---|---|---|---|---|"]
        rows = [setting for setting in OPTIONS.values() if setting.group is group]
        lines += [row_of(setting, taken.get(setting.name, [])) for setting in rows]
        lines.append("")
    lines += ["## Options of single verbs", "", "| option | verbs | what it does |", "|---|---|---|"]
    for shown, verbs in own.items():
        lines.append(shown.format(", ".join(verbs)))
    return "\n".join([*lines, ""])


def row_of(setting: Option, verbs: list[str]) -> str:
    metavar = f" {setting.metavar}" if setting.metavar else ""
    cells = (
        f"`{', '.join(setting.flags)}{metavar}`" if setting.flags else "-",
        "every" if len(verbs) == len(VERBS) else ", ".join(verbs) or "-",
        help_of(setting),
        code(variable(setting.flags[-1]) if setting.flags else ""),
        code(setting.toml),
    )
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def code(name: str) -> str:
    return f"`{name}`" if name else "-"


def row(option: click.Option) -> str:
    metavar = f" {option.metavar}" if option.metavar else ""
    return f"| `{', '.join(option.opts)}{metavar}` | {{}} | {option.help} |"


def flags(verb: str) -> Iterator[Flag]:
    command = root.get_command(click.Context(root), verb)
    assert command is not None
    return (option for option in command.params if isinstance(option, Flag))


def test_the_page_of_options_is_current() -> None:
    assert OPTIONS_PAGE.read_text("utf-8") == options_page()


@pytest.mark.parametrize("verb", VERBS)
def test_the_reference_names_every_verb(verb: str) -> None:
    assert re.search(rf"`{verb}[` ]", REFERENCE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8"))]
    local = [target for target in targets if target and not target.startswith("https://")]
    assert not [target for target in local if not (page.parent / target).exists()]


if __name__ == "__main__":
    OPTIONS_PAGE.write_text(options_page(), encoding="utf-8")
