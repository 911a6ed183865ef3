"""The composition root of forked commands: all is real but the way to the machines and the pace of time."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from rain_deploy.cli.app import Application
from rain_deploy.cluster.context import Confirm, Context
from rain_deploy.core.events import EventSink, Notice
from rain_deploy.errors import CredentialsError
from rain_deploy.parts.user_data import render as user_data
from rain_deploy.providers.base import Provider
from rain_deploy.providers.exoscale.account import Account, find_account
from rain_deploy.providers.exoscale.api import Api
from rain_deploy.providers.exoscale.provider import ExoscaleProvider
from rain_deploy.state import Store
from rain_deploy.transport.local import LocalTransport
from tests.faults.fake_transport import FakeTransport

MakeApi = Callable[[Account, Callable[[str], None]], Api]
"""Of an account, and where its notices go."""


def application(environ: Mapping[str, str], transport: FakeTransport, make_api: MakeApi) -> Application:
    """A command line in ``environ`` alone; nobody sits before it."""

    @contextlib.contextmanager
    def context(home: Path, emit: EventSink, confirm: Confirm) -> Iterator[Context]:
        @functools.cache
        def provider_for(_name: str) -> Provider:
            account = find_account(environ, home=home)
            if account is None:
                raise CredentialsError("no Exoscale credentials are found")
            api = make_api(account, lambda said: emit(Notice(said)))
            return ExoscaleProvider(home, api, user_data, owner="nobody")

        yield Context(
            home=home,
            store=Store(home),
            transport=transport,
            local=LocalTransport(),
            provider_for=provider_for,
            emit=emit,
            confirm=confirm,
            cwd=home,
            executor=transport.executor,
        )

    return Application(
        make_context=context,
        environ=environ,
        credentials=lambda: "the test's environment",
        interactive=False,
        call=lambda _argv: 1,
        browse=lambda _url: None,
        wait=lambda: None,
    )
