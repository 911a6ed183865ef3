"""The campaign ``soak`` finds what grows with every run, and no more than that."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from tests.campaigns.soak import MORE, PER_RUN, Size, grown

BEFORE = Size(processes=9, zombies=0, open_files=30, memory_bytes=140_000_000, disk_bytes=400_000)


@pytest.mark.parametrize("name", [field.name for field in fields(Size)])
def test_what_grows_is_named(name: str) -> None:
    runs = 50
    most = getattr(BEFORE, name) + getattr(MORE, name) + runs * getattr(PER_RUN, name)
    assert grown(BEFORE, replace(BEFORE, **{name: most}), runs) == []
    (said,) = grown(BEFORE, replace(BEFORE, **{name: most + 1}), runs)
    assert said.startswith(f"{name}: ")


def test_one_zombie_or_process_is_too_many() -> None:
    assert grown(BEFORE, replace(BEFORE, zombies=1), 200)
    assert grown(BEFORE, replace(BEFORE, processes=10), 200)
