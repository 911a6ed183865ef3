"""One request to Exoscale's API, as the official client describes and signs it.

The client's generated methods have no timeout and return only a parsed body; the caller here also needs the
status, the headers (Date, Retry-After) and bodies that are not JSON.  So a request is put together from the
description that the client ships, and is sent with the client's own signing session.
"""

import functools
import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rain_deploy import workers
from rain_deploy.errors import ApiError, InputError, RainDeployError
from rain_deploy.providers.exoscale.account import Account
from rain_deploy.providers.exoscale.answers import NoAnswer, cut

if TYPE_CHECKING:
    import requests
    from requests.adapters import HTTPAdapter

LIST_ZONES = "list-zones"
_log = logging.getLogger("rain_deploy.providers.exoscale")


@functools.cache
def _client() -> Any:
    from exoscale.api.v2 import Client  # noqa: PLC0415 - heavy: it reads a description of 1 MB

    return Client


def default_endpoint() -> str:
    """Return the address that the client calls when none is given."""
    return str(_client()("", "").endpoint)


def described(operation: str) -> Any:
    """Return {verb, path, operation} of the API's description.  A KeyError is a bug of ours."""
    return _client()._by_operation[operation]  # noqa: SLF001 - the only place that has it


def schema(operation: str) -> Any:
    """Return the schema of a successful answer."""
    content = described(operation)["operation"]["responses"]["200"].get("content", {})
    found = content.get("application/json", {}).get("schema", {})
    name = found.get("$ref", "").rpartition("/")[2]
    return _client()._api_spec["components"]["schemas"][name] if name else found  # noqa: SLF001 - as above


class Connections:
    """Connections that sign, one per thread.  ``adapter`` makes what requests sends with."""

    def __init__(self, account: Account, adapter: Callable[[], "HTTPAdapter"] | None) -> None:
        self._account = account
        self._adapter = adapter
        self._local = threading.local()

    def send(
        self,
        operation: str,
        arguments: Mapping[str, Any],
        endpoint: str,
        timeout: tuple[float, float],
        limit_s: float,
    ) -> "requests.Response":
        """Return the response, whatever its status.  Raises NoAnswer, InputError or ApiError without one.

        ``timeout`` is for each step of it; ``limit_s`` for all, with the resolver and all addresses.
        """
        call = described(operation)
        places = {each["name"]: each["in"] for each in call["operation"].get("parameters", ())}
        given: dict[str, dict[str, Any]] = {"path": {}, "query": {}, "body": {}}
        for argument, value in arguments.items():
            name = argument.replace("_", "-")
            given[places.get(name, "body")][name] = value
        session = self._session()

        def request() -> "requests.Response":
            return session.request(
                call["verb"].upper(),
                endpoint + call["path"].format(**given["path"]),
                params=given["query"],
                json=given["body"] or None,
                timeout=timeout,
                allow_redirects=False,  # a redirected POST would be sent as GET
                # Unsigned, as the client does it: a restricted key would get 403.
                auth=(lambda request: request) if operation == LIST_ZONES else None,
            )

        try:
            response = workers.within(limit_s, request)
        except TimeoutError as error:
            del self._local.session  # the request may still use it
            raise NoAnswer(f"{endpoint} is not reached within {limit_s:.0f} s") from error
        except OSError as error:  # the errors of requests are OSErrors, too
            why = _unsent(error, endpoint, self._account.source)
            _log.debug("%s at %s: %s", operation, endpoint, why)
            raise why from error
        _log.debug("%s at %s: %s", operation, endpoint, response.status_code)
        return response

    def _session(self) -> "requests.Session":
        """Return this thread's session, which signs."""
        if not hasattr(self._local, "session"):
            session = self._local.session = _client()(self._account.key, self._account.secret).http_client
            if self._adapter:
                session.mount("http://", self._adapter())
                session.mount("https://", self._adapter())
        return self._local.session  # type: ignore[no-any-return]


def _unsent(error: OSError, endpoint: str, source: str) -> RainDeployError | NoAnswer:
    """Return what a missing answer means: a wrong address or certificate, or nothing certain."""
    import requests  # noqa: PLC0415 - heavy
    from urllib3.exceptions import NewConnectionError  # noqa: PLC0415 - heavy

    broken = requests.exceptions
    if isinstance(error, broken.InvalidURL | broken.InvalidSchema | broken.MissingSchema):
        next_step = f"correct EXOSCALE_API_ENDPOINT, or endpoint of {source}"
        return InputError(f"{endpoint!r} is not the address of an API", next_step=next_step)
    if not isinstance(error, requests.RequestException):
        return InputError(
            f"Exoscale's API cannot be called: {error}",
            next_step="correct REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE where they are set",
        )
    inner = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(error, broken.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return ApiError(
            f"the certificate of {endpoint} is not trusted: {cut(str(inner or error))}",
            next_step="if a proxy has its own certificate authority: REQUESTS_CA_BUNDLE=FILE",
        )
    not_connected = isinstance(error, broken.ConnectTimeout) or isinstance(inner, NewConnectionError)
    why = f"{endpoint} is not reached" if not_connected else "the connection was lost"
    if isinstance(error, broken.ReadTimeout):
        why = "it was silent for too long"
    return NoAnswer(f"{why} ({type(inner or error).__name__})", nothing_done=not_connected)
