"""A command line that is wrong says what was probably meant, and does nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rain_deploy
from rain_deploy.cli.main import VERBS
from rain_deploy.cli.mistakes import near_verb
from tests.unit.fake_application import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    return World(tmp_path / "home")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("statsu", "There is no command 'statsu'. Did you mean 'status'?"),
        ("destroy", "There is no command 'destroy'. Did you mean 'down'?"),
        ("ps", "There is no command 'ps'. Did you mean 'runs'?"),
        ("ls -v", "There is no command 'ls'. Did you mean 'list'?"),
        ("help resutls", "There is no command 'resutls'."),
        ("up --nodse 2", "up has no option --nodse. Did you mean '--nodes'?"),
        ("up --node 2", "up has no option --node. Did you mean '--nodes'?"),
        ("points --cvs", "points has no option --cvs. Did you mean '--csv'?"),
        ("up -n 2", "up has no option -n. Did you mean '--nodes'?"),
        ("up -nodes 2", "up has no option -n. Did you mean '--nodes'?"),
        ("sweep --workers 2 x.py", "sweep has no option --workers. Did you mean '--nodes'?"),
        ("run -n x.py", "run has no option -n. Did you mean '--no-companion' or '--no-wait'?"),
        ("run --no-cache x.py", "run has no option --no-cache. Did you mean '--fresh'?"),
        ("run -e A=1 x.py", "run has no option -e. Did you mean '--env'?"),
        ("down --force", "down has no option --force. Did you mean '--yes'?"),
        ("points -a", "points has no option -a. Did you mean '--all'?"),
        ("status -n 3", "status has no option -n.\n"),
        ("down --zome x", "down has no option --zome.\n"),
        ("status --nodes 3", "status has no option --nodes. up, sweep and check have it.\n"),
        ("down --timeout 2h", "down has no option --timeout. run, sweep and rehearse have it.\n"),
        ("--nodes 2 up", "--nodes is an option of a command: name the command too.\n"),
        ("-c", "-c is an option of a command: name the command too.\n"),
        ("status mine", "status takes no argument 'mine'. Did you mean -c mine?\n"),
        ("up 3", "up takes no argument '3'. Did you mean --nodes 3?\n"),
        ("scale 3 mine", "scale takes N, and not 'mine' too.\n"),
        ("pull 7 8", "pull takes [RUN], and not '8' too.\n"),
        ("logs 7 node-2", "logs takes [RUN], and not 'node-2' too.\n"),
        ("status a b", "status takes no argument 'a b'.\n"),
        ("ssh 1 ls", "ssh takes no argument 'ls'. Did you mean -- ls?\n"),
    ],
)
def test_it_says_what_was_probably_meant(world: World, words: str, said: str) -> None:
    result = world.invoke(*words.split())
    assert (result.exit_code, world.verbs.calls) == (2, [])
    assert f"error[RD2]: {said}" in result.stderr
    assert "--help\n" in result.stderr


@pytest.mark.parametrize("words", ["", "help", "--help", "help help", "help --help"])
def test_help_is_easy_to_get(world: World, words: str) -> None:
    result = world.invoke(*words.split())
    assert (result.exit_code, result.stdout.startswith("Usage: rain-deploy [OPTIONS] COMMAND")) == (0, True)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_is_the_same_by_both_ways(world: World, verb: str) -> None:
    assert world.invoke("help", verb).stdout == world.invoke(verb, "--help").stdout != ""


@pytest.mark.parametrize("verb", VERBS)
def test_a_slip_of_the_finger_names_the_verb(verb: str) -> None:
    assert near_verb(verb, VERBS) == verb
    if len(verb) > 4:
        assert near_verb(verb[:-2] + verb[-1] + verb[-2], VERBS) == verb
        assert near_verb(verb[:-1], VERBS) in {verb, "run"}


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_breaks_lines_between_words_only(world: World, verb: str) -> None:
    lines = world.invoke(verb, "--help").stdout.splitlines()
    assert [line for line in lines if re.search(r"\w-$", line)] == []
    assert max(map(len, lines)) <= 80
    assert not any("\0" in line for line in lines)


def test_a_command_in_a_next_step_can_be_copied() -> None:
    """Words about a command stand before it."""
    after = re.compile(r"rain-deploy [a-z]+ [^\"`]*(, which|[,;] then )")
    lines = [
        f"{path.name}: {line.strip()}"
        for path in Path(rain_deploy.__file__).parent.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if after.search(line)
    ]
    assert lines == []
