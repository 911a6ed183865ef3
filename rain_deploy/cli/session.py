"""One command from its parsed flags to its exit code: home, log, context, verb, result or error."""

from __future__ import annotations

import functools
import logging
import os
import shlex
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from rain_deploy import wiring
from rain_deploy.cli.ending import from_click, report
from rain_deploy.cli.interrupts import Interrupts, interrupted
from rain_deploy.cli.log import debug_log
from rain_deploy.cli.show import text
from rain_deploy.cli.show.text import OutputLost, Text, echo, is_terminal, short
from rain_deploy.core.text import cluster_flag
from rain_deploy.errors import RainDeployError, UsageError

if TYPE_CHECKING:
    from rain_deploy.cli.show.progress import Sink
    from rain_deploy.cluster.context import Confirm, Context
    from rain_deploy.core.events import Event, EventSink, Result
    from rain_deploy.core.spec import ClusterSpec
    from rain_deploy.options.spec import Settings

    MakeContext = Callable[[Path, EventSink, Confirm], AbstractContextManager[Context]]

Shown = tuple["Result", Text] | int  # what a command returns: a result and its text, or an exit code
P = ParamSpec("P")
R = TypeVar("R")
FOLLOWS = {"run", "attach", "logs", "points"}  # Ctrl-C leaves the run alone
_INTERRUPTED = {
    "tunnel": "the tunnel is closed",
    "dashboard": "the tunnel to the dashboard is closed",
    "exec": "exec was interrupted; the command may still be running on the nodes",
}
_LOG = logging.getLogger("rain_deploy.cli")


@dataclass(frozen=True, slots=True)
class Application:
    """The parts of a command that come from outside, so that a test can replace them."""

    make_context: MakeContext = wiring.context
    """(home, sink, confirm) -> the verbs' Context, closed when the command ends."""
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    credentials: Callable[[], str | None] = wiring.credentials
    """Says in words where the cloud's credentials are; None: nowhere.  Raises InputError."""
    interactive: bool = field(default_factory=lambda: is_terminal(sys.stdin) and is_terminal(sys.stderr))
    """Somebody sits at a terminal and can answer."""
    terminal: bool = field(
        default_factory=lambda: is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"
    )
    """Progress may be shown in place."""
    has_input: Callable[[], bool] = text.waiting_input  # something is piped to this command
    call: Callable[[tuple[str, ...]], int] = subprocess.call
    """Runs a program in the foreground, on our own terminal; returns its exit status."""
    browse: Callable[[str], object] = webbrowser.open  # opens an address in the user's browser
    wait: Callable[[], object] = field(default_factory=lambda: threading.Event().wait)
    """Returns when the user has had enough; normally never, by KeyboardInterrupt."""
    interrupts: Interrupts = field(default_factory=Interrupts)  # what a signal does
    call_verb: Callable[..., Any] = lambda verb, *arguments, **named: verb(*arguments, **named)
    """Calls a verb with its context and arguments."""


