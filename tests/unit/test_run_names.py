"""A run is named as people do: by its number, by its script, or by the beginning of its id."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.run import RunRecord, named
from rain_deploy.errors import InputError
from rain_deploy.fleet.fanout import SshExecutor
from rain_deploy.runs.states import find_run
from rain_deploy.state.store import Store
from rain_deploy.transport.local import LocalTransport
from rain_deploy.verbs.logs import script_log
from rain_deploy.verbs.results.points import points
from rain_deploy.verbs.results.report import report
from rain_deploy.verbs.runs import attach, cancel, pull, runs
from rain_deploy.verbs.status import status
from tests.unit.fake_application import no_provider

IDS = {
    1: ("20261129-195411-1-9763-train", "train.py"),
    2: ("20261129-200317-2-9763-hsearch", "models/hsearch.py"),
    3: ("20261130-080000-3-9763-train", "train.py"),
    12: ("20261130-090000-12-9763-2026", "2026.py"),
}


def records() -> tuple[RunRecord, ...]:
    return tuple(
        RunRecord(run, "c1", "default", number, 7230, script, (), "00", 1.0, Path("/out"))
        for number, (run, script) in IDS.items()
    )


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        *((run, [number]) for number, (run, _) in IDS.items()),
        ("1", [1]),
        ("12", [12]),
        ("train", [3]),
        ("train.py", [3]),
        ("hsearch", [2]),
        ("hsearch.py", [2]),
        ("models/hsearch.py", [2]),
        ("2026", [12]),
        ("20261129-2", [2]),
        ("20261130-09", [12]),
        ("20261129", [1, 2]),
        ("20261", [1, 2, 3, 12]),
        ("", [1, 2, 3, 12]),
        ("4", []),
        ("rain", []),
        ("search", []),
    ],
)
def test_what_a_name_stands_for(name: str, numbers: list[int]) -> None:
    assert [run.sequence for run in named(records(), name)] == numbers


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    store, here = Store(tmp_path), LocalTransport()
    for run in records():
        store.save_run(run)
    return Context(
        tmp_path, store, here, here, no_provider, print, lambda _: True, tmp_path, SshExecutor(here)
    )


def test_without_a_name_it_is_the_last(ctx: Context) -> None:
    assert find_run(ctx, "default", None).sequence == 12


def test_a_name_that_fits_several_names_them_with_their_numbers(ctx: Context) -> None:
    with pytest.raises(InputError) as error:
        find_run(ctx, "default", "20261129")
    assert str(error.value) == (
        "2 runs of cluster default begin with 20261129: "
        "1 (20261129-195411-1-9763-train), 2 (20261129-200317-2-9763-hsearch)"
    )


def test_a_name_that_fits_none_says_which_there_are(ctx: Context) -> None:
    with pytest.raises(InputError, match=r"default has no run 4; its last runs: 1 \(.*12 \(2026"):
        find_run(ctx, "default", "4")
    ctx.store.save_cluster(Cluster("c2", "empty", "local", 0.0, (), base="/b"))
    with pytest.raises(InputError, match=r"^cluster empty has no run$") as error:
        find_run(ctx, "empty", None)
    assert error.value.next_step == "rain-deploy run -c empty SCRIPT"


ASKING: dict[str, Callable[[Context, str], object]] = {
    "runs": runs,
    "attach": attach,
    "cancel": cancel,
    "pull": pull,
    "report": report,
    "points": points,
    "logs": script_log,
    "status": status,
}


@pytest.mark.parametrize(
    ("others", "shown", "next_step"),
    [
        ((), "none", "rain-deploy up -c missing --nodes 2"),
        (("quickstart",), "quickstart", "the same command with -c quickstart"),
        (("default",), "default", "the same command without -c"),
        (("a", "b"), "a, b", "rain-deploy up -c missing --nodes 2"),
    ],
)
@pytest.mark.parametrize("verb", ASKING)
def test_a_cluster_that_does_not_exist_is_named_by_every_verb(
    ctx: Context, verb: str, others: tuple[str, ...], shown: str, next_step: str
) -> None:
    for name in others:
        ctx.store.save_cluster(Cluster(name, name, "local", 0.0, (), base="/b"))
    with pytest.raises(InputError) as error:
        ASKING[verb](ctx, "missing")
    assert error.value.message == f"cluster missing is not recorded on this machine (recorded: {shown})"
    assert (error.value.next_step, error.value.exit_code) == (next_step, 10)


def test_the_runs_of_a_cluster_that_was_taken_down_are_still_shown(ctx: Context) -> None:
    assert [run.sequence for run in runs(ctx, "default").runs] == [*IDS]
