"""One command from its parsed flags to its exit code: home, log, context, verb, result or error."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from rain_deploy.cli import failure
from rain_deploy.cli.show import text
from rain_deploy.cli.show.text import ReaderGone, Text, echo, is_terminal
from rain_deploy.errors import RainDeployError, UsageError

if TYPE_CHECKING:
    from rain_deploy.cli.app import Application, CommonOptions
    from rain_deploy.cli.show.progress import Sink
    from rain_deploy.cluster.context import Context
    from rain_deploy.core.events import Event, Result
    from rain_deploy.core.spec import ClusterSpec
    from rain_deploy.options.spec import Settings

Show = Callable[[Any], Text]
"""Turns a verb's result into what stdout gets."""
Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


class Session:
    """What a command function gets.  Everything expensive is made when it is first asked for."""

    def __init__(
        self,
        app: Application,
        verb: str,
        options: CommonOptions,
        *,
        flags: Settings,
        show: Show | None,
        done: bool,
        follows: bool,
    ) -> None:
        """``flags``: options of the table that were given, on the command line or in the environment."""
        self.app = app
        self.verb = verb
        self.options = options
        self.flags = flags
        self.cluster = options.cluster
        self.show = show
        self.done = done
        self._follows = follows
        self._logging = contextlib.ExitStack()
        self._closing = contextlib.ExitStack()
        self._log: Path | None = None
        self._ctx: Context | None = None

    @functools.cached_property
    def sink(self) -> Sink:
        """Where this command's events go."""
        from rain_deploy.cli.show.progress import sink

        return sink(self.options, terminal=self._terminal(), follows=self._follows)

    @functools.cached_property
    def toml(self) -> Settings:
        """The settings of the config file.  InputError."""
        from rain_deploy.options.spec import load

        return load(self.options.config, Path.cwd())

    @property
    def ctx(self) -> Context:
        """The verbs' context; opens home, log, store and transport.  StateError."""
        if self._ctx is None:
            from rain_deploy.cli.log import debug_log
            from rain_deploy.wiring import home

            directory = home(self.app.environ)
            self._log = self._logging.enter_context(debug_log(directory, self.verb))
            making = self.app.make_context(directory, self._emit, self._confirm)
            self._ctx = self._closing.enter_context(making)
        return self._ctx

    def call(
        self,
        verb: Callable[Concatenate[Context, Parameters], Returned],
        *arguments: Parameters.args,
        **named: Parameters.kwargs,
    ) -> Returned:
        """Call a verb with the context; every call of a verb passes here."""
        returned: Returned = self.app.call_verb(verb, self.ctx, *arguments, **named)
        return returned

    def cluster_spec(self, *, must_be_named: bool = False) -> ClusterSpec:
        """Return the spec of flags, environment and TOML.

        ``must_be_named``: no provider is assumed where no user can object.  UsageError, InputError.
        """
        from rain_deploy.options import spec

        toml = self.toml  # what is wrong with it is said before the home is opened
        living = self.ctx.store.cluster(self.cluster)
        provider = spec.choose_provider(
            self.flags,
            toml,
            living=living.provider if living else None,
            credentials=self.app.credentials,
            must_be_named=must_be_named and (self.options.yes or not self.app.interactive),
        )
        return spec.cluster_spec(self.cluster, provider, spec.merged(self.flags, toml))

    def say(self, sentence: str, *, warning: bool = False) -> None:
        """Tell the user, as a verb would."""
        from rain_deploy.core.events import Notice

        self._emit(Notice(sentence, warning=warning))

    def perform(self, command: Callable[[], Result | int]) -> int:
        """Run the command, show its result or error, and return the exit code; click's own exits pass."""
        try:
            with self._logging:
                return self._perform(command)
        except ReaderGone:
            # Python flushes stdout once more at its end; nobody reads it any more.
            with contextlib.suppress(OSError):
                sys.stdout.close()
            return failure.BROKEN_PIPE

    def _perform(self, command: Callable[[], Result | int]) -> int:
        try:
            with self._closing:
                result = command()
            if isinstance(result, int):
                return result
            return self._show(result, self._with_rest(result.problem) if result.problem else None)
        except (click.exceptions.Exit, ReaderGone):
            raise
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the end of the line: all are rendered
            return self._show(None, self._failure(error))

    def _failure(self, error: BaseException) -> RainDeployError:
        self._note(f"{self.verb} ends here", error)
        match error:
            case click.Abort():
                return self._interrupted(KeyboardInterrupt())
            case click.ClickException():
                return failure.from_click(error, self.verb)
            case KeyboardInterrupt():
                return self._interrupted(error)
            case RainDeployError():
                return self._with_rest(error)
        bug = f"a bug in rain-deploy: {type(error).__name__}: {error}"
        return self._with_rest(RainDeployError(bug, next_step="report it with the log"))

    def _show(self, result: Result | None, error: RainDeployError | None) -> int:
        self.sink.pause()
        silent = self.options.json or (self.done and self.options.quiet)
        for piece in self.show(result) if result and self.show and not silent else ():
            echo(piece, nl=isinstance(piece, str))
        return failure.report(error, self.verb, json=self.options.json, result=result, log=self._log)

    def _interrupted(self, stop: KeyboardInterrupt) -> RainDeployError:
        run, flag = self.sink.run, text.cluster_flag(self.cluster)
        if self.verb in {"run", "attach", "logs", "points"} and run:
            return failure.interrupted(
                stop,
                f"stopped following run {run}",
                still_running=f"run {run} goes on; end it with: rain-deploy cancel {run}{flag}",
                next_step=f"rain-deploy attach {run}{flag}",
            )
        return self._with_rest(failure.interrupted(stop, f"{self.verb} was interrupted"))

    def _with_rest(self, error: RainDeployError) -> RainDeployError:
        """Return ``error`` with what of the cluster exists, unless it says so itself, and what costs."""
        if self._ctx is not None:
            from rain_deploy.cluster.lookup import add_standing

            add_standing(self._ctx, self.cluster, error)
        return error

    def _emit(self, event: Event) -> None:
        self._note(event.__class__.__name__ if hasattr(event, "data") else str(event))
        self.sink(event)

    def _terminal(self) -> bool:
        return is_terminal(sys.stderr) and self.app.environ.get("TERM") != "dumb"

    def _note(self, line: str, error: BaseException | None = None) -> None:
        if self._log is not None:
            import logging

            logging.getLogger("rain_deploy.cli").debug(line, exc_info=error)

    def _confirm(self, question: str) -> bool:
        if self.options.yes:
            return True
        if not self.app.interactive:
            raise UsageError(
                f"{question} There is no terminal to answer at.",
                next_step=f"type the command again with --yes: rain-deploy {self.verb} --yes …",
            )
        self.sink.pause()
        return click.confirm(question, err=True)
