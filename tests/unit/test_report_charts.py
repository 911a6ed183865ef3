"""The pictures of a report are chosen by the parameters and the values, and stay few and small."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from rain_deploy.node.wire import PointRow
from rain_deploy.results.report.charts import (
    MOST_BARS,
    MOST_PICTURES,
    Bars,
    Chart,
    Clouds,
    Heatmap,
    Lines,
    charts,
    measured,
)
from rain_deploy.results.report.draw import draw


def rows(*points: tuple[dict[str, Any], Any]) -> list[PointRow]:
    """Return a point for each pair of parameters and value; a dict is several values."""
    return [
        PointRow(
            task=number,
            name=f"point {number}",
            parameters=parameters,
            value=None if isinstance(value, dict) else value,
            values=value if isinstance(value, dict) else {},
            state="finished",
            point=True,
        )
        for number, (parameters, value) in enumerate(points)
    ]


def grid(**axes: Any) -> list[PointRow]:
    """Return a point for each combination, whose value is its number."""
    combinations = itertools.product(*axes.values())
    return rows(*((dict(zip(axes, one, strict=True)), number) for number, one in enumerate(combinations)))


def only(points: list[PointRow]) -> Chart:
    (chart,), more = charts(points)
    assert more == 0
    return chart


def test_two_parameters_make_a_heatmap_with_numbers_in_order() -> None:
    chart = only(grid(size=[64, 9, 32], rate=[0.5, 0.1]))
    assert isinstance(chart, Heatmap)
    assert (chart.y.labels, chart.x.labels) == (["9", "32", "64"], ["0.1", "0.5"])
    assert chart.cells == ((3.0, 2.0), (5.0, 4.0), (1.0, 0.0))
    assert (chart.title, chart.note) == ("value by size and rate", "")


def test_text_stays_in_the_order_of_the_script_and_true_is_not_one() -> None:
    chart = only(grid(act=["tanh", "relu"], bias=[True, 1]))
    assert isinstance(chart, Heatmap)
    assert (chart.y.labels, chart.x.labels) == (["tanh", "relu"], ["True", "1"])


def test_a_point_that_failed_leaves_its_cell_empty() -> None:
    points = grid(a=[1, 2], b=[1, 2])
    chart = only([*points[:3], *rows(({"a": 2, "b": 2}, None))])
    assert isinstance(chart, Heatmap)
    assert chart.cells == ((0.0, 1.0), (2.0, None))


def test_repeated_points_are_a_mean_and_it_says_so() -> None:
    chart = only(rows(({"a": 1, "b": 1}, 1.0), ({"a": 1, "b": 1}, 4.0), ({"a": 2, "b": 2}, 5.0)))
    assert isinstance(chart, Heatmap)
    assert chart.cells == ((2.5, None), (None, 5.0))
    assert chart.note == "Each value is the mean of up to 2 points."


@pytest.mark.parametrize(
    ("values", "log"), [([1, 2, 3], False), ([1e-4, 1e-2, 1.0], True), ([0, 100], False)]
)
def test_one_numeric_parameter_makes_a_line(values: list[float], log: bool) -> None:
    chart = only(grid(rate=values[::-1], fixed=["x"]))
    assert isinstance(chart, Lines)
    ((name, xs, ys),) = chart.series
    assert (name, xs, ys) == ("", tuple(map(float, values)), tuple(map(float, reversed(range(len(values))))))
    assert (chart.title, chart.by, chart.log) == ("value by rate", "", log)


def test_three_parameters_make_a_line_for_each_value_of_one() -> None:
    chart = only(grid(rate=[1, 2, 3, 4], act=["relu", "tanh"], seed=[1, 2, 3]))
    assert isinstance(chart, Lines)
    assert (chart.x, chart.by) == ("rate", "act")
    assert [name for name, _, _ in chart.series] == ["relu", "tanh"]
    assert chart.series[0][2] == (1.0, 7.0, 13.0, 19.0)
    assert chart.note == "Each value is the mean of up to 3 points, over seed."


def test_a_parameter_that_is_no_number_makes_bars() -> None:
    chart = only(grid(model=["svm", "tree"]))
    assert chart == Bars("value", "", "model", (("svm", 0.0), ("tree", 1.0)))


def test_no_parameter_makes_a_bar_for_each_task_and_many_are_the_highest() -> None:
    few = only(rows(({}, 3), ({}, 1)))
    assert few == Bars("value", "", "task", (("point 0", 3.0), ("point 1", 1.0)))
    many = only(rows(*(({}, number) for number in range(100))))
    assert isinstance(many, Bars)
    assert len(many.bars) == MOST_BARS
    assert many.bars[0] == ("point 99", 99.0)
    assert many.note == "These are the 40 highest of 100."


def test_a_random_search_is_a_cloud_for_each_parameter() -> None:
    points = [({"rate": 10 ** -(number / 20), "size": number * 7 % 97}, number) for number in range(90)]
    chart = only(rows(*points))
    assert isinstance(chart, Clouds)
    assert [(name, len(xs), log) for name, xs, _, log in chart.panels] == [
        ("rate", 90, True),
        ("size", 90, False),
    ]


OTHERS: dict[str, Any] = {**{f"v{n}": n + 1 for n in range(9)}, "text": "x"}


def test_each_kind_of_value_has_a_picture_but_not_too_many() -> None:
    found, more = charts(rows(({"a": 1}, {f"v{n}": n for n in range(9)}), ({"a": 2}, OTHERS)))
    assert [chart.value for chart in found] == [f"v{number}" for number in range(MOST_PICTURES)]
    assert more == 9 - MOST_PICTURES


@pytest.mark.parametrize("value", [None, "text", float("nan"), float("inf"), True, 10**400, 1e308])
def test_what_is_no_number_has_no_picture(value: Any) -> None:
    assert charts(rows(({"a": 1}, value), ({"a": 2}, value))) == ([], 0)


@pytest.mark.parametrize(
    "points", [rows(*(({"a": a, "b": b}, 1.0) for a in (1, 2) for b in (1, 2))), rows(({}, 0))]
)
def test_a_value_that_is_the_same_everywhere_has_no_picture(points: list[PointRow]) -> None:
    assert charts(points) == ([], 0)
    assert [one.constant for one in measured(points)] == [points[0].value]


def test_a_parameter_that_few_points_have_is_no_axis() -> None:
    chart = only(rows(({"a": 1}, 1), ({"a": 2}, 2), ({"a": 3, "b": 1}, 3)))
    assert isinstance(chart, Lines)


EVIL = "$\\frac{<script>}{0}$ & \x1b\u202e--></svg>]]>"
DRAWN = {
    "heatmap": grid(**{"size": [1, 2, 4], EVIL: ["a", EVIL]}),
    "holes": rows(({"a": 1, "b": 1}, 1), ({"a": 2, "b": 2}, None), ({"a": 1, "b": 2}, 2)),
    "large": grid(a=list(range(100)), b=list(range(100))),
    "lines": grid(rate=[1e-5, 1e-3, 1e-1], act=["relu", EVIL], seed=[1, 2]),
    "log without room": grid(rate=[10.0**-n for n in range(15)]),
    "bars": grid(**{EVIL: ["a", EVIL]}),
    "huge": rows(({"a": 1}, 1e99), ({"a": 2}, -1e99)),
    "cloud": rows(*(({"rate": 10 ** -(n / 300), EVIL: n * 7 % 997, "c": n}, n) for n in range(900))),
}


@pytest.mark.parametrize("points", DRAWN.values(), ids=DRAWN)
def test_every_chart_is_a_drawing_that_needs_nothing_else(points: list[PointRow]) -> None:
    svg = draw(only(points))
    tree = ET.fromstring(svg)  # noqa: S314  our own
    assert tree.tag == "{http://www.w3.org/2000/svg}svg"
    tags = {element.tag.rpartition("}")[2] for element in tree.iter()}
    assert not tags & {"script", "foreignObject", "text", "a"}, "letters are shapes"
    for element in tree.iter():
        for name, value in element.attrib.items():
            assert not name.rpartition("}")[2].startswith("on")
            assert name.rpartition("}")[2] != "href" or value.startswith(("#", "data:image/png;base64,"))
    assert "prefers-color-scheme:dark" in svg
    assert not re.search(r"#01020[34]", svg)
    assert len(svg) < 400_000
    assert draw(only(points)) == svg
