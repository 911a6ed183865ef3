"""What an answer of Exoscale's API means: one of our errors, with its cause and what to do.

The statuses and texts are those of reference material on the API: 403 for a signature or a role, 404 with
a JSON message, 400, 409 or 412 for what is refused or in use, 429 with Retry-After.  An answer that is not
the API's own (HTML of a proxy, a cut body) says nothing: see ``Unclear``.
"""

from __future__ import annotations

import re

# ruff: noqa: N818 - named by what happened, as in rain_deploy.errors
from rain_deploy.errors import ApiError, CredentialsError, InputError, PartlyUp, QuotaError, RainDeployError

SKEW_S = 300.0
"""A clock that differs more from the API's is called wrong; signatures are valid for 600 s."""
_LONGEST = 400
_QUOTA = re.compile(r"\bquota|\blimits? (has been |have been |is |was )?(reached|exceeded)", re.IGNORECASE)
_CAPACITY = re.compile(
    r"\bcapacity\b|\b(insufficient|not enough|no more|lack of|out of)\b.{0,40}\b(resource|host|stock)",
    re.IGNORECASE,
)
_BLOB = re.compile(r"[A-Za-z0-9+/=_-]{120,}")
_LATER = {"busy", "unavailable", "interrupted"}
_REASONS = {
    "conflict": "something else was changing it at the same time",
    "fault": "a fault on Exoscale's side",
    "forbidden": "it is not allowed",
    "incorrect": "the request was found wrong while it was worked on",
    "not-found": "something that it needs does not exist (any more)",
    "partial": "only a part of it was done",
    "unsupported": "Exoscale does not support it",
}


class Absent(InputError):
    """404 in the API's own words: it does not exist (any more)."""


class Refused(InputError):
    """The API understood and refused (400, 409, 412 …): nothing was done."""

    def __init__(self, message: str, *, status: int, said: str, next_step: str | None = None) -> None:
        super().__init__(message, next_step=next_step)
        self.status = status
        self.said = said
        """The API's own words."""

    @property
    def name_taken(self) -> bool:
        """Of a create: something has this name already."""
        return "already" in self.said.lower()

    @property
    def in_use(self) -> bool:
        """Of a delete: something still uses it, for minutes perhaps after that was deleted."""
        if self.name_taken:
            return False
        return self.status in {409, 412} or "in use" in self.said.lower()


class Unclear(ApiError):
    """A write was sent and what came of it is not known: look for it before it is repeated."""


class CloudBusy(ApiError):
    """An operation ended as busy, unavailable or interrupted: later it may work."""

    def __init__(self, message: str, *, reason: str, next_step: str | None = None) -> None:
        super().__init__(message, next_step=next_step)
        self.reason = reason


class OperationFailed(PartlyUp):
    """An operation ended as failure; what it was to make may exist in part."""

    def __init__(self, message: str, *, reason: str, next_step: str | None = None) -> None:
        super().__init__(message, next_step=next_step)
        self.reason = reason
        """One of the API's (conflict, fault …), ``unknown`` where it gave none."""


class OperationTimeout(OperationFailed):
    """Exoscale gave up waiting for its own operation: what it makes may appear later."""


class NoCapacity(QuotaError):
    """The zone has no room for such a machine now; the quota is not the reason."""


def cut(text: str, longest: int = _LONGEST) -> str:
    """The first ``longest`` of ``text`` without blobs (user-data has a host key) and control characters."""
    visible = "".join(letter if letter.isprintable() else " " for letter in text)
    short = _BLOB.sub(lambda blob: f"[{len(blob[0])} characters]", visible)
    return short if len(short) <= longest else f"{short[:longest]} […]"


def refusal(operation: str, status: int, said: str) -> RainDeployError:
    """The error of a 4xx answer other than 401, 403 and 429; ``said`` is its message."""
    said = cut(said)
    if status == 404:  # noqa: PLR2004 - HTTP
        return Absent(f"{operation}: it does not exist at Exoscale: {said}")
    return short_of(operation, said) or Refused(
        f"Exoscale refused {operation} ({status}): {said}", status=status, said=said
    )


def short_of(operation: str, said: str) -> QuotaError | None:
    """The error of a message that tells of quota or capacity."""
    if _QUOTA.search(said):
        return QuotaError(
            f"a quota of the Exoscale account is used up ({operation}): {said}",
            next_step="rain-deploy check, or ask Exoscale for more (portal: Organization, Quotas)",
        )
    if _CAPACITY.search(said):
        return NoCapacity(
            f"the zone has no room for this machine now ({operation}): {said}",
            next_step="rain-deploy up with another --zone or --instance-type",
        )
    return None


def ended(what: str, state: str, reason: str, message: str) -> RainDeployError:
    """The error of an operation whose ``state`` is failure or timeout; row 7 of the fault matrix."""
    message = cut(message)
    told = f": {message}" if message else ""
    if state == "timeout":
        return OperationTimeout(
            f"{what}: Exoscale stopped waiting for its own operation{told}; it may still come",
            reason=reason,
            next_step="rain-deploy status",
        )
    if short := short_of(what, message):
        return short
    if reason in _LATER:
        return CloudBusy(
            f"{what}: Exoscale says {reason}{told}", reason=reason, next_step="the same command, later"
        )
    why = _REASONS.get(reason, "no reason was given")
    return OperationFailed(f"{what} failed at Exoscale ({reason}: {why}){told}", reason=reason)


def denied(operation: str, status: int, said: str, *, source: str, ahead_s: float | None) -> CredentialsError:
    """The error of a 401 or 403.  ``ahead_s``: how far this clock is ahead of the API's, where known."""
    said = cut(said)
    if ahead_s is not None and abs(ahead_s) > SKEW_S:
        return clock_wrong(ahead_s)
    if "role policy" in said.lower() or "not enabled" in said.lower():
        return CredentialsError(
            f"the API key may not do {operation} ({status}): {said}; the key is from {source}",
            next_step="give the key's role this operation in Exoscale's portal (IAM, Roles)",
        )
    return CredentialsError(
        f"Exoscale does not accept the API key or its secret ({operation}, {status}): {said};"
        f" they are from {source}",
        next_step=f"check key and secret in {source}; a key may have been deleted in the portal (IAM, Keys)",
    )


def clock_wrong(ahead_s: float) -> CredentialsError:
    """The clock here, not the key, is wrong."""
    way = "ahead of" if ahead_s > 0 else "behind"
    return CredentialsError(
        f"the clock of this machine is {abs(ahead_s) / 60:.0f} minutes {way} Exoscale's; requests are signed"
        " with the time, and time limits are kept by it",
        next_step="set the clock (timedatectl set-ntp true), then the same command",
    )
