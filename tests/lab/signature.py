"""EXO2-HMAC-SHA256: how a request is signed, and why a signature is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qs

from tests.lab.log import Request

SCHEME = "EXO2-HMAC-SHA256 "
INVALID = "Invalid request signature"


def sign(secret: str, request: Request, names: Iterable[str], expires_s: int) -> str:
    """Return the signature; ``names``: arguments of the query.  Of a repeated one no value is signed."""
    values = parse_qs(request.query)
    single = "".join(values[name][0] for name in sorted(names) if len(values.get(name, ())) == 1)
    head = f"{request.method} {request.path}".encode()
    lines = (head, request.body, single.encode(), b"", str(expires_s).encode())
    return base64.b64encode(hmac.digest(secret.encode(), b"\n".join(lines), hashlib.sha256)).decode()


def refusal(
    request: Request, secrets: Mapping[str, str], *, now_s: float, ahead_s: float | None
) -> str | None:
    """Why it is refused, in words for the log, which gets its key; it may expire ``ahead_s`` from now."""
    scheme, found, rest = request.headers.get("authorization", "").partition(SCHEME)
    pairs = (part.partition("=") for part in rest.split(",")) if found and not scheme else ()
    fields = {name.strip(): value for name, _, value in pairs}
    request.key = fields.get("credential", "")
    names = set(filter(None, fields.get("signed-query-args", "").split(";")))
    if not fields.get("expires", "").isdigit():
        return "no signature"
    if request.key not in secrets:
        return "unknown key"
    if not {name for name, values in parse_qs(request.query).items() if len(values) == 1} <= names:
        return "query arguments that are not signed"
    expires_s = int(fields["expires"])
    expected = sign(secrets[request.key], request, names, expires_s)
    if not hmac.compare_digest(expected.encode(), fields.get("signature", "").encode()):
        return "wrong signature"
    if expires_s < now_s:
        return "expired"
    return "expires too far in the future" if ahead_s and expires_s > now_s + ahead_s else None
