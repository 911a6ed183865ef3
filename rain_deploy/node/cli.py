"""Verbs of the node code: ``python BUNDLE VERB ARGUMENT…``, each one exec from the operator's side.

Answers are JSON or lines on stdout, messages go to stderr.  Exit codes: 0, 1 (failed, with the reason on
stderr), 2 (wrong arguments), and those of ``wire``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .config import NotInstalled
from .run.directory import Run, load_run
from .run.line import cancel, interrupted, queue, unfinished
from .wire import BUSY, NOT_IN_LINE, RunState, to_json


class NoSuchRun(Exception):  # noqa: N818 - a fact about the argument
    """A directory holds no shipped run."""


def main(argv: list[str] | None = None) -> int:
    """Run one verb; return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.act(arguments))
    except (NotInstalled, NoSuchRun, OSError, TimeoutError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="node", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, act: object, *places: str) -> argparse.ArgumentParser:
        one = verbs.add_parser(name)
        one.set_defaults(act=act)
        for place in places:
            one.add_argument(place, type=Path)
        return one

    verb("keeper", _keeper, "node_dir")
    verb("supervisor", _supervisor, "cluster_dir", "node_dir")
    verb("job", _job, "run_dir")
    verb("ensure", _ensure, "node_dir").add_argument("--supervisor", type=Path, metavar="CLUSTER_DIR")
    verb("queue", _queue, "run_dir").add_argument("--no-wait", action="store_true")
    verb("cancel", _cancel, "run_dir")
    verb("runs", _runs, "cluster_dir")
    verb("status", _status, "cluster_dir", "node_dir")
    verb("interrupted", _interrupted, "node_dir")
    verb("pack", _pack, "run_dir")
    following = verb("follow", _follow, "run_dir")
    for stream in ("out", "err", "points"):
        following.add_argument(f"--{stream}", type=int, default=0, metavar="OFFSET")
    probing = verb("probe", _probe)
    probing.add_argument("host", nargs="?")
    probing.add_argument("port", nargs="?", type=int)
    probing.add_argument("--expect", type=int, default=1)
    probing.add_argument("--deadline", type=float, default=30.0, metavar="SECONDS")
    probing.add_argument(
        "--warm", action="store_true", help="import first, then read the question from stdin"
    )
    return parser


# Each verb imports what it needs: one verb's libraries must not slow or break another's start.
# ruff: noqa: PLC0415


def _keeper(arguments: argparse.Namespace) -> int:
    from .service.keeper import keep

    return keep(arguments.node_dir)


def _supervisor(arguments: argparse.Namespace) -> int:
    from .service.supervisor import supervise

    return supervise(arguments.cluster_dir, arguments.node_dir)


def _job(arguments: argparse.Namespace) -> int:
    from .run.job import run_job

    return run_job(arguments.run_dir)


def _ensure(arguments: argparse.Namespace) -> int:
    from .service.ensure import ensure

    for started in ensure(arguments.node_dir, supervisor=arguments.supervisor is not None):
        print(started)
    return 0


def _queue(arguments: argparse.Namespace) -> int:
    from .run.follow import send, state_line

    run = _run(arguments)
    others = [other.id for other in unfinished(run.path.parent) if other.id != run.id]
    if arguments.no_wait and others:
        run.forget_env()
        print(f"other runs are not finished: {', '.join(others)}", file=sys.stderr)
        return BUSY
    queue(run)
    send(state_line(run))
    return 0


def _cancel(arguments: argparse.Namespace) -> int:
    print(json.dumps(to_json(cancel(_run(arguments)))))
    return 0


def _runs(arguments: argparse.Namespace) -> int:
    from .service.status import runs

    print(json.dumps(to_json(runs(arguments.cluster_dir))))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from .service.status import status

    print(json.dumps(to_json(status(arguments.node_dir))))
    return 0


def _interrupted(arguments: argparse.Namespace) -> int:
    from .config import node_config
    from .service.ensure import supervisor_path
    from .service.process import recorded

    config = node_config(arguments.node_dir)
    if not recorded(supervisor_path(config).with_suffix(".pid")):
        print("\n".join(interrupted(config.runs_dir)))
    return 0


def _pack(arguments: argparse.Namespace) -> int:
    from .run.pack import pack_to_stdout

    return pack_to_stdout(_run(arguments))


def _follow(arguments: argparse.Namespace) -> int:
    from .run.follow import follow

    run = _run(arguments)
    if run.status().state == RunState.SHIPPED:
        print("it was never in line", file=sys.stderr)
        return NOT_IN_LINE
    return follow(run, arguments.out, arguments.err, arguments.points)


def _probe(arguments: argparse.Namespace) -> int:
    from .service.probe import probe, warm_probe

    if arguments.warm:
        return warm_probe()
    return probe(arguments.host, arguments.port, expect=arguments.expect, deadline_s=arguments.deadline)


def _run(arguments: argparse.Namespace) -> Run:
    run = load_run(arguments.run_dir)
    if run is None:
        raise NoSuchRun(f"{arguments.run_dir} holds no run")
    return run
