"""``--json``: one document on stdout for every verb, success or failure, as the schema in docs/ says.

``python -m tests.unit.test_cli_json`` writes the schema.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rain_deploy.cli.main import VERBS
from rain_deploy.cluster.install import PlanResult
from rain_deploy.core import events
from rain_deploy.core.events import Result
from rain_deploy.errors import RainDeployError, StateError, Unreachable
from rain_deploy.node.wire import PointRow
from rain_deploy.runs.finish import RunResult
from rain_deploy.verbs.check import CheckResult
from rain_deploy.verbs.clean import CleanResult
from rain_deploy.verbs.copy import CopyResult
from rain_deploy.verbs.down import DownResult
from rain_deploy.verbs.gc import GcResult
from rain_deploy.verbs.journal import JournalResult
from rain_deploy.verbs.list import ListResult, TypesResult, ZonesResult
from rain_deploy.verbs.logs import LogsResult
from rain_deploy.verbs.nodes import ExecLine, ExecResult
from rain_deploy.verbs.rehearsal.rehearse import RehearseResult
from rain_deploy.verbs.results.explain import ExplainResult
from rain_deploy.verbs.results.points import PointsResult
from rain_deploy.verbs.results.report import ReportResult
from rain_deploy.verbs.runs import CancelResult, PullResult, RunsResult
from rain_deploy.verbs.scale import ExtendResult, ScaleResult
from rain_deploy.verbs.status import StatusResult
from rain_deploy.verbs.sweep import SweepResult
from rain_deploy.verbs.up import UpResult
from tests.unit.fake_application import POINT, World

SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "json-schema.json"
RESULTS: dict[str, tuple[type[Result], ...]] = {
    "up": (UpResult, PlanResult),
    "run": (RunResult,),
    "down": (DownResult,),
    "rehearse": (RehearseResult,),
    "sweep": (SweepResult, PlanResult),
    "status": (StatusResult,),
    "list": (ListResult,),
    "runs": (RunsResult,),
    "attach": (RunResult,),
    "logs": (LogsResult,),
    "cancel": (CancelResult,),
    "points": (PointsResult,),
    "explain": (ExplainResult,),
    "pull": (PullResult,),
    "report": (ReportResult,),
    "journal": (JournalResult,),
    "ssh": (ExecResult,),
    "exec": (ExecResult,),
    "push": (CopyResult,),
    "fetch": (CopyResult,),
    "scale": (ScaleResult,),
    "extend": (ExtendResult,),
    "gc": (GcResult,),
    "clean": (CleanResult,),
    "types": (TypesResult,),
    "zones": (ZonesResult,),
    "check": (CheckResult,),
}
INTERACTIVE = {"tunnel", "dashboard", "completion", "inventory"}
WORDS: dict[str, tuple[str, ...]] = {
    "up": ("--provider", "local"),
    "sweep": ("--provider", "local", "job.py"),
    "run": ("job.py",),
    "rehearse": ("job.py",),
    "ssh": ("--", "ls"),
    "exec": ("--", "ls"),
    "push": ("a", "b"),
    "fetch": ("a", "b"),
    "scale": ("2",),
    "extend": ("12h",),
    "explain": ("3",),
}
PLAIN = {
    str: "string",
    bytes: "string",
    Path: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    dict: "object",
    types.NoneType: "null",
}


def schema_of(hint: Any, found: dict[str, Any]) -> dict[str, Any]:
    """JSON schema of the type of a result or of its field; records go to ``found`` by name."""
    arguments = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return {"anyOf": [schema_of(part, found) for part in arguments]}
    if typing.get_origin(hint) is tuple:
        return {"type": "array", "items": schema_of(arguments[0], found)}
    plain = typing.get_origin(hint) or hint
    if plain in PLAIN:
        return {"type": PLAIN[plain]}
    if hint is RainDeployError:
        return {"$ref": "#/$defs/error"}
    if hint.__name__ not in found:
        found[hint.__name__] = {}
        found[hint.__name__] = record(typing.get_type_hints(hint), found)
    return {"$ref": f"#/$defs/{hint.__name__}"}


def record(hints: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: schema_of(hint, found) for name, hint in hints.items()},
        "required": list(hints),
        "additionalProperties": False,
    }


def schema() -> dict[str, Any]:
    """The whole schema, from the types."""
    text, number, nothing = {"type": "string"}, {"type": "integer"}, {"type": "null"}
    maybe = {"type": ["string", "null"]}
    codes = {1, 129, 130, 143} | {error.exit_code for error in RainDeployError.__subclasses__()}
    defs: dict[str, Any] = {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "string", "pattern": "^RD[0-9]+$"},
                "exit_code": {"enum": sorted(codes)},
                "message": text,
                **dict.fromkeys(("node", "next", "still_running", "details", "log"), maybe),
            },
            "required": ["code", "exit_code", "message", "node", "next", "still_running"],
        }
    }
    verbs = []
    for verb in ("", *VERBS):
        shown = [schema_of(kind, defs) for kind in RESULTS.get(verb, ())]
        verbs.append(
            {
                "properties": {
                    "verb": {"const": verb} if verb else text,
                    "result": {"anyOf": [*shown, nothing]},
                }
            }
        )
    envelope = {
        "type": "object",
        "properties": {
            "version": {"const": 1},
            "verb": text,
            "ok": {"type": "boolean"},
            "exit_code": number,
            "result": {},
            "error": {"anyOf": [{"$ref": "#/$defs/error"}, nothing]},
        },
        "required": ["version", "verb", "ok", "exit_code", "result", "error"],
        "additionalProperties": False,
        "anyOf": verbs,
    }
    events_ = {"output": {"stream": text, "text": text}, "run": {"run": text, "state": text, "detail": text}}
    lines = [
        {
            "type": "object",
            "properties": {"version": {"const": 1}, "event": {"const": name}, **fields},
            "required": ["version", "event", *fields],
            "additionalProperties": False,
        }
        for name, fields in {**events_, "point": {"row": schema_of(PointRow, defs)}}.items()
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "rain-deploy --json, version 1: a command's document, or a line of a verb that follows",
        "anyOf": [{"$ref": "#/$defs/document"}, *lines],
        "$defs": {"document": envelope, **defs},
    }


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").touch()
    return World(tmp_path / "home")


@functools.cache
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def checked(text: str) -> dict[str, Any]:
    """The one document that ``text`` is, valid by the schema."""
    value: dict[str, Any] = json.loads(text)
    validator().validate(value)
    return value


def test_the_schema_in_docs_is_that_of_the_types() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == schema()
    jsonschema.Draft202012Validator.check_schema(schema())


def test_every_verb_is_in_the_schema_or_interactive() -> None:
    assert {*RESULTS, *INTERACTIVE} == set(VERBS)


@pytest.mark.parametrize("verb", RESULTS)
def test_a_success_is_one_document(world: World, verb: str) -> None:
    world.verbs.events = (
        events.ScriptOutput("stdout", b"of the script\n"),
        events.RunChanged("r1", "running"),
    )
    result = world.invoke(verb, "--json", *WORDS.get(verb, ()))
    document = checked(result.stdout)
    assert (document["verb"], document["ok"], document["exit_code"], document["error"]) == (
        verb,
        True,
        0,
        None,
    )
    assert document["result"]
    assert "of the script\n" in result.stderr


CHANGING = {"up", "scale", "down", "sweep"}


@pytest.mark.parametrize("verb", RESULTS)
def test_a_failure_is_one_document(world: World, verb: str) -> None:
    world.living()
    world.verbs.error = Unreachable("no answer in 30 s", node="node-2", next_step="rain-deploy status")
    result = world.invoke(verb, "--json", *WORDS.get(verb, ()))
    document = checked(result.stdout)
    assert (result.exit_code, document["exit_code"], document["ok"], document["result"]) == (
        30,
        30,
        False,
        None,
    )
    error = document["error"]
    assert (error["code"], error["node"]) == ("RD30", "node-2")
    step, _, forget = error["next"].partition(
        "; if node-2 is gone for good or was reinstalled, this deletes the cluster without it: "
    )
    assert step == "rain-deploy status"
    wanted = "rain-deploy down --forget node-2" if verb in CHANGING else ""
    assert forget == wanted
    assert ("rain-deploy down" in (error["still_running"] or "")) == (verb in CHANGING)


@pytest.mark.parametrize("verb", VERBS)
def test_a_usage_error_is_one_document(world: World, verb: str) -> None:
    result = world.invoke(verb, "-c", "mine", "--json", "--bogus")
    document = checked(result.stdout)
    assert (result.exit_code, document["verb"], document["error"]["code"]) == (2, verb, "RD2")
    assert result.stderr == ""


@pytest.mark.parametrize("verb", sorted(INTERACTIVE))
def test_what_is_interactive_refuses_it(world: World, verb: str) -> None:
    result = world.invoke(verb, "--json", *(["bash"] if verb == "completion" else []))
    assert (result.exit_code, checked(result.stdout)["verb"]) == (2, verb)
    assert world.verbs.calls == []


def test_a_bug_an_interrupt_and_a_bad_home_are_documents_too(world: World) -> None:
    world.verbs.error = KeyError("x")
    assert checked(world.invoke("list", "--json").stdout)["exit_code"] == 1
    world.verbs.error = KeyboardInterrupt()
    assert checked(world.invoke("list", "--json").stdout)["exit_code"] == 130
    world.verbs.error = StateError("newer")
    assert checked(world.invoke("list", "--json").stdout)["exit_code"] == 12
    assert checked(World(Path("/proc/self/home")).invoke("list", "--json").stdout)["exit_code"] == 12


def test_a_failed_script_has_its_own_code_in_the_result(world: World) -> None:
    world.verbs.run_result = dataclasses.replace(world.verbs.run_result, outcome="failed", exit_code=3)
    document = checked(world.invoke("run", "--json", "job.py").stdout)
    assert (document["exit_code"], document["result"]["exit_code"]) == (41, 3)


def test_ssh_with_a_command_ends_with_the_remote_status(world: World) -> None:
    world.verbs.exec_lines = (ExecLine("node-1", 9, b"\xff\n"),)
    result = world.invoke("ssh", "--json", "--", "false")
    document = checked(result.stdout)
    assert (result.exit_code, document["exit_code"]) == (9, 9)
    assert document["result"]["nodes"][0]["stdout"] == "\\xff\n"


def test_json_of_the_script_is_not_ours(world: World) -> None:
    assert world.invoke("run", "job.py", "--json").stdout.startswith("run r1: done")
    refused = world.invoke("run", "--env", "--json", "none.py", "--json")
    assert (refused.exit_code, refused.stdout) == (2, "")


def test_the_environment_asks_for_it_too(world: World) -> None:
    world.environ = {"RAIN_DEPLOY_JSON": "1"}
    assert checked(world.invoke("list").stdout)["ok"]
    assert not checked(world.invoke("list", "--bogus").stdout)["ok"]


def test_numbers_that_json_does_not_know_are_written_as_text(world: World) -> None:
    world.verbs.events = (events.PointSeen(dataclasses.replace(POINT, value=float("nan"))),)
    result = world.invoke("points", "--follow", "--json")
    event, document = map(checked, result.stdout.splitlines())
    assert event["row"]["value"] == "NaN"
    assert document["result"]["rows"][0]["value"] == 0.93125


def test_what_follows_prints_a_document_per_line(world: World) -> None:
    world.verbs.events = (
        events.RunChanged("r1", "running"),
        events.ScriptOutput("stdout", b"loss \xff\n"),
        events.Notice("not data"),
    )
    result = world.invoke("logs", "-f", "--json")
    run, output, document = map(checked, result.stdout.splitlines())
    assert (run["event"], run["state"]) == ("run", "running")
    assert (output["event"], output["stream"], output["text"]) == ("output", "stdout", "loss \\xff\n")
    assert (document["verb"], document["ok"]) == ("logs", True)


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
