"""Draw the pictures of a sweep with matplotlib, as SVG that suits a light page and a dark one."""

import io
import itertools
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, ScalarFormatter

from rain_deploy.results.report.charts import Bars, Chart, Clouds, Heatmap, Lines, label, short

WIDTH_IN = 6.4
_INK, _PALE = "#010203", "#010204"  # replaced by the page's own colours
_STYLE = """<style type="text/css">
:root{--ink:#1f2328;--pale:#c9ced6}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e6e9ee;--pale:#4a515c}}
*{stroke-linejoin:round;stroke-linecap:butt}
</style>"""
_LOOKS: dict[Any, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "rain-deploy",
    "text.parse_math": False,  # names of others are text, not formulas
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "grid.color": _PALE,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
}
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8f6fd1", "#7f7f7f")
"""Told apart also by those who see few colours (Okabe and Ito), on light and on dark."""
_MARKS = "osD^vPX*"
_MOST_NUMBERS = 150  # cells with their number in them
_MOST_TICKS = 10


def draw(chart: Chart) -> str:
    """Return the picture as SVG."""
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that the font lacks is drawn as a box
        mpl.rcdefaults()
        mpl.rcParams.update(_LOOKS)
        figure = _DRAWN[type(chart)](chart)
        stream = io.StringIO()
        FigureCanvasSVG(figure)
        figure.savefig(stream, format="svg", bbox_inches="tight", pad_inches=0.08, metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = svg.replace(_INK, "var(--ink)").replace(_PALE, "var(--pale)")
    return re.sub(r"<style.*?</style>", _STYLE, svg, count=1, flags=re.DOTALL)


def _new(height_in: float, chart: Chart) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_IN, height_in))
    plot = figure.subplots()
    plot.set_title(chart.title, loc="left", pad=12)
    return figure, plot


def _heatmap(chart: Heatmap) -> Figure:
    rows, columns = len(chart.y.values), len(chart.x.values)
    figure, plot = _new(min(8.0, max(2.2, 1.0 + 0.42 * rows)), chart)
    numbers = [[math.nan if cell is None else cell for cell in row] for row in chart.cells]
    there = [cell for row in chart.cells for cell in row if cell is not None]
    norm = Normalize(min(there), max(there))
    image = plot.imshow(numbers, norm=norm, cmap="viridis", aspect="auto", origin="lower")
    bar = figure.colorbar(image, ax=plot, pad=0.02, label=chart.value)
    bar.outline.set_visible(False)
    if norm.vmin == norm.vmax:
        bar.set_ticks([there[0]], labels=[label(there[0])])
    _ticks(plot, chart.x.labels, chart.y.labels)
    plot.set(xlabel=short(chart.x.name), ylabel=short(chart.y.name))
    plot.spines[:].set_visible(False)
    if rows * columns <= _MOST_NUMBERS and columns <= 12:  # noqa: PLR2004  more do not fit side by side
        _write_numbers(plot, chart, norm)
    if len(there) < rows * columns:
        empty = [(x, y) for y, row in enumerate(chart.cells) for x, cell in enumerate(row) if cell is None]
        for x, y in empty:
            plot.add_patch(_empty((x - 0.5, y - 0.5)))
        plot.legend(
            handles=[Patch(facecolor="none", edgecolor=_PALE, hatch="////", label="no value")],
            loc="upper right",
            bbox_to_anchor=(1.0, -0.12),
        )
    return figure


def _empty(at: tuple[float, float]) -> Patch:
    return Rectangle(at, 1, 1, facecolor="none", edgecolor=_PALE, hatch="////", linewidth=0)


def _write_numbers(plot: Axes, chart: Heatmap, norm: Normalize) -> None:
    for y, row in enumerate(chart.cells):
        for x, cell in enumerate(row):
            if cell is not None:
                dark = norm(cell) < 0.6  # noqa: PLR2004  viridis is bright above
                plot.text(
                    x,
                    y,
                    f"{cell:.3g}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="#fff" if dark else "#000",
                )


