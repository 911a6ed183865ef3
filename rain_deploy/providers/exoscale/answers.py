"""The meaning of an answer of Exoscale's API: the one place where its errors are told apart.

A refusal of the API's own (401, 403, any 4xx) ends at once, and nothing was done.  A fault on the way (5xx,
429, an answer that is cut short) is NoAnswer, and the caller tries again.  An answer of an unknown form ends
at once too: it would be the same the next time.
"""

# ruff: noqa: N818 - named by what happened, as in rain_deploy.errors

import contextlib
import email.utils
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from rain_deploy.core.text import count
from rain_deploy.errors import ApiError, CredentialsError, InputError, KeyRefused, PartlyUp, QuotaError

if TYPE_CHECKING:
    import requests

SKEW_S = 300.0  # A clock that differs from the API's by more is wrong; signatures are valid for 600 s
MORE_QUOTA = "`rain-deploy gc` shows what you have; more: Exoscale's portal (Organization, Quotas)"
_QUOTA = re.compile(r"\bquota|\blimits? (has been |have been |is |was )?(reached|exceeded)", re.IGNORECASE)
_CAPACITY = re.compile(
    r"\bcapacity\b|\b(insufficient|not enough|no more|lack of|out of)\b.{0,40}\b(resource|host|stock)",
    re.IGNORECASE,
)
_BY_A_PROXY = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY})  # for its own reasons
_TAG = re.compile(r"<[^<>]*>")
_BLOB = re.compile(r"[A-Za-z0-9+/=_-]{120,}")
_REASONS = {
    "conflict": "something else was changing it at the same time",
    "fault": "a fault on Exoscale's side",
    "forbidden": "it is not allowed",
    "incorrect": "the request turned out to be wrong",
    "not-found": "something that it needs does not exist (any more)",
    "partial": "only a part of it was done",
    "unsupported": "Exoscale does not support it",
}


class NoAnswer(Exception):
    """No answer came, for now.  ``nothing_done``: it may be repeated; ``after_s``: how long to wait."""

    def __init__(self, why: str, *, nothing_done: bool = False, after_s: float = 0.0) -> None:
        super().__init__(why)
        self.nothing_done = nothing_done
        self.after_s = after_s


class Absent(InputError):
    """The API itself says that it does not exist (any more)."""


class Refused(InputError):
    """The API understood and refused (400, 409, 412 …): nothing was done."""

    def __init__(self, operation: str, status: int, words: str) -> None:
        super().__init__(f"Exoscale refused {operation} ({status}): {words}")
        words = words.lower()
        self.status = status
        self.name_taken = "already" in words
        self.in_use = not self.name_taken and (status in {409, 412} or "in use" in words)
        """Something still uses what was to be deleted, perhaps for minutes after its own deletion."""
        self.protected = "protect" in words


class Unknown(ApiError):
    """The API does not do what its description says."""


class UnknownForm(Unknown):
    """The answer has a form that the API's description does not have.  Its text is shown."""

    def __init__(self, operation: str, status: int, text: str) -> None:
        shown = cut(" ".join(_TAG.sub(" ", text).split()), 300) or "it is empty"
        super().__init__(
            f"the answer to {operation} ({status}) has a form that rain-deploy does not know: {shown}",
            next_step="check proxies and EXOSCALE_API_ENDPOINT; if they are right, report this as a bug",
        )


class NoCapacity(QuotaError):
    """A zone has no room for a type of machine; another zone may have."""


class Unclear(ApiError):
    """A write was sent and its outcome is unknown: search before repeating it.

    ``again``: False where the answer would be the same, so it is not repeated.
    """

    def __init__(self, operation: str, why: str, *, again: bool = True) -> None:
        message = f"it is not known whether Exoscale did {operation}: {why}"
        super().__init__(message, next_step="rain-deploy status")
        self.again = again


@dataclass(frozen=True, slots=True)
class Operation:
    """A change that Exoscale has begun."""

    id: str = ""
    state: str = ""
    zone: str | None = None
    reference: str = ""  # id of what it makes or changes, where the answer names it
    reason: str = "unknown"
    message: str = ""

    @classmethod
    def parse(cls, answer: Mapping[str, Any], zone: str | None) -> "Operation":
        texts = {key: str(answer[key]) for key in ("id", "state", "reason", "message") if key in answer}
        return cls(zone=zone, reference=str((answer.get("reference") or {}).get("id", "")), **texts)

    @property
    def made(self) -> str:
        """Return the id of what it makes.  Raises Unclear if the answer does not name it."""
        if not self.reference:
            raise Unclear("the create", "the answer does not name what it makes")
        return self.reference

    def succeeded(self, what: str) -> bool:
        """Return True for a success and False while it runs.  Raises the error of any other end."""
        words = f": {cut(self.message)}" if self.message else ""
        if self.state == "timeout":
            message = f"{what}: Exoscale stopped waiting for its own operation{words}; it may still come"
            raise PartlyUp(message, next_step="rain-deploy status")
        if self.state != "failure":
            return self.state == "success"
        if short := out_of_room(what, cut(self.message)):
            raise short
        if self.reason in {"busy", "unavailable", "interrupted"}:
            raise ApiError(f"{what}: Exoscale says {self.reason}{words}", next_step="the same command, later")
        why = _REASONS.get(self.reason, "no reason was given")
        raise PartlyUp(f"{what} failed at Exoscale ({self.reason}: {why}){words}")


