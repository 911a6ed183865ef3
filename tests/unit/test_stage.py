"""A stage's script, executed for real by a shell of this machine."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from rain_deploy.core.events import Event, Progress, StepDone
from rain_deploy.core.machine import Host
from rain_deploy.core.step import PayloadFile, Stage, Step
from rain_deploy.errors import InstallFailed
from rain_deploy.fleet.fanout import SshExecutor, StageReport
from rain_deploy.parts.shell import pack, stage_command
from rain_deploy.transport.local import LocalTransport

HOST = Host("node-1", "127.0.0.1", 22, "me", ())


def execute(base: Path, stage: Stage, seen: list[Event]) -> StageReport:
    return SshExecutor(LocalTransport()).run({HOST: stage}, str(base), seen.append).require()[HOST.name]


def outcomes(seen: list[Event]) -> list[tuple[str, str]]:
    return [(event.step, event.outcome) for event in seen if isinstance(event, StepDone)]


def test_a_step_whose_check_passes_is_left_alone(tmp_path: Path) -> None:
    seen: list[Event] = []
    step = Step("there", check="true", act="touch acted; exit 1")
    assert execute(tmp_path / "base", Stage("s", (step,)), seen).changed == ()
    assert outcomes(seen) == [("there", "unchanged")]


def test_a_step_acts_once_and_is_verified(tmp_path: Path) -> None:
    made = tmp_path / "made"
    step = Step("make", check=f"[ -e {made} ]", act=f"echo x >>{made}", verify=f"[ -s {made} ]")
    seen: list[Event] = []
    for _ in range(2):
        execute(tmp_path / "base", Stage("s", (step,)), seen)
    assert made.read_text() == "x\n"
    assert outcomes(seen) == [("make", "done"), ("make", "unchanged")]


@pytest.mark.parametrize(
    "step",
    [Step("bad", act="echo why >&2\nfalse\ntrue"), Step("bad", act="echo why", verify="false")],
    ids=["act fails in its middle", "verify fails"],
)
def test_a_failed_step_ends_the_stage_and_tells_what_it_printed(tmp_path: Path, step: Step) -> None:
    after = tmp_path / "after"
    seen: list[Event] = []
    with pytest.raises(InstallFailed) as caught:
        execute(tmp_path / "base", Stage("s", (step, Step("next", act=f"touch {after}"))), seen)
    assert "bad failed" in caught.value.message
    assert caught.value.node == "node-1"
    assert caught.value.details == "why"
    assert not after.exists()


def test_neighbours_that_are_beside_run_at_the_same_time(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    wait = "i=0; until [ -e {0} ]; do i=$((i + 1)); [ $i -lt 100 ] || exit 1; sleep 0.05; done"
    steps = (
        Step("first", act=f"touch {a}\n{wait.format(b)}", parallel=True),
        Step("second", act=f"touch {b}\n{wait.format(a)}", parallel=True),
    )
    assert set(execute(tmp_path / "base", Stage("s", steps), []).changed) == {"first", "second"}


def test_one_failing_neighbour_fails_the_stage(tmp_path: Path) -> None:
    steps = (Step("good", act="true", parallel=True), Step("bad", act="exit 3", parallel=True))
    with pytest.raises(InstallFailed, match="bad failed"):
        execute(tmp_path / "base", Stage("s", steps), [])


def test_the_payload_arrives_and_its_staging_is_gone_afterwards(tmp_path: Path) -> None:
    base, here = tmp_path / "a base", tmp_path / "here"
    content = bytes(range(256)) * 4000
    stage = Stage(
        "s",
        (Step("take", act=f'cp "$S/in/file" {here}; [ -x "$S/in/file" ]'),),
        (PayloadFile("in/file", content, 0o755),),
    )
    execute(base, stage, [])
    assert here.read_bytes() == content
    assert list((base / "tmp").iterdir()) == []
    assert base.stat().st_mode & 0o777 == 0o700


def test_values_come_home_and_output_does_not_disturb_them(tmp_path: Path) -> None:
    seen: list[Event] = []
    step = Step("tell", act="printf 'no newline'\ndata key 'a b'\necho noise\ndata key c")
    report = execute(tmp_path / "base", Stage("s", (step,)), seen)
    assert report.values("key") == ("a b", "c")
    assert Progress("node-1", "no newlinenoise") in seen


def test_variables_and_exports_are_quoted(tmp_path: Path) -> None:
    odd = 'it\'s; $(touch evil) `id` \\ "x"\nline'
    stage = Stage(
        "s", (Step("tell", act='data v "$V"\ndata w "$(env | grep -c ^W=)"'),), variables=(("V", odd),)
    )
    command = stage_command(stage, str(tmp_path / "base"), (("W", odd),))
    assert not any("export W=" in word for word in command.argv), "an argument can be seen by everybody"
    result = LocalTransport().run(HOST, command)
    assert f"\x1dv\t{odd}\n".encode() in result.stdout
    assert b"\x1dw\t1\n" in result.stdout


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    with pytest.raises(InstallFailed) as caught:
        execute(link, Stage("s", (Step("x", act="true"),)), [])
    assert "belongs to somebody else" in str(caught.value.details)


def test_the_same_files_give_the_same_bytes() -> None:
    files = (PayloadFile("a", b"1"), PayloadFile("b", b"2", 0o600))
    assert pack(files) == pack(files)


def test_files_are_packed_without_a_second_copy_of_them_in_memory() -> None:
    file = PayloadFile("large", bytes(32 << 20))
    tracemalloc.start()
    try:
        pack((file,))
        assert tracemalloc.get_traced_memory()[1] < len(file.data) / 2
    finally:
        tracemalloc.stop()
