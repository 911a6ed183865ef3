"""The report: one page that works offline, in which text of others stays text."""

from __future__ import annotations

import base64
import html.parser
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.node.wire import PointRow, to_json
from rain_deploy.results.report.page import clean, page
from rain_deploy.results.report.sweep import read_sweep

MANIFEST: dict[str, Any] = {
    "version": 1,
    "run": "20261129-1-digits",
    "script": "digits.py",
    "script_sha256": "ab" * 32,
    "args": ["--epochs", "5 6"],
    "exit_code": 1,
    "outcome": "failed",
    "warnings": ["a figure could not be drawn"],
    "complete": True,
    "versions": {"rain": "0.4.0"},
    "started_s": 1000.0,
    "ended_s": 1030.0,
    "nodes": ["node-1", "node-2"],
    "missing_nodes": ["node-3"],
    "attempts": 2,
    "cost": "0.12 CHF during the run",
    "files": [],
    "links": [],
    "left_on_node": [{"path": "files/pipe", "why": "pipe"}],
    "left_on_node_unnamed": 3,
}
POINT = PointRow(
    task=7,
    session=1,
    name="train size=32 rate=0.1",
    parameters={"size": 32, "rate": 0.1},
    value=0.93125,
    node="node-2",
    started_s=1001.0,
    ended_s=1005.2,
    duration_s=4.2,
    state="finished",
    point=True,
)
OTHER = PointRow(
    task=8,
    session=1,
    name="train size=64 rate=0.1",
    parameters={"size": 64, "rate": 0.1},
    node="node-1",
    started_s=1002.0,
    ended_s=1003.0,
    duration_s=1.0,
    state="failed",
    point=True,
    message="ValueError: no",
)


def results(
    directory: Path, *rows: PointRow, figures: dict[str, bytes] | None = None, **changed: Any
) -> Path:
    """Make a results directory as a pull leaves it."""
    directory.mkdir(exist_ok=True)
    files = []
    for name, data in (figures or {}).items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
        files.append({"path": name, "size_bytes": len(data), "sha256": ""})
    (directory / "manifest.json").write_text(json.dumps(MANIFEST | {"files": files} | changed), "ascii")
    lines = "".join(json.dumps(to_json(row)) + "\n" for row in rows)
    (directory / "points.jsonl").write_text(lines, "utf-8")
    return directory


def report(directory: Path, *rows: PointRow, **given: Any) -> str:
    return page(read_sweep(results(directory, *rows, **given)), lambda chart: f"<svg>{chart.title}</svg>")


