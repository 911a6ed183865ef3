"""EXO2-HMAC-SHA256: how a request is signed, and why a signature is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

SCHEME = "EXO2-HMAC-SHA256 "
INVALID = "Invalid request signature"


@dataclass(frozen=True, slots=True)
class Signed:
    """What is signed of a request: method, path as on the wire, query string, body as received."""

    method: str
    path: str
    query: str = ""
    body: bytes = b""


def arguments(query: str) -> tuple[str, ...]:
    """Names of the query's arguments that have a value, in the order in which they are signed."""
    return tuple(sorted(parse_qs(query)))


def sign(secret: str, signed: Signed, names: tuple[str, ...], expires_s: int) -> str:
    """Return the signature; of a repeated argument no value is signed."""
    values = parse_qs(signed.query)
    single = "".join(values[name][0] for name in names if len(values.get(name, ())) == 1)
    lines = (
        f"{signed.method} {signed.path}".encode(),
        signed.body,
        single.encode(),
        b"",
        str(expires_s).encode(),
    )
    return base64.b64encode(hmac.digest(secret.encode(), b"\n".join(lines), hashlib.sha256)).decode()


def fields(header: str) -> dict[str, str]:
    """Of an Authorization header; empty for one of another scheme."""
    if not header.startswith(SCHEME):
        return {}
    pairs = (part.partition("=") for part in header.removeprefix(SCHEME).split(","))
    return {name.strip(): value for name, _, value in pairs}


def refusal(
    header: str, signed: Signed, secrets: Mapping[str, str], *, now_s: float, ahead_s: float
) -> str | None:
    """Why the header is refused, in words for the log; None for a good one.

    ``ahead_s``: how far in the future it may expire (a bound of the real API is not known).
    """
    found = fields(header)
    secret = secrets.get(found.get("credential", ""))
    names = tuple(filter(None, found.get("signed-query-args", "").split(";")))
    if not found or not found.get("expires", "").isdigit():
        return "no signature"
    if secret is None:
        return "unknown key"
    if not {name for name in arguments(signed.query) if len(parse_qs(signed.query)[name]) == 1} <= {*names}:
        return "query arguments that are not signed"
    expires_s = int(found["expires"])
    expected = sign(secret, signed, tuple(sorted(names)), expires_s)
    if not hmac.compare_digest(expected.encode(), found.get("signature", "").encode()):
        return "wrong signature"
    if not now_s <= expires_s <= now_s + ahead_s:
        return "expired" if expires_s < now_s else "expires too far in the future"
    return None
