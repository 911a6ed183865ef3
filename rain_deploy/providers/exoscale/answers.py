"""What came back from one request to Exoscale's API: an answer, an error, or nothing that says anything."""

from __future__ import annotations

import contextlib
import email.utils
import json
import math
import time
from typing import TYPE_CHECKING, Any

from rain_deploy.errors import ApiError, InputError, RainDeployError
from rain_deploy.providers.exoscale import errors

if TYPE_CHECKING:
    import requests

_WAIT, _NOT_MADE = 429, 501
_DENIED = {401, 403}
_SAYS_NOTHING = {408, 425}
"""Client errors that a server or proxy on the way gives for its own reasons."""


class NoAnswer(Exception):  # noqa: N818 - it is not an error yet
    """No proper answer.  ``nothing_done``: the request had no effect for certain, so it may be repeated."""

    def __init__(self, why: str, *, nothing_done: bool = False, after_s: float = 0.0) -> None:
        super().__init__(why)
        self.nothing_done = nothing_done
        self.after_s = after_s
        """Seconds that the API asked to wait; 0: it did not."""


def body_of(response: requests.Response) -> Any:
    """The JSON of the answer; None where it is none."""
    with contextlib.suppress(ValueError):
        return json.loads(response.content)
    return None


def ahead_s(response: requests.Response, sent_s: float) -> float | None:
    """How far the clock here is at least ahead of the server's (negative: behind), by the Date header.

    ``sent_s``: the time here when the request was sent.  A slow answer, or a laptop closed meanwhile, is
    no wrong clock.
    """
    with contextlib.suppress(ValueError):
        date_s = email.utils.parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
        latest, earliest = time.time() - date_s, sent_s - date_s
        return 0.0 if earliest <= 0 <= latest else min(earliest, latest, key=abs)
    return None


def understand(
    response: requests.Response, operation: str, form: dict[str, Any], *, source: str, ahead: float | None
) -> Any:
    """The body of a proper answer; the error of a refusal; NoAnswer for all that says nothing.

    ``form``: the schema of the answer.
    """
    status, body = response.status_code, body_of(response)
    if status == _WAIT:
        raise NoAnswer(f"{status}", nothing_done=True, after_s=_retry_after_s(response))
    if response.ok and _fits(body, form):
        return body
    if not isinstance(body, dict):
        raise NoAnswer(f"{status}, and no JSON of the API")
    if status in _DENIED:
        raise errors.denied(operation, status, _said(body), source=source, ahead_s=ahead)
    if 400 <= status < 500 and status not in _SAYS_NOTHING:  # noqa: PLR2004 - HTTP
        raise errors.refusal(operation, status, _said(body))
    if status == _NOT_MADE:
        raise ApiError(f"Exoscale's API does not know {operation} ({status}): {errors.cut(_said(body))}")
    raise NoAnswer(
        f"{status}: {errors.cut(_said(body))}" if status >= 400 else f"{status}, of an unknown form",  # noqa: PLR2004
        after_s=_retry_after_s(response),
    )


def unsent(error: OSError, endpoint: str, source: str) -> RainDeployError | NoAnswer:
    """What it means that no answer came: a wrong address or certificate, or nothing certain."""
    import requests  # noqa: PLC0415 - heavy
    from urllib3.exceptions import NewConnectionError  # noqa: PLC0415 - heavy

    wrong = (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        requests.exceptions.MissingSchema,
    )
    if isinstance(error, wrong):
        return InputError(
            f"{endpoint!r} is no address of an API",
            next_step=f"correct EXOSCALE_API_ENDPOINT, or endpoint of {source}",
        )
    if not isinstance(error, requests.RequestException):
        return InputError(
            f"Exoscale's API cannot be called: {error}",
            next_step="correct REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE where they are set",
        )
    inner = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return ApiError(
            f"the certificate of {endpoint} is not trusted: {errors.cut(str(inner or error))}",
            next_step="where a proxy has its own authority: REQUESTS_CA_BUNDLE=FILE",
        )
    not_made = isinstance(error, requests.exceptions.ConnectTimeout) or isinstance(inner, NewConnectionError)
    why = f"{endpoint} is not reached" if not_made else "the connection was lost"
    if isinstance(error, requests.exceptions.ReadTimeout):
        why = "it was silent for too long"
    return NoAnswer(f"{why} ({type(inner or error).__name__})", nothing_done=not_made)


def _fits(body: Any, form: dict[str, Any]) -> bool:
    """Whether it is what the API's description promises: a list, or an object with a property of it.

    An empty object is one: what is absent is often left out.
    """
    if form.get("type") == "array":
        return isinstance(body, list)
    known = form.get("properties", {})
    return isinstance(body, dict) and (not body or not known or not known.keys().isdisjoint(body))


def _said(body: dict[str, Any]) -> str:
    """The words of an error, in whichever of its forms."""
    words = [body.get(key) for key in ("message", "error", "title", "detail")]
    more = body.get("errors")
    words += [one.get("message") for one in more if isinstance(one, dict)] if isinstance(more, list) else []
    return "; ".join(dict.fromkeys(word for word in words if isinstance(word, str))) or "without a word"


def _retry_after_s(response: requests.Response) -> float:
    """Seconds of the Retry-After header, given as a number or as a date; 0 without one."""
    value = response.headers.get("Retry-After", "")
    with contextlib.suppress(ValueError):
        seconds = float(value)
        return max(0.0, seconds) if math.isfinite(seconds) else 0.0
    with contextlib.suppress(ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0
