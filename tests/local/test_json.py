"""``--json`` with the real wiring: one document on stdout by the schema in docs/, the rest on stderr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.local.command_line import SCHEMA, LocalCluster
from tests.local.conftest import MakeCluster
from tests.local.scripts import SQUARES, WAITS

FAILS = 'import pathlib\npathlib.Path("half.txt").write_text("half")\nraise SystemExit(7)\n'
POINT = """\
from rain.client import Client, remote

@remote(auto_encode="pickle")
def train(ctx, lr):
    return 1 - lr

client = Client("localhost", 7210)
session = client.new_session("train", default=True)
tasks = [train(lr, name=f"train lr={lr}") for lr in (0.25, 0.5)]
for task in tasks:
    task.output.keep()
session.submit()
print(sum(task.output.fetch().load() for task in tasks))
"""


def written(cluster: LocalCluster, name: str, text: str) -> str:
    (cluster.line.cwd / name).write_text(text, encoding="utf-8")
    return name


def lines(text: str) -> list[dict[str, Any]]:
    """JSON Lines, each valid by the schema."""
    found = [json.loads(line) for line in text.splitlines()]
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    for one in found:
        validator.validate(one)
    return found


@pytest.mark.smoke
def test_a_run_is_reported_in_numbers_that_agree_with_what_lies_there(shared: LocalCluster) -> None:
    told = shared.well("run", "--json", written(shared, "point.py", POINT))
    run = told.result
    assert "1.25\n" in told.stderr
    assert (run["outcome"], run["exit_code"], run["points"], run["failed_points"]) == ("done", 0, 2, 0)
    place = Path(run["results_dir"])
    assert json.loads((place / "manifest.json").read_text())["run"] == run["run"]

    rows = shared.well("points", "--json").result["rows"]
    assert sorted((row["parameters"]["lr"], row["value"]) for row in rows) == [(0.25, 0.75), (0.5, 0.5)]
    (line,) = (one for one in shared.well("runs", "--json").result["runs"] if one["run"] == run["run"])
    assert (line["outcome"], line["pulled"], line["results_dir"]) == ("done", True, str(place))
    assert shared.well("logs", run["run"], "--json").result["stdout"] == "1.25\n"
    logs = shared.well("logs", "--node", "2").stdout
    assert ("/governor.log <==" in logs, "/log/executors/" in logs) == (True, True)
    (pulled,) = shared.well("pull", run["run"], "--json").result["runs"]
    assert (pulled["points"], pulled["finished"], pulled["bytes"] > 0) == (2, True, True)
    again = shared.well("attach", run["run"], "--json")
    assert (again.result["run"], again.stderr.count("1.25\n")) == (run["run"], 1)


def test_a_script_that_fails_has_its_own_code_and_all_its_results_in_the_document(
    shared: LocalCluster,
) -> None:
    told = shared("run", "--json", written(shared, "fails.py", FAILS))
    assert (told.exit_code, told.error["code"], told.result["exit_code"], told.result["files"]) == (
        41,
        "RD41",
        7,
        1,
    )
    as_text = shared("run", "fails.py")
    assert (as_text.exit_code, as_text.stderr.count("error[RD41]")) == (41, 1)
    assert "  1 file written by the script\n" in as_text.stdout


def test_up_again_status_list_and_check(shared: LocalCluster) -> None:
    shared.at_rest()
    up = shared.well("up", "--json").result
    assert (up["changed"], up["started"], len(up["nodes"])) == ([], 0, 2)
    status = shared.well("status", "--check", "--json").result
    assert (status["governors"], status["drift"]) == (2, [])
    assert [node["state"] for node in status["nodes"]] == ["ready", "ready"]
    (cluster,) = (one for one in shared.line.clusters() if one["name"] == shared.name)
    assert (cluster["nodes"], cluster["up"]) == (2, True)
    findings = shared.well("check", "--json").result["findings"]
    assert {one["state"] for one in findings} == {"ok"}
    plan = shared.well("up", "--dry-run", "--json").result
    assert [host["host"] for host in plan["hosts"]] == ["node-1", "node-2"]


def test_commands_and_files_on_nodes(shared: LocalCluster) -> None:
    told = shared("exec", "--json", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (told.exit_code, told.error["code"]) == (41, "RD41")
    assert [(one["exit_status"], one["stdout"], one["stderr"]) for one in told.result["nodes"]] == [
        (3, "out\n", "err\n")
    ] * 2
    ssh = shared("ssh", "2", "--json", "--", "sh", "-c", "exit 9")
    assert (ssh.exit_code, ssh.document["exit_code"]) == (9, 9)
    name = written(shared, "a b.txt", "12345")
    pushed = shared.well("push", "--json", name, "there/").result
    assert (pushed["nodes"], pushed["files"], pushed["bytes"]) == (["node-1", "node-2"], 1, 5)
    fetched = shared.well("fetch", "--json", f"there/{name}", "back.txt").result
    assert (fetched["nodes"], fetched["bytes"]) == (["node-1"], 5)
    missing = shared("fetch", "--json", "nowhere", "x")
    assert (missing.exit_code, missing.error["node"], "No such file" in missing.error["details"]) == (
        10,
        "node-1",
        True,
    )
    assert not (shared.line.cwd / "x").exists()


def test_verbs_that_follow_print_json_lines_and_one_document_last(
    shared: LocalCluster, tmp_path: Path
) -> None:
    # Another test may have run the same script here.
    shared.well("run", "--detach", "--fresh", written(shared, "squares.py", SQUARES))
    *seen, document = lines(shared.well("points", "--follow", "--json").stdout)
    rows = {one["row"]["task"]: one["row"] for one in seen if one["event"] == "point"}
    assert sorted(row["parameters"]["x"] for row in rows.values()) == list(range(20))
    assert {row["state"] for row in rows.values()} == {"finished"}
    assert len(document["result"]["rows"]) == 20
    *seen, document = lines(shared.well("logs", "-f", "--json").stdout)
    output = "".join(one["text"] for one in seen if one["event"] == "output")
    assert output.split() == [str(x * x) for x in range(20)]
    assert [one["state"] for one in seen if one["event"] == "run"][-1] == "finished"
    assert document["ok"]


def test_a_run_that_is_cancelled_or_interrupted_is_one_document(shared: LocalCluster, tmp_path: Path) -> None:
    following = shared.start("run", "--json", written(shared, "waits.py", WAITS), str(tmp_path / "go"))
    following.wait_for("begun\n")
    following.interrupt()
    told = following.ended()
    assert (told.exit_code, told.error["code"]) == (130, "RD130")
    run = told.error["still_running"].removeprefix("run ")
    cancelled = shared.well("cancel", run, "--json").result
    assert (cancelled["run"], cancelled["outcome"], cancelled["changed"]) == (run, "cancelled", True)
    ended = shared("attach", run, "--json")
    assert (ended.exit_code, ended.error["code"], ended.result["outcome"]) == (43, "RD43", "cancelled")
    assert not shared.well("cancel", run, "--json").result["changed"]


def test_up_and_down_of_a_cluster(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)
    down = cluster.well("down", "--json").result
    assert (down["nothing"], down["deleted"], bool(down["certificate"])) == (False, ["node node-1"], True)
    assert cluster.well("down", "--json").result["nothing"]
    missing = cluster("status", "--json")
    assert (missing.exit_code, missing.error["code"]) == (10, "RD10")


@pytest.mark.parametrize("verb", ["tunnel", "dashboard", "completion"])
def test_verbs_for_people_refuse_it(shared: LocalCluster, verb: str) -> None:
    told = shared(verb, "--json", *(["bash"] if verb == "completion" else []))
    assert (told.exit_code, told.error["message"]) == (2, f"{verb} is interactive and takes no --json")
