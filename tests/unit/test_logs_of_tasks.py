"""``logs --task``: what one task printed, from the node or from the results."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rain_deploy.core.run import RunState
from rain_deploy.errors import InputError
from rain_deploy.node.wire import MOST_HOMES
from rain_deploy.verbs.logs import task_log
from tests.unit.test_explain import Home, home

__all__ = ["home"]


def printed(home: Home, place: str, text: str) -> None:
    path = home.directory / "tasks" / place / "output.log"
    path.parent.mkdir(parents=True)
    path.write_text(text)


@pytest.mark.parametrize("gone", [False, True])
def test_a_task_is_named_as_in_the_table(home: Home, gone: bool) -> None:
    home.row(11, 0.7, "finished", node="node-2")
    printed(home, "1-11-train-lr=0.7", "mine\n")
    printed(home, "1-112-train", "another's\n")
    printed(home, "1-1", "another's\n")
    if gone:
        home.record.out.parent.mkdir()
        home.directory.rename(home.record.out)
        home.ctx.store.save_run(replace(home.record, state=RunState.FINISHED, pulled=True))
        home.ctx.store.forget_cluster(home.cluster)
    found = task_log(home.ctx, "one", "lr=0.7")
    assert (found.source, found.stdout, found.node) == ("task", b"mine\n", "node-2")
    assert found.task.startswith("train lr=0.7")


@pytest.mark.parametrize(
    ("row", "detail", "why"),
    [
        ({"started_s": 1.8e9, "key": "k"}, {}, "it printed nothing"),
        ({"started_s": 1.8e9}, {"unkept": "It has no name."}, "it printed nothing"),
        ({"cached": True, "key": "k"}, {}, "it printed nothing"),
        ({"started_s": 1.8e9}, {"unkept": "Another's.", "session": 2}, "what it printed was not kept"),
        ({"started_s": 1.8e9}, {"error": "Rain says it, too."}, "what it printed was not kept"),
        ({"message": "Lost connection to executor"}, {}, "nothing of what it may have printed is kept: Lost"),
        ({}, {}, "it was not executed, so it printed nothing"),
        ({"started_s": 1.8e9}, {}, "what it printed was not kept, because nothing watched the run"),
    ],
)
def test_a_task_without_output_says_why(
    home: Home, row: dict[str, object], detail: dict[str, object], why: str
) -> None:
    home.row(11, 0.7, "failed", **row)
    if detail:
        home.write("details.jsonl", {"task": 11, **detail})
    found = task_log(home.ctx, "one", "lr=0.7")
    assert (found.stdout, found.stderr.decode().startswith(f"{found.task}: {why}")) == (b"", True)


def test_only_the_first_tasks_of_a_run_have_their_output_kept(home: Home) -> None:
    for task in range(100, 101 + MOST_HOMES):
        home.row(task, float(task), "finished", started_s=1.8e9, key="k")
    assert b"not among the first 300 tasks" in task_log(home.ctx, "one", f"lr={100 + MOST_HOMES}.0").stderr
    assert task_log(home.ctx, "one", "lr=110.0").stderr.endswith(b": it printed nothing\n")


def test_a_task_that_runs_is_in_the_nodes_log(home: Home) -> None:
    home.row(11, 0.7, "running")
    with pytest.raises(InputError, match=r"lr=0.7.* is running; what it prints comes when it ends") as caught:
        task_log(home.ctx, "one", "lr=0.7")
    assert "logs --node" in str(caught.value.next_step)


def test_an_unknown_task_is_told_where_to_look(home: Home) -> None:
    with pytest.raises(InputError, match="there is no point lr=9") as caught:
        task_log(home.ctx, "one", "lr=9")
    assert caught.value.next_step == "rain-deploy points r1 -c one"
