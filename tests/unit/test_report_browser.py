"""The report in a real browser: its table sorts and filters, also with 10,000 points."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.node.wire import PointRow
from tests.unit.test_report_page import HOSTILE, POINT, report

pytestmark = pytest.mark.skipif(
    not shutil.which("chromium"), reason="needs a browser: apt-get install chromium"
)
FLAGS = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --dump-dom"
HELPERS = """
  const table = document.getElementById("points"), heads = [...table.tHead.rows[0].cells];
  const column = name => heads.findIndex(head => head.innerText === name);
  const sort = name => heads[column(name)].querySelector("button").click();
  const cells = name => [...table.tBodies[0].rows].map(row => row.cells[column(name)].innerText);
"""


def browsed(page: str, directory: Path, code: str) -> Any:
    """Return what ``code`` returns in a browser that has opened the page."""
    code = f"told.textContent = JSON.stringify((() => {{{HELPERS}{code}}})())"
    told = f"<pre id=told></pre><script>{code}</script>"
    (directory / "page.html").write_text(page.replace("</body>", f"{told}</body>"), "utf-8")
    argv = [
        "chromium",
        *FLAGS.split(),
        f"--user-data-dir={directory}/browser",
        f"file://{directory}/page.html",
    ]
    shown = subprocess.run(argv, capture_output=True, text=True, timeout=240, check=True).stdout
    found = re.search(r'<pre id="told">(.*?)</pre>', shown, flags=re.DOTALL)
    assert found, shown[-2000:]
    return json.loads(html.unescape(found[1]))


def points(*values: float | str | None) -> list[PointRow]:
    return [replace(POINT, task=number, value=value) for number, value in enumerate(values, 1)]


def test_a_click_sorts_by_numbers_another_turns_it_and_what_is_none_is_last(tmp_path: Path) -> None:
    page = report(tmp_path, *points(10.0, 9.5, float("nan"), None, 1e-5, -3, 2.00000001, 2.00000002))
    up, down = browsed(
        page,
        tmp_path,
        'sort("value"); const up = cells("no"); sort("value"); return [up, cells("no")];',
    )
    assert up[:6] == ["6", "5", "7", "8", "2", "1"]
    assert down[:6] == ["1", "2", "8", "7", "5", "6"]
    assert set(up[6:]) == set(down[6:]) == {"3", "4"}


def test_ten_thousand_points_are_500_rows_until_more_are_wanted(tmp_path: Path) -> None:
    rows = [replace(POINT, task=n, parameters={"a": n}, value=n, node=f"node-{n % 7}") for n in range(10_000)]
    first, told, found, all_ = browsed(
        report(tmp_path, *rows),
        tmp_path,
        """
        const first = cells("no").length, told = shown.textContent, type = text => {
          filter.value = text; filter.dispatchEvent(new Event("input")); return cells("a"); };
        const filter = document.getElementById("filter");
        const found = type("node-3 9999"), none = type("");
        document.getElementById("more").click();
        return [first, told, found, cells("no").length];
        """,
    )
    assert (first, told, all_) == (500, "500 of 10000 shown", 10_000)
    assert found == ["9999"]


def test_text_of_others_runs_nothing(tmp_path: Path) -> None:
    rows = [
        replace(POINT, task=n, name=evil, parameters={evil[:50]: evil}, node=evil, message=evil, state=evil)
        for n, evil in enumerate(HOSTILE)
    ]
    evil = b"<svg xmlns='http://www.w3.org/2000/svg' onload='top.bad=1'><script>top.bad=1</script></svg>"
    page = report(tmp_path, *rows, script=HOSTILE[0], figures={"figures/01.svg": evil})
    page = page.replace("alert(1)", "window.bad=1")
    counted, bad = browsed(page, tmp_path, 'sort("reason"); return [cells("no").length, window.bad ?? 0];')
    assert (counted, bad) == (len(HOSTILE), 0)