def _ticks(plot: Axes, across: Sequence[str], up: Sequence[str]) -> None:
    """Label every column and row, or as many as there is room for."""
    step = -(-len(across) // 20)
    turned = max(map(len, across)) * len(across) / step > 60  # noqa: PLR2004  letters that fit side by side
    plot.set_xticks(
        range(0, len(across), step),
        across[::step],
        rotation=40 if turned else 0,
        ha="right" if turned else "center",
        rotation_mode="anchor" if turned else None,
    )
    step = -(-len(up) // 30)
    plot.set_yticks(range(0, len(up), step), up[::step])
    plot.tick_params(length=0)


def _lines(chart: Lines) -> Figure:
    figure, plot = _new(3.8, chart)
    for number, (name, xs, ys) in enumerate(chart.series):
        plot.plot(
            xs,
            ys,
            color=_COLOURS[number % len(_COLOURS)],
            marker=_MARKS[number % len(_MARKS)] if len(xs) <= 60 else "",  # noqa: PLR2004
            markersize=4.5,
            linewidth=1.6,
            label=name,
        )
    plot.set(xlabel=short(chart.x), ylabel=chart.value)
    _numbers(plot, sorted({x for _, xs, _ in chart.series for x in xs}), log=chart.log)
    if chart.by:
        plot.legend(title=short(chart.by), loc="upper left", bbox_to_anchor=(1.0, 1.02))
    return figure


def _numbers(plot: Axes, xs: Sequence[float], *, log: bool) -> None:
    """Scale the axis of a numeric parameter; a few values are its ticks."""
    plot.grid(axis="both", linewidth=0.6)
    plot.tick_params(length=3)
    if log:
        plot.set_xscale("log")
    if len(xs) <= _MOST_TICKS and _apart(xs, log=log):
        plot.xaxis.set_major_locator(FixedLocator(list(xs)))
        plot.xaxis.set_minor_locator(NullLocator())
        plot.xaxis.set_major_formatter(lambda x, _: label(float(x)))
    elif log:
        plot.xaxis.set_major_formatter(lambda x, _: label(float(x)))
        plot.xaxis.set_minor_formatter(NullFormatter())
    else:
        plot.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))


def _apart(xs: Sequence[float], *, log: bool) -> bool:
    """Return whether labels at these places do not touch."""
    at = [math.log(x) if log else x for x in xs]
    steps = [after - before for before, after in itertools.pairwise(at)]
    return not steps or min(steps) * 12 >= at[-1] - at[0]


def _bars(chart: Bars) -> Figure:
    figure, plot = _new(max(1.6, 0.9 + 0.27 * len(chart.bars)), chart)
    names, numbers = zip(*chart.bars, strict=True)
    drawn = plot.barh(range(len(names)), numbers, color=_COLOURS[0], height=0.7)
    plot.bar_label(drawn, labels=[label(number) for number in numbers], padding=3, fontsize=8)
    plot.set_yticks(range(len(names)), names)
    plot.invert_yaxis()
    plot.margins(x=0.12, y=0.02)
    plot.tick_params(axis="y", length=0)
    plot.grid(axis="x", linewidth=0.6)
    plot.set(xlabel=chart.value, ylabel=chart.by)
    plot.axvline(0, color=_INK, linewidth=0.8)
    return figure


def _clouds(chart: Clouds) -> Figure:
    columns = min(2, len(chart.panels))
    rows = -(-len(chart.panels) // columns)
    figure = Figure(figsize=(WIDTH_IN, 0.6 + 2.5 * rows), layout="constrained")
    plots: list[Axes] = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    figure.suptitle(chart.title, x=0.02, ha="left", fontsize=12, fontweight="bold")
    for plot, panel in zip(plots, chart.panels, strict=False):
        name, xs, ys, log = panel
        many = len(xs) > 500  # noqa: PLR2004
        plot.plot(
            xs,
            ys,
            "o",
            color=_COLOURS[0],
            markersize=2 if many else 4,
            alpha=0.5,
            markeredgewidth=0,
            rasterized=many,
        )
        plot.set(xlabel=short(name))
        _numbers(plot, sorted(set(xs)), log=log)
    for plot in plots[::columns]:
        plot.set_ylabel(chart.value)
    for plot in plots[len(chart.panels) :]:
        plot.set_visible(False)
    return figure


_DRAWN: dict[type[Chart], Callable[[Any], Figure]] = {
    Heatmap: _heatmap,
    Lines: _lines,
    Bars: _bars,
    Clouds: _clouds,
}
