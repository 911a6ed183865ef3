"""One call of the API: its keywords, its context, and its errors with what they leave behind."""

import contextlib
import difflib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rain_deploy import wiring
from rain_deploy.api.function import function_script
from rain_deploy.cluster.context import Confirm, Context
from rain_deploy.cluster.lookup import add_existing
from rain_deploy.core.events import Event, EventSink, Notice
from rain_deploy.core.spec import ClusterSpec, RunSpec
from rain_deploy.errors import InputError, RainDeployError, Unwritable, UsageError
from rain_deploy.options import spec
from rain_deploy.options.spec import Settings
from rain_deploy.options.table import OPTIONS, Group
from rain_deploy.runs.source import read_script

Place = str | os.PathLike[str]
Script = Place | Callable[..., object]
"""A path, or a function that is sent and called on the server node."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function's keywords, checked, and the context for its verb."""

    ctx: Context
    cluster: str
    given: Settings
    toml: Settings
    somebody_is_asked: bool

    def cluster_spec(self, *, must_be_named: bool = True) -> ClusterSpec:
        """Return the spec of keywords and TOML.  Raises UsageError, InputError."""
        recorded = self.ctx.store.cluster(self.cluster)
        provider = spec.choose_provider(
            self.given,
            self.toml,
            recorded=recorded.provider if recorded else None,
            credentials=wiring.credentials,
            must_be_named=must_be_named and not self.somebody_is_asked,
        )
        self.ctx.emit(Notice(f"provider {provider[0]}: {provider[1]}"))
        return spec.cluster_spec(self.cluster, provider, spec.merged(self.given, self.toml))

    def run_spec(self, script: Script, args: Sequence[Any]) -> RunSpec:
        """Return what is to be run, once it was looked at.  Raises InputError."""
        sources = self.given, self.toml, os.environ
        if callable(script):
            place, function = function_script(script, tuple(args), self.ctx.cwd)
            return replace(spec.run_spec(place, (), *sources), function=function)
        path = self.ctx.cwd / script
        read_script(path)
        return spec.run_spec(path, tuple(map(str, args)), *sources)


def settings_of(verb: str) -> dict[str, str]:
    """Return the settings that a verb takes as keywords, with their help."""
    helps = {}
    for row in OPTIONS.values():
        if verb in row.verbs and row.group is not Group.COMMON and row.name != "dry_run":
            negative = row.flags and row.flags[-1].startswith("--no-")  # wait=False is --no-wait
            helps[row.name] = f"If False, {row.help[0].lower()}{row.help[1:]}" if negative else row.help
    return helps


@contextlib.contextmanager
def called(
    verb: str,
    *,
    cluster: str = "default",
    home: Place | None = None,
    cwd: Place | None = None,
    config: Place | None = None,
    progress: EventSink | None = None,
    yes: bool = False,
    confirm: Confirm | None = None,
    **given: object,
) -> Iterator[Call]:
    """Yield a call with its context, and close that at the end.

    A traceback of its errors shows the next step, and what still runs and costs.
    """
    one_at_a_time = threading.Lock()

    def emit(event: Event) -> None:
        if progress is not None:
            with one_at_a_time:
                progress(event)

    try:
        here = Path.cwd() / (cwd or "")
        if not here.is_dir():
            raise InputError(f"cwd: there is no directory {here}", next_step="name a directory that exists")
        settings = spec.checked(_known(verb, given), here)
        (name,) = spec.checked({"cluster": cluster}, here).values()
        file = spec.load(here / config if config else None, here)
        directory = Path.cwd() / Path(home).expanduser() if home else wiring.home(os.environ)
        with contextlib.suppress(Unwritable):  # the state says if that is an error
            wiring.make_home(directory)
        answer = (lambda _question: True) if yes else confirm or _refuse
        with wiring.context(directory, emit, answer, here) as ctx:
            try:
                yield Call(ctx, name, settings, file, confirm is not None and not yes)
            except RainDeployError as error:
                add_existing(ctx, name, error)
                raise
    except RainDeployError as error:
        for what, text in (("next", error.next_step), ("still running", error.still_running)):
            if text:
                error.add_note(f"{what}: {text}")
        raise


def _known(verb: str, given: Mapping[str, object]) -> dict[str, object]:
    """Return what is set, as the file would have it.  Raises UsageError for what the verb does not take."""
    takes = settings_of(verb)
    for name in given:
        if name not in takes:
            near = difflib.get_close_matches(name, takes, n=1)
            hint = f"did you mean {near[0]}?" if near else f"settings: {', '.join(takes)}"
            raise UsageError(f"{verb} takes no setting {name}", next_step=hint)
    return {name: _plain(value) for name, value in given.items() if value is not None}


def _plain(value: object) -> object:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _refuse(question: str) -> bool:
    raise UsageError(
        f"{question} Nobody can be asked.",
        next_step="pass yes=True, or confirm=, a function that gets the question and returns the answer",
    )
