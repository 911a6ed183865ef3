"""A report is made by a process of its own; what goes wrong there costs a warning, and no results."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rain_deploy.results.manifest import read_manifest
from rain_deploy.results.pull import pull, renew_report
from rain_deploy.results.report.maker import NoReport, ReportProcess, Reports
from tests.support.results import verify
from tests.unit.test_results_pull import FILES, Node, names, run_record, tar_of


@pytest.fixture
def made() -> Iterator[Callable[..., ReportProcess]]:
    """Make report processes of this Python program, closed at the end."""
    every: list[ReportProcess] = []

    def make(program: str, deadline_s: float = 30.0) -> ReportProcess:
        every.append(ReportProcess((sys.executable, "-c", program), deadline_s))
        return every[-1]

    yield make
    for one in every:
        one.close()


def test_the_real_process_makes_a_page_of_pulled_results(tmp_path: Path) -> None:
    reports, told = ReportProcess(), list[str]()
    reports.warm()
    done = pull(
        Node(tar_of(FILES)), run_record(tmp_path / "r1"), tell=told.append, report=reports.make, cost="1 CHF"
    )
    assert (done.report, told) == (True, [])
    page = (tmp_path / "r1/report.html").read_text("utf-8")
    assert "1 CHF" in page
    assert "lr" in page
    assert verify(tmp_path / "r1") == ()


BROKEN = {
    "raise ValueError('no numbers')": "ValueError: no numbers",
    "import os; os.kill(os.getpid(), 9)": "its process ended with status -9",
    "pass": "its process ended with status 0",
    "import time; time.sleep(60)": "it was not made within 1 s",
}


@pytest.mark.parametrize("program", BROKEN)
def test_a_fault_in_the_report_is_one_warning_and_the_results_are_here(
    tmp_path: Path, program: str, made: Callable[..., ReportProcess]
) -> None:
    told = list[str]()
    reports = made(program, 1.0 if "sleep" in program else 30.0)
    done = pull(Node(tar_of(FILES)), run_record(tmp_path / "r1"), tell=told.append, report=reports.make)
    assert not done.report
    assert told == [f"report.html was not made: {BROKEN[program]}"]
    assert verify(tmp_path / "r1") == ()
    assert "report.html" not in names(tmp_path / "r1")


def test_a_python_that_is_gone_is_a_warning_too(tmp_path: Path) -> None:
    reports = ReportProcess((str(tmp_path / "none"),))
    reports.warm()
    with pytest.raises(NoReport, match=r"none does not start: No such file"):
        reports.make(tmp_path)


def test_a_report_that_was_warmed_and_not_needed_leaves_no_process(
    made: Callable[..., ReportProcess],
) -> None:
    reports = made("import os, sys; print(os.getpid(), flush=True); sys.stdin.read()")
    reports.warm()
    process = reports._process  # noqa: SLF001  whose end is the matter
    assert process
    assert process.stdout
    pid = int(process.stdout.readline())
    reports.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_file_of_the_user_is_not_overwritten(tmp_path: Path) -> None:
    pull(Node(tar_of(FILES)), run_record(tmp_path / "r1"))
    (tmp_path / "r1/report.html").write_text("mine")
    told = list[str]()
    pull(Node(tar_of(FILES)), run_record(tmp_path / "r1"), tell=told.append, report=lambda _: b"page")
    assert told == [f"report.html was not made: {tmp_path / 'r1/report.html'} is another file"]
    with pytest.raises(NoReport, match="is another file"):
        renew_report(tmp_path / "r1", lambda _: b"page")
    assert (tmp_path / "r1/report.html").read_text() == "mine"


def test_a_report_is_made_again_and_the_manifest_lists_the_new_one(tmp_path: Path) -> None:
    out = tmp_path / "r1"
    pull(Node(tar_of(FILES)), run_record(out), report=lambda _: b"first", cost="1 CHF")
    before = read_manifest(out)
    assert renew_report(out, lambda _: b"second") == out / "report.html"
    assert (out / "report.html").read_bytes() == b"second"
    assert verify(out) == ()
    after = read_manifest(out)
    assert before is not None
    assert after is not None
    assert {**before, "files": []} == {**after, "files": []}
    assert len(before["files"]) == len(after["files"])
    pull(Node(tar_of(FILES)), run_record(out))  # makes none: the old one goes
    assert "report.html" not in names(out)


def test_results_that_are_not_here_have_no_report(tmp_path: Path) -> None:
    with pytest.raises(NoReport, match="there are no results in"):
        renew_report(tmp_path / "none", lambda _: b"page")


def test_by_default_none_is_made(tmp_path: Path) -> None:
    began_s = time.monotonic()
    assert Reports().make(tmp_path) == b""
    assert time.monotonic() - began_s < 60
