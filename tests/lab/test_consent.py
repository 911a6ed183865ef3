"""Before money is spent: everything that is wrong is told, and nothing is made without a yes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rain_deploy
from tests.lab.lab import Lab
from tests.local.command_line import CommandLine


@pytest.fixture
def line(lab: Lab, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "home", tmp_path, env=tuple(lab.environ().items()))


def nothing_was_made(lab: Lab) -> bool:
    return [request for request in lab.log if request.method != "GET"] == [] and lab.left() == ()


def test_without_a_terminal_and_without_a_yes_nothing_is_made(lab: Lab, line: CommandLine) -> None:
    told = line("up", "--nodes", "4", "--json")
    assert told.exit_code == 2
    assert "Create 4 machines" in told.error["message"]
    assert "--yes" in told.error["next"]
    assert nothing_was_made(lab)


def test_the_plan_is_reported_before_the_question(lab: Lab, line: CommandLine) -> None:
    said = line("up", "--nodes", "4").stderr
    for word in ("4 x standard.medium", "per hour", "per day", "quota left", "powers itself off at", "SSH"):
        assert word in said.partition("error[")[0]


@pytest.mark.parametrize(
    ("words", "exit_code", "told"),
    [
        (("--zone", "xx-nowhere-1"), 10, "ch-gva-2"),
        (("--instance-type", "standard.gigantic"), 10, "standard.medium"),
        (("--template", "Windows 3.11"), 10, "Linux Debian 12 (Bookworm) 64-bit"),
        (("--nodes", "21"), 21, "20"),
        (("--disk-size", "10", "--template", "none such"), 10, "template"),
    ],
)
def test_what_cannot_be_had_is_refused_with_what_can(
    lab: Lab, line: CommandLine, words: tuple[str, ...], exit_code: int, told: str
) -> None:
    ended = line("up", "--yes", "--json", *words)
    assert ended.exit_code == exit_code, ended
    error = ended.error
    assert told in f"{error['message']} {error.get('details')} {error['next']}", error
    assert nothing_was_made(lab)


def test_no_time_limit_is_said_in_the_question(lab: Lab, line: CommandLine) -> None:
    told = line("up", "--ttl", "none", "--json")
    assert told.exit_code == 2
    assert "WITHOUT a time limit" in told.error["message"]
    assert nothing_was_made(lab)


def test_a_cap_of_cost_is_an_hour_in_the_plan(lab: Lab, line: CommandLine) -> None:
    """One standard.medium with 20 GiB costs 0.04946 an hour: 0.1 lasts 2 h 1 min, before the 12 h."""
    planned = line.well("up", "--dry-run", "--max-cost", "0.1", "--json").result
    assert any("in 2 h" in sentence for sentence in planned["offer"])
    assert nothing_was_made(lab)


def test_an_operator_whom_machines_could_not_answer_is_reported_before_one_is_made(tmp_path: Path) -> None:
    with Lab(source_ip="2001:db8::7") as lab:
        line = CommandLine(tmp_path / "home", tmp_path, env=tuple(lab.environ().items()))
        told = line("up", "--yes", "--json")
        assert told.exit_code == 10
        assert "2001:db8::7" in told.error["message"]
        assert "--allow-ip" in told.error["next"]
        assert lab.log.of("create-instance") == []
        assert lab.left() == ()


def test_from_python_nothing_is_made_without_a_yes(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in lab.environ().items():
        monkeypatch.setenv(name, value)
    here: dict[str, Any] = {"provider": "exoscale", "nodes": 4, "home": tmp_path / "home", "cwd": tmp_path}
    assert any("per hour" in sentence for sentence in rain_deploy.plan(**here).offer)
    with pytest.raises(rain_deploy.UsageError, match="Create 4 machines") as refused:
        rain_deploy.up(**here)
    assert "yes=True" in str(refused.value.next_step)
    asked: list[str] = []

    def no(question: str) -> bool:
        asked.append(question)
        return False

    with pytest.raises(rain_deploy.UsageError, match="nothing was created"):
        rain_deploy.up(confirm=no, **here)
    assert "/hour in all: at most" in asked[0]
    assert nothing_was_made(lab)
