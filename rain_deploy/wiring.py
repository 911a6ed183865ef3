"""Make the verbs' context, for the command line and the Python API: the one place with concrete classes."""

# ruff: noqa: PLC0415 - what is heavy is imported by the call that needs it

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rain_deploy.errors import StateError, Unwritable, disk_full, full

if TYPE_CHECKING:
    from rain_deploy.cluster.context import Confirm, Context
    from rain_deploy.core.events import EventSink
    from rain_deploy.providers.base import Provider
    from rain_deploy.results.report.maker import Reports
    from rain_deploy.state.store import Store


def home(environ: Mapping[str, str]) -> Path:
    """Return RAIN_DEPLOY_HOME, else the platform's place for a user's data; absolute.  Nothing is made."""
    if named := environ.get("RAIN_DEPLOY_HOME"):
        return Path(named).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("rain-deploy")


def make_home(directory: Path, *, log: str = "") -> Path:
    """Make the home directory, and the file of a log in it, for this user alone.  Raises Unwritable."""
    file = directory / "logs" / log
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if log:
            file.parent.mkdir(mode=0o700, exist_ok=True)
            file.touch(mode=0o600)
    except OSError as error:
        if full(error):
            raise disk_full(directory) from error
        raise Unwritable(
            f"the home directory {directory} cannot be written: {error.strerror}",
            next_step="set RAIN_DEPLOY_HOME to a directory that can be written",
        ) from error
    return file


@contextlib.contextmanager
def context(home: Path, emit: EventSink, confirm: Confirm, cwd: Path | None = None) -> Iterator[Context]:
    """Yield a context of ``home`` with store, transport and providers; close its connections at the end.

    ``cwd`` is the directory that relative paths start from; None: the process's own.
    """
    from rain_deploy.cluster.context import Context
    from rain_deploy.fleet.fanout import SshExecutor
    from rain_deploy.results.report.maker import ReportProcess
    from rain_deploy.state.drafts import clear_drafts, clear_noted
    from rain_deploy.transport.local import LocalTransport
    from rain_deploy.transport.ssh import SshTransport

    store, transport, reports = opened_store(home, emit), SshTransport(), ReportProcess()
    clear_drafts(home)
    clear_noted(home)
    done = False
    try:
        yield Context(
            home=home,
            store=store,
            transport=transport,
            local=LocalTransport(),
            provider_for=functools.cache(lambda name: _provider(name, home, emit)),
            emit=emit,
            confirm=confirm,
            cwd=cwd or Path.cwd(),
            executor=SshExecutor(transport),
            reports=reports,
        )
        done = True
    except Exception:
        done = True
        raise
    finally:
        transport.close()
        if done:
            _report(reports, emit, cwd or Path.cwd())
        reports.close()


def _report(reports: Reports, emit: EventSink, here: Path) -> None:
    """Make the reports that are wanted; all else is done, so what fails costs a sentence."""
    from rain_deploy.core.events import Notice
    from rain_deploy.results.report.maker import NoReport
    from rain_deploy.results.report.renew import renew_report

    for out in reports.wanted:
        try:
            path = renew_report(out, reports.make)
            emit(Notice(f"report: {path.relative_to(here) if path.is_relative_to(here) else path}"))
        except NoReport as error:
            emit(Notice(f"{out} has no report: {error}", warning=True))
        except KeyboardInterrupt:
            emit(Notice("interrupted: there is no report; the results are all here", warning=True))
            return


def opened_store(home: Path, emit: EventSink) -> Store:
    """Return the record of a home; a warning comes once if nothing can be recorded.  Raises StateError."""
    from rain_deploy.core.events import Notice
    from rain_deploy.state.store import Store

    def unrecorded(error: StateError) -> None:
        continues = "the command continues, but cannot record what it does"
        emit(Notice(f"{error.message}; {continues}", warning=True))

    return Store(home, unrecorded)


def credentials() -> str | None:
    """Say where the cloud's credentials are; None: nowhere.  Raises InputError."""
    from rain_deploy.providers.exoscale.account import credentials_found

    return credentials_found(os.environ, Path.home())


def _provider(name: str, home: Path, emit: EventSink) -> Provider:
    if name == "local":
        from rain_deploy.providers.local.provider import LocalProvider

        return LocalProvider(home)
    if name == "hosts":
        from rain_deploy.providers.hosts.provider import HostsProvider

        return HostsProvider()
    from rain_deploy.core.events import Notice
    from rain_deploy.errors import CredentialsError
    from rain_deploy.options.spec import owner
    from rain_deploy.parts.machine import user_data
    from rain_deploy.providers.exoscale.account import find_account
    from rain_deploy.providers.exoscale.api import Api
    from rain_deploy.providers.exoscale.provider import ExoscaleProvider

    account = find_account(os.environ, home=Path.home())
    if account is None:
        raise CredentialsError(
            "no Exoscale credentials found, neither in the environment nor in an exoscale.toml",
            next_step="set EXOSCALE_API_KEY and EXOSCALE_API_SECRET, or run: exo config",
        )
    api = Api(account, notice=lambda message: emit(Notice(message)))
    return ExoscaleProvider(home, api, user_data, owner=owner({}))
