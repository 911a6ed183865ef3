"""A report is made by a process of its own, last of all; what goes wrong there costs no results."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rain_deploy import wiring
from rain_deploy.core.events import Event, Notice
from rain_deploy.results.manifest import read_manifest
from rain_deploy.results.pull import pull
from rain_deploy.results.report.maker import NoReport, ReportProcess, Reports
from rain_deploy.results.report.renew import renew_report
from tests.support.results import verify
from tests.unit.test_results_pull import FILES, ROW, Node, names, run_record, tar_of


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


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return a results directory without values: nothing is drawn, so its report is quick."""
    pull(Node(tar_of({**FILES, "points.jsonl": b""})), run_record(tmp_path / "r1"))
    return tmp_path / "r1"


def test_the_real_process_makes_a_page_of_pulled_results(out: Path) -> None:
    two = b"".join(json.dumps(ROW | {"task": task, "value": task}).encode() + b"\n" for task in (1, 2))
    pull(Node(tar_of({**FILES, "points.jsonl": two})), run_record(out), cost="1 CHF")
    reports = ReportProcess()
    reports.warm()
    path = renew_report(out, reports.make)
    page = path.read_text("utf-8")
    assert path == out / "report.html"
    assert "1 CHF" in page
    assert "value by task" in page
    assert verify(out) == ()


BROKEN = {
    "raise ValueError('no numbers')": "ValueError: no numbers",
    "import os; os.kill(os.getpid(), 9)": "its process ended with status -9",
    "pass": "its process ended with status 0",
    "import time; time.sleep(60)": "it was not made within 1 s",
}


@pytest.mark.parametrize("program", BROKEN)
def test_a_fault_in_the_report_changes_nothing_in_the_results(
    out: Path, program: str, made: Callable[..., ReportProcess]
) -> None:
    reports = made(program, 1.0 if "sleep" in program else 30.0)
    with pytest.raises(NoReport, match=BROKEN[program]):
        renew_report(out, reports.make)
    assert verify(out) == ()
    assert "report.html" not in names(out)


def test_a_python_that_is_gone_is_no_report_too(tmp_path: Path) -> None:
    reports = ReportProcess((str(tmp_path / "none"),))
    reports.warm()
    with pytest.raises(NoReport, match=r"none does not start: No such file"):
        reports.make(tmp_path)


def test_a_process_that_was_not_needed_is_ended(made: Callable[..., ReportProcess]) -> None:
    reports = made("import os, sys; print(os.getpid(), flush=True); sys.stdin.read()")
    reports.warm()
    process = reports._process  # noqa: SLF001  whose end is the matter
    assert process
    assert process.stdout
    pid = int(process.stdout.readline())
    reports.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_file_of_the_user_is_not_overwritten(out: Path) -> None:
    (out / "report.html").write_text("mine")
    with pytest.raises(NoReport, match=r"report\.html is another file"):
        renew_report(out, lambda _: b"page")
    assert (out / "report.html").read_text() == "mine"


def test_a_report_is_made_again_and_the_manifest_lists_the_new_one(out: Path) -> None:
    renew_report(out, lambda _: b"first")
    before = read_manifest(out)
    renew_report(out, lambda _: b"second")
    after = read_manifest(out)
    assert (out / "report.html").read_bytes() == b"second"
    assert verify(out) == ()
    assert before is not None
    assert after is not None
    assert {**before, "files": []} == {**after, "files": []}
    assert len(before["files"]) == len(after["files"])
    pull(Node(tar_of(FILES)), run_record(out))
    assert "report.html" not in names(out), "it was about the results before"
    assert verify(out) == ()


def test_results_that_are_not_here_have_no_report(tmp_path: Path) -> None:
    with pytest.raises(NoReport, match="there are no results in"):
        renew_report(tmp_path / "none", lambda _: b"page")


def test_the_context_makes_what_was_wanted_when_the_verb_has_ended(out: Path, tmp_path: Path) -> None:
    told = list[Event]()
    with wiring.context(tmp_path, told.append, lambda _: True, tmp_path) as ctx:
        ctx.reports.want(out)
        ctx.reports.want(tmp_path / "none")
        assert "report.html" not in names(out)
    assert "report.html" in names(out)
    first, second = told
    assert first == Notice("report: r1/report.html")
    assert isinstance(second, Notice)
    assert second.text.startswith(f"{tmp_path / 'none'} has no report: ValueError: ")
    assert second.warning


@pytest.mark.parametrize(("error", "made"), [(KeyboardInterrupt, False), (ValueError, True)])
def test_an_error_of_the_verb_costs_no_report_but_an_interrupt_does(
    out: Path, tmp_path: Path, error: type[BaseException], made: bool
) -> None:
    def work() -> None:
        with wiring.context(tmp_path, lambda _: None, lambda _: True) as ctx:
            ctx.reports.want(out)
            raise error

    with pytest.raises(error):
        work()
    assert ("report.html" in names(out)) is made


def test_by_default_none_is_made(tmp_path: Path) -> None:
    assert Reports().make(tmp_path) == b""