@dataclass
class Session:
    """Everything that a command function needs; what is expensive is made when it is first used."""

    app: Application
    verb: str
    flags: Settings  # options of the table that were given, on the command line or in the environment
    typed: tuple[str, ...] = ()  # all words after the verb
    done: bool = False  # its text only says what was done, so --quiet leaves it out
    follows: bool = False
    cluster: str = "default"
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    yes: bool = False
    config: Path | None = None
    _logging: ExitStack = field(default_factory=ExitStack)
    _closing: ExitStack = field(default_factory=ExitStack)
    _log: Path | None = None
    _ctx: Context | None = None
    _declined: bool = False  # the user answered no

    @functools.cached_property
    def sink(self) -> Sink:
        """Return the sink for this command's events."""
        from rain_deploy.cli.show import live, progress
        from rain_deploy.cli.show.activity import Activity
        from rain_deploy.cli.show.history import History

        if self.json and self.follows:
            return progress.JsonLines()
        if self.quiet:
            return progress.Sink(script_to_stderr=self.json)
        kind = live.Spinner if self.app.terminal else progress.Lines
        history = History(wiring.home(self.app.environ) / "durations.json")
        activity = Activity(self.verb, history)
        return kind(verbose=self.verbose, script_to_stderr=self.json, activity=activity)

    @functools.cached_property
    def toml(self) -> Settings:
        """Return the settings of the config file.  InputError."""
        from rain_deploy.options.spec import load

        return load(self.config, Path.cwd())

    @property
    def ctx(self) -> Context:
        """Return the verbs' context; open home, log, store and transport first.  Raises StateError."""
        if self._ctx is None:
            home = wiring.home(self.app.environ)
            self._log = self._logging.enter_context(debug_log(home, self.verb))
            self._ctx = self._closing.enter_context(self.app.make_context(home, self._emit, self._confirm))
            self.app.interrupts.existing = self._existing
        return self._ctx

    def call(self, verb: Callable[Concatenate[Context, P], R], *arguments: P.args, **named: P.kwargs) -> R:
        """Call a verb with the context; every call of a verb passes here."""
        ctx = self.ctx
        with self.sink.work():
            returned: R = self.app.call_verb(verb, ctx, *arguments, **named)
        return returned

    def cluster_spec(self, *, must_be_named: bool = False) -> ClusterSpec:
        """Return the spec of flags, environment and TOML.

        ``must_be_named``: no provider is assumed where no user can object.  UsageError, InputError.
        """
        from rain_deploy.options import spec

        toml = self.toml  # what is wrong with it is said before the home is opened
        recorded = self.ctx.store.cluster(self.cluster)
        provider = spec.choose_provider(
            self.flags,
            toml,
            recorded=recorded.provider if recorded else None,
            credentials=self.app.credentials,
            must_be_named=must_be_named and (self.yes or not self.app.interactive),
        )
        return spec.cluster_spec(self.cluster, provider, spec.merged(self.flags, toml))

    def say(self, sentence: str, *, warning: bool = False) -> None:
        """Tell the user, as a verb would."""
        from rain_deploy.core.events import Notice

        self._emit(Notice(sentence, warning=warning))

    def perform(self, command: Callable[[], Shown]) -> int:
        """Run the command, show its result or error, and return the exit code; click's own exits pass."""
        with self._logging:
            try:
                with self._closing:  # what the user does not wait for is done after the result is shown
                    shown = command()
                    if isinstance(shown, int):
                        return shown
                    result, lines = shown
                    problem = self._with_rest(result.problem) if result.problem else None
                    self._show(lines)
            except (click.exceptions.Exit, OutputLost):
                raise
            except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the end of the line: all are rendered
                return self._report(self._failure(error))
            return self._report(problem, result)  # its last line says what to type next

    def _failure(self, error: BaseException) -> RainDeployError:
        _LOG.debug("%s ends here", self.verb, exc_info=error)
        if isinstance(error, click.ClickException):
            return from_click(error, self.verb)
        if isinstance(error, KeyboardInterrupt | click.Abort):
            run, flag = self.sink.run, cluster_flag(self.cluster)
            if self.verb in FOLLOWS and run:
                follow, end = (f"rain-deploy {verb} {short(run)}{flag}" for verb in ("attach", "cancel"))
                if not self.sink.queued:  # what the node was sent last may have arrived or not
                    unsure = f"interrupted before the node confirmed run {short(run)}; it may be queued"
                    left = interrupted(error, unsure)
                    left.next_step, left.calm = f"rain-deploy runs{flag}", True
                    return left
                left = interrupted(error, f"run {short(run)} continues")
                left.still_running, left.next_step = f"run {run}", f"{follow}, or to cancel: {end}"
                left.calm = True
                return left
            ended = interrupted(error, _INTERRUPTED.get(self.verb, f"{self.verb} was interrupted"))
            ended.calm = self._with_rest(ended).still_running is None
            return ended
        if isinstance(error, RainDeployError):
            if self._declined and (error.next_step or self._again()).startswith(f"rain-deploy {self.verb}"):
                error.next_step = self._again()
            return self._with_rest(error)
        bug = f"a bug in rain-deploy: {type(error).__name__}: {error}"
        return self._with_rest(RainDeployError(bug, next_step="report it with the log"))

    def _with_rest(self, error: RainDeployError) -> RainDeployError:
        """Return ``error`` with what of the cluster exists, unless it says so itself, and what costs."""
        if self._ctx is not None:
            from rain_deploy.cluster.lookup import add_existing, add_way_out

            changes = self.verb in {"up", "scale", "down", "sweep"}
            add_existing(self._ctx, self.cluster, error, free=changes)
            if changes:
                add_way_out(self._ctx, self.cluster, error)
        return error

    def _existing(self) -> str:
        """Return what is recorded now; what is being deleted counts until it is observed to be gone."""
        from rain_deploy.cluster.lookup import add_existing

        error = RainDeployError("")
        if self._ctx is not None:
            add_existing(self._ctx, self.cluster, error)
        left = error.still_running
        return f"still recorded: {left}" if left else f"cluster {self.cluster} is not recorded"

    def _show(self, lines: Text) -> None:
        self.sink.pause()
        silent = self.json or (self.done and self.quiet)
        try:
            for piece in () if silent else lines:
                if isinstance(piece, str):
                    echo(text.folded(text.clean(piece), sys.stdout))
                else:
                    echo(piece, nl=False)
        except OutputLost as lost:
            self.sink.lost = lost

    def _report(self, error: RainDeployError | None, result: Result | None = None) -> int:
        self.sink.pause()
        if self.sink.lost and (error is None or self.sink.lost.reader_gone):
            raise self.sink.lost
        return report(error, self.verb, json=self.json, result=result, log=self._log)

    def _emit(self, event: Event) -> None:
        many = hasattr(event, "data") or hasattr(event, "row")  # output and points: the run keeps them itself
        _LOG.debug("%s", type(event).__name__ if many else event)
        self.sink(event)

    def _confirm(self, question: str) -> bool:
        if self.yes:
            return True
        if not self.app.interactive:
            raise UsageError(
                f"cannot ask without a terminal: {question}",
                next_step=self._again("--yes"),
            )
        self.sink.pause()
        self._declined = not click.confirm(text.wrapped(question), err=True)
        self.sink.resume()
        return not self._declined

    def _again(self, *flags: str) -> str:
        """Return the command line as it was typed, with these flags too; values of --env may be secrets."""
        words, shown = [*flags, *self.typed], list[str]()
        for before, word in zip(("", *words), words, strict=False):
            name, equals, _ = word.removeprefix("--env=").partition("=")
            secret = equals and (before == "--env" or word.startswith("--env="))
            shown.append(f"{'--env=' * word.startswith('--env=')}{name}=…" if secret else word)
        return shlex.join(("rain-deploy", self.verb, *shown))
