"""The process that makes a report: reads the path of a results directory, and prints the page."""

import os
import sys
from pathlib import Path

from rain_deploy.results.report.draw import draw
from rain_deploy.results.report.page import page
from rain_deploy.results.report.sweep import read_sweep


def main() -> None:
    """Load everything first, then wait for the path; nothing is printed if none comes."""
    if directory := os.fsdecode(sys.stdin.buffer.read()):
        sys.stdout.buffer.write(page(read_sweep(Path(directory)), draw).encode())


if __name__ == "__main__":
    main()
