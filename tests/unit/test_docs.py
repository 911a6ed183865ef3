"""The documentation names everything that there is, and every link in it leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from rain_deploy import options as config
from rain_deploy.cli.main import VERBS, root
from rain_deploy.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = (ROOT / "docs/reference.md").read_text("utf-8")
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("ansible/*.md")]


@pytest.mark.parametrize("verb", VERBS)
def test_the_reference_names_every_verb_and_each_of_its_flags(verb: str) -> None:
    command = root.get_command(click.Context(root), verb)
    assert command is not None
    shown = [option for option in command.params if not getattr(option, "hidden", False)]
    flags = {name for option in shown for name in option.opts if name.startswith("--")}
    assert f"`{verb}" in REFERENCE
    assert not {flag for flag in flags if flag not in REFERENCE}


def test_the_reference_names_every_key_of_the_toml(tmp_path: Path) -> None:
    (tmp_path / "rain-deploy.toml").write_text("qqqq = 1")
    with pytest.raises(InputError) as refusal:
        config.load(None, tmp_path)
    keys = refusal.value.message.partition("valid keys: ")[2].split(", ")
    assert len(keys) > 10
    assert not {key for key in keys if f"`{key}`" not in REFERENCE}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8"))]
    local = [target for target in targets if target and not target.startswith("https://")]
    assert not [target for target in local if not (page.parent / target).exists()]
