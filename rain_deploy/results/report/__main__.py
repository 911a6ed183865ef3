"""The process that makes a report: reads the path of a results directory, and prints the page."""

import os
import sys
from pathlib import Path

from rain_deploy.results.report.charts import Chart
from rain_deploy.results.report.page import page
from rain_deploy.results.report.sweep import read_sweep

_POLITE = 5  # the nodes may be on this machine too, and the script is still running on them


def main() -> None:
    """Wait for the path; with the argument ``warm``, load matplotlib first.  Print nothing if none comes."""
    os.nice(_POLITE)
    if "warm" in sys.argv:
        _draw_nothing()
    if directory := os.fsdecode(sys.stdin.buffer.read()):
        sys.stdout.buffer.write(page(read_sweep(Path(directory)), _draw).encode())


def _draw(chart: Chart) -> str:
    from rain_deploy.results.report.draw import draw  # noqa: PLC0415  0.5 s: only where there is a picture

    return draw(chart)


def _draw_nothing() -> None:
    """Load what draws; the first picture also finds the fonts."""
    from rain_deploy.results.report.charts import Bars  # noqa: PLC0415

    _draw(Bars("", "", "", (("a", 1.0),)))


if __name__ == "__main__":
    main()
