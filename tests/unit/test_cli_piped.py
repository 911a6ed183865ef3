"""What is piped to a command that runs a script: it is not sent, and that is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rain_deploy.cli.show.text import waiting_input
from tests.unit.fake_application import World
from tests.unit.test_cli_verbs import world

__all__ = ["world"]


@pytest.mark.parametrize("words", [("run", "job.py"), ("sweep", "--provider", "local", "job.py")])
def test_input_that_is_piped_is_not_dropped_silently(world: World, words: tuple[str, ...]) -> None:
    says = f"what is piped to {words[0]} is not sent to the script"
    assert says not in world.invoke(*words).stderr
    world.piped = True
    assert world.invoke(*words).stderr.count(says) == 1
    assert says not in world.invoke("status").stderr


@pytest.mark.parametrize(("content", "waits"), [("data", True), ("", False)])
def test_a_file_or_a_pipe_with_something_in_it_is_input(tmp_path: Path, content: str, waits: bool) -> None:
    (tmp_path / "in").write_text(content)
    with (tmp_path / "in").open() as file:
        assert waiting_input(file.fileno()) is waits
        file.read()
        assert not waiting_input(file.fileno())
    reader, writer = os.pipe()
    os.write(writer, content.encode())
    assert waiting_input(reader) is waits
    os.close(writer)
    assert waiting_input(reader) is waits
    os.close(reader)
    assert not waiting_input(reader)


@pytest.mark.parametrize("redirected", ["</dev/null", "<&-"])
def test_no_input_is_none(redirected: str) -> None:
    code = "from rain_deploy.cli.show.text import waiting_input; print(waiting_input())"
    command = f"{sys.executable} -c '{code}' {redirected}"
    assert subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout == "False\n"  # noqa: S602
