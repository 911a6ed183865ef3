"""Build the real application: the one place that names concrete classes."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rain_deploy.cli.app import Application
from rain_deploy.cli.show.text import is_terminal

if TYPE_CHECKING:
    from rain_deploy.cluster.context import Confirm, Context
    from rain_deploy.core.events import EventSink
    from rain_deploy.providers.base import Provider


def application() -> Application:
    """Return the real one."""
    return Application(
        make_context=context,
        environ=os.environ,
        credentials=_credentials,
        interactive=is_terminal(sys.stdin) and is_terminal(sys.stderr),
        call=subprocess.call,
        browse=webbrowser.open,
        wait=threading.Event().wait,
    )


@contextlib.contextmanager
def context(home: Path, emit: EventSink, confirm: Confirm) -> Iterator[Context]:
    """Yield a context of ``home`` with store, transport and providers; close its connections at the end."""
    from rain_deploy.cluster.context import Context
    from rain_deploy.fleet.executor import SshExecutor
    from rain_deploy.state import Store
    from rain_deploy.transport.local import LocalTransport
    from rain_deploy.transport.ssh import SshTransport

    store = Store(home)
    transport = SshTransport()
    try:
        yield Context(
            home=home,
            store=store,
            transport=transport,
            local=LocalTransport(),
            provider_for=functools.cache(lambda name: _provider(name, home, emit)),
            emit=emit,
            confirm=confirm,
            cwd=Path.cwd(),
            executor=SshExecutor(transport),
        )
    finally:
        transport.close()


def _provider(name: str, home: Path, emit: EventSink) -> Provider:
    if name == "local":
        from rain_deploy.providers.local.provider import LocalProvider

        return LocalProvider(home)
    if name == "hosts":
        from rain_deploy.providers.hosts.provider import HostsProvider

        return HostsProvider()
    return _exoscale(home, emit)


def _exoscale(home: Path, emit: EventSink) -> Provider:
    from rain_deploy.core.events import Notice
    from rain_deploy.errors import CredentialsError
    from rain_deploy.options.spec import owner
    from rain_deploy.parts.user_data import render
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
    return ExoscaleProvider(home, api, render, owner=owner({}))


def _credentials() -> str | None:
    from rain_deploy.providers.exoscale.account import credentials_found

    return credentials_found(os.environ, Path.home())