class Read(html.parser.HTMLParser):
    """What a browser makes of a page: its elements with their attributes, and its text without the code."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._in: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in {"script", "style"}:
            self._in.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._in:
            self._in.remove(tag)

    def handle_data(self, data: str) -> None:
        self.text += "" if self._in else data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_it_tells_all_about_the_run(tmp_path: Path) -> None:
    text = Read(report(tmp_path, POINT, OTHER)).text
    for told in (
        "digits.py",
        "failed, exit code 1",
        "1 finished, 1 failed",
        "30 s",
        "2: node-1, node-2 (without node-3)",
        "0.12 CHF during the run",
        "ab" * 32,
        "--epochs '5 6'",
        "rain 0.4.0",
        "a figure could not be drawn",
        "files/pipe: pipe",
        "3 more",
        "ValueError: no",
        "1 of 2 points failed",
    ):
        assert told in text, told


def test_a_row_has_number_parameters_value_state_node_seconds_and_reason(tmp_path: Path) -> None:
    made = report(tmp_path, POINT, OTHER)
    table = made[made.index('<table id="points">') :]
    rows = re.findall(r"<tr>(.*?)(?=<tr>|</tbody>)", table, flags=re.DOTALL)
    cells = [[" ".join(Read(cell).text.split()) for cell in re.split("<t[hd]", row)[1:]] for row in rows]
    told = [[cell.partition(">")[2].strip() for cell in row] for row in cells]
    assert told[0] == ["no", "size", "rate", "value", "state", "node", "seconds", "reason"]
    assert told[1] == ["1", "32", "0.1", "0.93125", "finished", "node-2", "4.2", ""]
    assert told[2] == ["2", "64", "0.1", "", "failed", "node-1", "1", "ValueError: no"]


def test_it_needs_nothing_but_itself(tmp_path: Path) -> None:
    figures = {"figures/01.png": b"\x89PNG", "figures/01.svg": b"<svg/>"}
    read = Read(report(tmp_path, POINT, OTHER, figures=figures))
    for _, attributes in read.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    (policy,) = [meta["content"] for meta in read.all("meta") if meta.get("http-equiv")]
    assert str(policy).startswith("default-src 'none'")
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|import\(", report(tmp_path, POINT, OTHER))


def test_a_drawing_is_a_picture_and_never_part_of_the_page(tmp_path: Path) -> None:
    evil = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    made = report(tmp_path, POINT, figures={"figures/01.svg": evil, "figures/01.png": b"png"})
    assert "alert(1)" not in made
    sources = [image["src"] for image in Read(made).all("img")]
    assert f"data:image/svg+xml;base64,{base64.b64encode(evil).decode()}" in sources
    assert not any((source or "").startswith("data:image/png") for source in sources)


HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "{{ 7*7 }} {% raw %} ${alert(1)}",
    "--><!--",
    "\x1b[31mred\x00\r\nnext",
    "\u202egnp.exe \u2066x\u200b",
    "$\\frac{1}{0}$ \\mathbf{",
    "\udc80 \ufffe",
    "مرحبا שלום",
    "x" * 100_000,
    "=cmd()|'",
    "]]><![CDATA[",
]


@pytest.mark.parametrize("evil", HOSTILE, ids=range(len(HOSTILE)))
def test_text_of_others_stays_text(tmp_path: Path, evil: str) -> None:
    rows = [
        PointRow(
            task=number,
            name=f"{evil} {number}",
            parameters={evil: number, f"b{evil}": evil if number % 2 else "b"} if number < 6 else {},
            value=0.5 * number,
            values={evil: number / 3, "text": evil},
            node=evil,
            started_s=1000.0 + number,
            ended_s=1002.0 + number,
            state=evil if number == 3 else "finished",
            message=evil,
            point=True,
        )
        for number in range(8)
    ]
    given: dict[str, Any] = {
        "script": evil,
        "args": [evil],
        "warnings": [evil],
        "nodes": [evil],
        "outcome": evil,
        "cost": evil,
    }
    given |= {"versions": {evil: evil}, "left_on_node": [{"path": evil, "why": evil}], "run": evil}
    made = report(tmp_path, *rows, figures={"figures/<b>.svg": b"<svg/>"}, **given)
    read = Read(made)
    assert len(read.all("script")) == 1
    assert {tag for tag, _ in read.elements} <= KNOWN
    for _, attributes in read.elements:
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", made)
    assert clean(evil)[:50] in read.text.replace("…", "")


KNOWN = frozenset(
    "html head meta title style body header h1 bdi span p main section dl div dt dd b h2 figure img table i"  # noqa: SIM905
    " figcaption thead tr th tbody td details summary svg path rect ul li footer script input button".split()
)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), 10**400, 1e308, -0.0, True, "text"]
)
def test_values_of_every_kind_are_in_the_table(tmp_path: Path, value: Any) -> None:
    rows = [replace(POINT, task=number, value=one) for number, one in enumerate((value, 1.0, value))]
    shown = {"nan": "NaN", "1e+308": "1e+308", "-0.0": "-0"}.get(str(value), str(value))
    assert f">{shown}" in report(tmp_path, *rows)


def test_a_value_that_does_not_vary_is_one_sentence(tmp_path: Path) -> None:
    text = Read(report(tmp_path, *(replace(POINT, task=task, cached=task > 7) for task in (7, 8)))).text
    assert "value is 0.93125 at each point that has it." in text
    assert "Drawn from the points" not in text


def test_a_picture_that_cannot_be_drawn_costs_only_itself(tmp_path: Path) -> None:
    def fail(_chart: object) -> str:
        raise ZeroDivisionError("<b>")

    another = replace(POINT, task=9, parameters={"size": 128, "rate": 0.1}, value=0.5)
    made = Read(page(read_sweep(results(tmp_path, POINT, OTHER, another)), fail))
    assert "value by size could not be drawn: ZeroDivisionError: <b>" in made.text
    assert "ValueError: no" in made.text


def test_without_points_tasks_or_times_there_is_a_page(tmp_path: Path) -> None:
    bare = {name: None for name in MANIFEST if name not in {"run", "files"}}
    made = report(tmp_path, **bare)
    assert "not ended" in made
    assert "<h2>" not in made


def test_a_directory_without_a_manifest_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no manifest\.json"):
        read_sweep(tmp_path)


def test_the_same_results_give_the_same_page(tmp_path: Path) -> None:
    assert report(tmp_path, POINT, OTHER) == report(tmp_path, POINT, OTHER)
