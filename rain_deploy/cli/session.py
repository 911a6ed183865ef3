"""One command from parsed flags to exit code: home, log, context, flow, result or error."""

from __future__ import annotations

import contextlib
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rain_deploy.cli import failure
from rain_deploy.cli.show import text
from rain_deploy.cli.show.output import ReaderGone, echo, is_terminal
from rain_deploy.errors import RainDeployError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain_deploy.cli.app import Application, CommonOptions
    from rain_deploy.cli.show.progress import Sink
    from rain_deploy.cluster.context import Context
    from rain_deploy.core.events import Event
    from rain_deploy.core.result import Result
    from rain_deploy.options import Settings


class Session:
    """What a command function gets.  Everything expensive is made when it is first asked for."""

    def __init__(
        self,
        app: Application,
        verb: str,
        options: CommonOptions,
        *,
        follows: bool,
        options_end: bool = False,
    ) -> None:
        """``options_end``: what comes after the first argument is somebody else's."""
        self.app = app
        self.flows = app.flows
        self.verb = verb
        self.options = options
        self.cluster = options.cluster
        self._follows = follows
        self._options_end = options_end
        self._logging = contextlib.ExitStack()
        self._closing = contextlib.ExitStack()
        self._log: Path | None = None
        self._ctx: Context | None = None

    @functools.cached_property
    def sink(self) -> Sink:
        """Where this command's events go."""
        from rain_deploy.cli.show.progress import sink  # noqa: PLC0415 - not for --help

        return sink(self.options, terminal=self._terminal(), follows=self._follows)

    @functools.cached_property
    def toml(self) -> Settings:
        """What the config file says.  InputError."""
        from rain_deploy import options as config  # noqa: PLC0415 - not for --help

        return config.load(self.options.config, Path.cwd())

    @property
    def ctx(self) -> Context:
        """The flows' context; opens home, log, store and transport.  StateError."""
        if self._ctx is None:
            from rain_deploy.cli.home import debug_log, home  # noqa: PLC0415 - not for --help

            directory = home(self.app.environ)
            self._log = self._logging.enter_context(debug_log(directory, self.verb))
            making = self.app.make_context(directory, self._emit, self._confirm)
            self._ctx = self._closing.enter_context(making)
        return self._ctx

    def say(self, sentence: str, *, warning: bool = False) -> None:
        """Tell the user, as a flow would."""
        from rain_deploy.core.events import Notice  # noqa: PLC0415 - not for --help

        self._emit(Notice(sentence, warning=warning))

    def perform(self, command: Callable[[], Result | int]) -> int:
        """Do it and show what came of it; the exit code.  Nothing but click's own exits passes."""
        try:
            with self._logging:
                return self._perform(command)
        except ReaderGone:
            # Python flushes stdout once more at its end; there is nobody to read it.
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
        said = f"a bug in rain-deploy: {type(error).__name__}: {error}"
        return self._with_rest(RainDeployError(said, next_step="report it with the log"))

    def _show(self, result: Result | None, error: RainDeployError | None) -> int:
        self.sink.pause()
        if self.options.json:
            return self._show_json(result, error)
        if result is not None:
            from rain_deploy.cli.show.render import render  # noqa: PLC0415 - not for --help

            render(result, quiet=self.options.quiet)
        if error is None:
            return 0
        return failure.report(error, verb=self.verb, json=False, log=self._log)

    def _show_json(self, result: Result | None, error: RainDeployError | None) -> int:
        if error is not None:
            return failure.report(error, verb=self.verb, json=True, result=result, log=self._log)
        from rain_deploy.cli.show.envelope import document  # noqa: PLC0415 - not for --help

        echo(document(self.verb, result, None))
        return 0

    def _interrupted(self, stop: KeyboardInterrupt) -> RainDeployError:
        run = self.sink.run
        if self.verb in {"run", "attach", "logs", "points"} and run:
            return failure.interrupted(
                stop,
                f"stopped following run {run}",
                still_running=f"run {run} goes on; end it with: rain-deploy cancel {run}{self._flag}",
                next_step=f"rain-deploy attach {run}{self._flag}",
            )
        return self._with_rest(failure.interrupted(stop, f"{self.verb} was interrupted"))

    def _with_rest(self, error: RainDeployError) -> RainDeployError:
        """``error``, saying what of the cluster exists where it does not itself, and always what costs."""
        if self._ctx is not None:
            with contextlib.suppress(RainDeployError):
                told = error.still_running
                error.still_running = "; ".join(filter(None, (told, self._standing(self._ctx, told)))) or None
        return error

    def _standing(self, ctx: Context, told: str | None) -> str | None:
        """The cluster's machines as recorded, what they cost, and how to end that; ``told``: what is said."""
        from rain_deploy.core.wording import money  # noqa: PLC0415 - not for --help

        cluster = ctx.store.cluster(self.cluster)
        if cluster is None:
            return None
        resources, quote, bill = ctx.store.resources(cluster.id), cluster.quote, ""
        things = (resources or cluster.nodes) if quote else (cluster.nodes or resources)
        names = [thing.name for thing in things]
        machines = sum(name.startswith("node-") for name in names)
        if quote is not None and machines:  # also one whose create had no outcome: it may exist
            costs = money(quote.per_hour * machines, quote.currency)
            bill = f" ({costs} per hour; {text.limit(cluster.limit_s)})"
        if not names or (told and not bill):
            return None
        return (
            f"cluster {self.cluster}: {', '.join(names)}{bill}; remove it with: rain-deploy down{self._flag}"
        )

    @property
    def _flag(self) -> str:
        return "" if self.cluster == "default" else f" -c {self.cluster}"

    def _emit(self, event: Event) -> None:
        self._note(event.__class__.__name__ if hasattr(event, "data") else str(event))
        self.sink(event)

    def _terminal(self) -> bool:
        return is_terminal(sys.stderr) and self.app.environ.get("TERM") != "dumb"

    def _note(self, said: str, error: BaseException | None = None) -> None:
        if self._log is not None:
            import logging  # noqa: PLC0415 - not for --help

            logging.getLogger("rain_deploy.cli").debug(said, exc_info=error)

    def _confirm(self, question: str) -> bool:
        if self.options.yes:
            return True
        if not self.app.interactive:
            again = failure.with_yes(self.app.words or (self.verb,), first=self._options_end)
            raise UsageError(f"{question} Nobody is here to answer.", next_step=again)
        self.sink.pause()
        return click.confirm(question, err=True)
