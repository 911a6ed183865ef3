"""Verbs of the node code: ``python BUNDLE VERB ARGUMENT…``; the laptop runs each with one exec.

Answers are JSON or lines on stdout, messages go to stderr.  Exit codes: 0, 1 (failed, with the reason on
stderr), 2 (wrong arguments), and those of ``wire``.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

from .files import NotInstalled
from .run import NoSuchRun
from .wire import to_json


def main() -> int:
    """Run one verb; return its exit code.

    A verb's module is imported only here: one verb's libraries must not slow or break another's start.  Its
    function gets the arguments by name, and returns an exit code, or an answer to print.
    """
    given = vars(_parser().parse_args())
    module, _, function = given.pop("verb").rpartition(".")
    try:
        answer = _function(module, function)(**given)
    except (NotInstalled, NoSuchRun, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    if isinstance(answer, int):
        return answer
    print(json.dumps(to_json(answer)))
    return 0


def _function(module: str, name: str) -> Callable[..., object]:
    """Return a function of our code.  Raises ImportError if the code is damaged."""
    try:
        found: Callable[..., object] = getattr(importlib.import_module(module, __package__), name)
    except AttributeError as error:  # of a file that is empty or was cut off between two lines
        raise ImportError(str(error), name=f"{__package__}{module}") from error
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="node", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, function: str, *places: str) -> argparse.ArgumentParser:
        one = verbs.add_parser(name)
        one.set_defaults(verb=function)
        for place in places:
            one.add_argument(place, type=Path)
        return one

    verb("keeper", ".service.keeper.keep", "node_dir")
    verb("supervisor", ".service.supervisor.supervise", "cluster_dir", "node_dir")
    verb("job", ".run.run_job", "run_dir")
    verb("journal-helper", ".journal.requests.help_script", "run_dir")
    ensuring = verb("ensure", ".service.process.ensure", "node_dir")
    ensuring.add_argument("--supervisor", type=Path, metavar="CLUSTER_DIR")
    verb("queue", ".run.join", "run_dir").add_argument("--no-wait", action="store_true")
    verb("cancel", ".run.cancel", "run_dir")
    verb("interrupted", ".service.report.interrupted", "node_dir")
    verb("runs", ".service.report.runs", "cluster_dir")
    verb("status", ".service.report.status", "cluster_dir", "node_dir")
    verb("journal", ".journal.show.journal", "cluster_dir").add_argument("--prune", action="store_true")
    verb("journal-send", ".journal.copies.send", "cluster_dir")
    verb("journal-take", ".journal.copies.take", "cluster_dir")
    verb("pack", ".pack.pack", "run_dir")
    following = verb("follow", ".follow.follow", "run_dir")
    for stream in ("out", "err"):
        following.add_argument(f"--{stream}", default="0", metavar="ATTEMPT:OFFSET")
    following.add_argument("--points", type=int, default=0, metavar="OFFSET")
    probing = verb("probe", ".service.engine.probe")
    probing.add_argument("host", nargs="?")
    probing.add_argument("port", nargs="?", type=int)
    probing.add_argument("--expect", type=int, default=1)
    probing.add_argument("--deadline", dest="deadline_s", type=float, default=30.0, metavar="SECONDS")
    probing.add_argument("--warm", action="store_true", help="import, then read the question")
    return parser