def cut(text: str, longest: int = 400) -> str:
    """Return the start of ``text`` without blobs (user-data holds a host key) and control characters."""
    visible = "".join(letter if letter.isprintable() else " " for letter in text)
    short = _BLOB.sub(lambda blob: f"[{len(blob[0])} characters]", visible)
    return short if len(short) <= longest else f"{short[:longest]} […]"


def ahead_s(response: "requests.Response", sent_s: float) -> float | None:
    """Return how far the clock here is at least ahead of the server's (negative: behind), by the Date header.

    ``sent_s``: the time here when the request was sent.  A slow answer, or a laptop that was closed
    meanwhile, does not count as a wrong clock.
    """
    with contextlib.suppress(ValueError):
        date_s = email.utils.parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
        latest, earliest = time.time() - date_s, sent_s - date_s
        return 0.0 if earliest <= 0 <= latest else min(earliest, latest, key=abs)
    return None


def understand(
    response: "requests.Response", operation: str, schema: dict[str, Any], *, source: str, ahead: float | None
) -> Any:
    """Return the body of a proper answer.  Raises the error of a refusal, NoAnswer, or UnknownForm."""
    status, body = response.status_code, None
    with contextlib.suppress(ValueError):
        body = json.loads(response.content)
    words = _words(body) if isinstance(body, dict) else "no JSON of the API"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        raise NoAnswer(f"{status}", nothing_done=True, after_s=_retry_after_s(response))
    if status == HTTPStatus.NOT_IMPLEMENTED:
        raise Unknown(f"Exoscale's API does not know {operation} ({status}): {words}")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _BY_A_PROXY:
        raise NoAnswer(f"{status}: {words}", after_s=_retry_after_s(response))
    if isinstance(body, dict) and status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise clock_error(ahead) or _denied(operation, status, words, source)
    if isinstance(body, dict) and status == HTTPStatus.NOT_FOUND:
        raise Absent(f"{operation}: it does not exist at Exoscale: {words}")
    if isinstance(body, dict) and status >= HTTPStatus.BAD_REQUEST:
        raise out_of_room(operation, words) or Refused(operation, status, words)
    if status < HTTPStatus.MULTIPLE_CHOICES and _fits(body, schema):
        return body
    if body is None and status < HTTPStatus.MULTIPLE_CHOICES and _cut_short(response):
        raise NoAnswer(f"{status}, and the answer is cut short")
    raise UnknownForm(operation, status, response.text)


def _fits(body: object, schema: dict[str, Any]) -> bool:
    """Return True for a list or object as promised: with one of the known properties, or empty."""
    if schema.get("type") == "array":
        return isinstance(body, list)
    known = schema.get("properties", {})
    return isinstance(body, dict) and (not body or not known or not known.keys().isdisjoint(body))


def _cut_short(response: "requests.Response") -> bool:
    """Return True for JSON whose end is missing; the four letters of a ``null`` are whole."""
    is_json = "json" in response.headers.get("Content-Type", "")
    return is_json and response.content.strip() != b"null"


def out_of_room(what: str, words: str) -> QuotaError | None:
    """Return the error for a message about quota or capacity, None for any other."""
    if _QUOTA.search(words):
        message = f"a quota of the Exoscale account is used up ({what}): {words}"
        return QuotaError(message, next_step=MORE_QUOTA)
    if _CAPACITY.search(words):
        message = f"the zone has no room for this machine now ({what}): {words}"
        return NoCapacity(message, next_step="rain-deploy up with another --zone or --instance-type")
    return None


def clock_error(ahead: float | None) -> CredentialsError | None:
    """Return the error for a clock that is wrong by more than ``SKEW_S``, None for a right or unknown one."""
    if ahead is None or abs(ahead) <= SKEW_S:
        return None
    way = "ahead of" if ahead > 0 else "behind"
    minutes = count(round(abs(ahead) / 60), "minute")
    return CredentialsError(
        f"the clock of this machine is {minutes} {way} Exoscale's; requests are signed"
        " with the time, and time limits depend on it",
        next_step="set the clock (timedatectl set-ntp true), then repeat the command",
    )


def _denied(operation: str, status: int, words: str, source: str) -> CredentialsError:
    if "role policy" in words.lower() or "not enabled" in words.lower():
        return CredentialsError(
            f"the API key may not do {operation} ({status}): {words}; the key is from {source}",
            next_step="give the key's role this operation in Exoscale's portal (IAM, Roles)",
        )
    return KeyRefused(
        f"Exoscale does not accept the API key or its secret ({operation}, {status}): {words};"
        f" they are from {source}",
        next_step=f"check key and secret in {source}; a key may have been deleted in the portal (IAM, Keys)",
    )


def _words(body: dict[str, Any]) -> str:
    """Return the text of an error, in whichever of the API's forms."""
    words = [body.get(key) for key in ("message", "error", "title", "detail")]
    more = body.get("errors")
    words += [one.get("message") for one in more if isinstance(one, dict)] if isinstance(more, list) else []
    return cut("; ".join(dict.fromkeys(word for word in words if isinstance(word, str))) or "no message")


def _retry_after_s(response: "requests.Response") -> float:
    """Return the seconds of the Retry-After header, given as a number or as a date; 0 without one."""
    value = response.headers.get("Retry-After", "")
    seconds = 0.0
    with contextlib.suppress(ValueError):
        seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    with contextlib.suppress(ValueError):
        seconds = float(value)
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
