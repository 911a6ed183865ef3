"""What starting costs, where progress goes, and that the page of exit codes is current."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rain_deploy import errors
from rain_deploy.cli.session import Application, Session
from rain_deploy.cli.show import text
from rain_deploy.cli.show.live import Spinner
from rain_deploy.cli.show.progress import JsonLines, Lines, Sink
from rain_deploy.core import events

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "exit-codes.md"
HEAVY = {
    "fabric",
    "paramiko",
    "asyncssh",
    "jinja2",
    "exoscale",
    "matplotlib",
    "rich",
    "cloudpickle",
    "sqlite3",
}
OURS = re.compile(r"rain_deploy\.(verbs|runs|cluster|fleet|parts|providers|transport|state|options\.spec)\b")


@pytest.mark.parametrize("words", [["--help"], ["up", "--help"], ["--version"], ["completion", "bash"]])
def test_starting_imports_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    ask = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))"
    child = f"{ask}; sys.argv[1:] = {words!r}; from rain_deploy.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", child], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    modules = done.stderr.split()
    assert not HEAVY & set(modules)
    assert not [module for module in modules if OURS.match(module)]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_the_real_application_works_with_closed_streams(closed: str, tmp_path: Path) -> None:
    line = f'exec "$0" -m rain_deploy.cli.main list {closed}'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable],
        cwd=ROOT,
        env={"RAIN_DEPLOY_HOME": str(tmp_path / "home"), "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = "" if ">&-" in closed.replace("2>&-", "") else "no clusters\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


def test_the_version_names_commit_and_engine() -> None:
    shown = subprocess.check_output([sys.executable, "-m", "rain_deploy.cli.main", "--version"], text=True)
    commit = r"(commit [0-9a-f]{7,}, )?" if not (ROOT / ".git").exists() else r"commit [0-9a-f]{7,}, "
    assert re.fullmatch(rf"rain-deploy, version [0-9.]+ \({commit}Rain 0\.4\.0\)\n", shown)


def page() -> str:
    """docs/reference/exit-codes.md, from the classes in errors."""
    meanings = {0: "done", 1: "a bug in rain-deploy; the message names the log"}
    for error in errors.RainDeployError.__subclasses__():
        said = (error.__doc__ or "").replace("``", "").removesuffix(".")
        meanings[error.exit_code] = said[0].lower() + said[1:]
    for code in (129, 130, 143):
        meanings[code] = f"interrupted by signal {code - 128}"
    lines = [f"| {code} | {meanings[code]} |" for code in sorted(meanings)]
    return "\n".join(
        [
            "# Exit codes",
            "",
            "The meaning of a code never changes.  Treat an unknown code as a failure.",
            "`ssh -- CMD` returns the exit code of CMD.  If the reader of a pipe closes it, as `head` does,",
            "the exit code is 141.",
            "",
            "| code | meaning |",
            "|---|---|",
            *lines,
            "",
        ]
    )


def test_the_page_of_exit_codes_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def sink(*, terminal: bool, follows: bool, json: bool = False, quiet: bool = False) -> Sink:
    app = Application(terminal=terminal)
    return Session(app, "logs", {}, follows=follows, json=json, quiet=quiet).sink


def test_progress_fits_who_reads_it() -> None:
    assert type(sink(terminal=True, follows=False)) is Spinner
    assert type(sink(terminal=False, follows=False)) is Lines
    assert type(sink(quiet=True, terminal=True, follows=False)) is Sink
    assert type(sink(json=True, terminal=True, follows=True)) is JsonLines
    assert type(sink(json=True, terminal=False, follows=False)) is Lines


STAGE = (
    events.StageStarted("install", ("node-1", "node-2")),
    events.StepDone("node-1", "install", "uv", "unchanged", 0.1),
    events.Progress("node-1", "[3/9] Compiling"),
    events.StepDone("node-1", "install", "engine", "done", 75.0),
    events.StepDone("node-2", "install", "engine", "failed", 2.0),
    events.StageEnded("install", ("node-2",), 76.0),
)


def test_a_pipe_gets_a_line_per_thing_that_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    for event in STAGE:
        Lines()(event)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "node-1: install: engine: done, 1 min 15 s",
        "node-2: install: engine: failed, 2.0 s",
    ]
    Lines(verbose=True)(STAGE[2])
    assert capsys.readouterr().err == "node-1: [3/9] Compiling\n"


def test_a_terminal_gets_a_line_per_stage(capsys: pytest.CaptureFixture[str]) -> None:
    spinner = Spinner()
    for event in STAGE:
        spinner(event)
    spinner.pause()
    assert [line for line in capsys.readouterr().err.splitlines() if line.strip()][-2:] == [
        "node-2: install: engine: failed, 2.0 s",
        "install: 2 nodes, 1 min 16 s, failed on node-2",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.7, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7620, "2 h 07 min"),
        (10 * 86_400, "10 d 0 h"),
        (None, ""),
    ],
)
def test_durations_for_people(value: float | None, shown: str) -> None:
    assert text.seconds(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e6, "2.5 MB"), (1.23e13, "12300.0 GB")],
)
def test_sizes_for_people(value: float, shown: str) -> None:
    assert text.size(value) == shown


def test_a_table_fits_the_terminal_and_shows_no_empty_column() -> None:
    rows = [("a", "1", "", "long text that goes on"), ("bb", "22", "", "x\ny")]
    assert text.table(("N", ">V", "NONE", "TEXT"), rows, width=14).splitlines() == [
        "N    V  TEXT",
        "a    1  long …",
        "bb  22  x y",
    ]


def test_a_last_column_that_matters_goes_on_in_the_next_line() -> None:
    rows = [("hosts", "it is of another provider")]
    assert text.table(("WHAT", "FOUND"), rows, width=20, wrap=True).splitlines() == [
        "WHAT   FOUND",
        "hosts  it is of",
        "       another",
        "       provider",
    ]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
