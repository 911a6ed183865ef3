from __future__ import annotations

import time
from collections.abc import Mapping

import pytest
import requests
from exoscale.api.exceptions import ExoscaleAPIAuthException
from exoscale.api.v2 import Client

from tests.lab.conftest import ask
from tests.lab.lab import Lab
from tests.lab.log import Request
from tests.lab.signature import SCHEME, refusal, sign

EXPIRES_S = 1893456000
SECRETS: Mapping[str, str] = {"k": "s"}


def signed(method: str, path: str, query: str = "", body: bytes = b"") -> Request:
    """A request of which nothing else matters."""
    return Request(method, path, query, {}, body, "")


def refused(request: Request, header: str, secrets: Mapping[str, str] = SECRETS) -> str | None:
    """Why it is refused with this header, a second before it expires."""
    request.headers["authorization"] = header
    return refusal(request, secrets, now_s=EXPIRES_S - 1, ahead_s=600)


VECTORS = [
    (
        signed(
            "GET",
            "/v2/instance",
            "manager-type=instance-pool&ip-address=198.51.100.7&labels=a+b%3Ac%26d",
        ),
        "XuZB8DzJS/e/o+A9WRFFYF6bQjknA8rAElSOsGE/hhI=",
    ),
    (
        signed("POST", "/v2/ssh-key", "", b'{"name": "k1", "public-key": "ssh-ed25519 AAAA"}'),
        "w8dHV7EE9a5UyIbt7l3OUyWlv5VvswyL6gOGGLKsdwI=",
    ),
    (
        signed("PUT", "/v2/instance/5c9b6a10-0000-4000-8000-000000000001:start"),
        "6MsLniUontDuirqz9fkjY2UbdkU3Dvqn/W/JJFIUeF8=",
    ),
    (signed("GET", "/v2/ssh-key/a%20b"), "r+4l2HwqPiRUkQFyt/iimWmOjNIu61BL77k7EoUFnws="),
]


@pytest.mark.parametrize(("request_", "expected"), VECTORS)
def test_signs_as_the_published_vectors(request_: Request, expected: str) -> None:
    names = sorted(request_.arguments)

    assert sign("test-secret", request_, names, EXPIRES_S) == expected
    listed = f",signed-query-args={';'.join(names)}" if names else ""
    header = f"{SCHEME}credential=EXOtest{listed},expires={EXPIRES_S},signature={expected}"
    assert refused(request_, header, {"EXOtest": "test-secret"}) is None
    assert request_.key == "EXOtest"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (signed("PUT", "/v2/ssh-key", "", b"x"), "wrong signature"),
        (signed("POST", "/ch-gva-2/v2/ssh-key", "", b"x"), "wrong signature"),
        (signed("POST", "/v2/ssh-key", "", b"y"), "wrong signature"),
        (signed("POST", "/v2/ssh-key", "a=1", b"x"), "query arguments that are not signed"),
    ],
)
def test_a_request_that_was_changed_on_its_way_is_refused(changed: Request, why: str) -> None:
    signature = sign("s", signed("POST", "/v2/ssh-key", "", b"x"), (), EXPIRES_S)
    header = f"{SCHEME}credential=k,expires={EXPIRES_S},signature={signature}"

    assert refused(changed, header) == why


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("", "no signature"),
        ("Bearer abc", "no signature"),
        (f"{SCHEME}credential=k,signature=abc", "no signature"),
        (f"{SCHEME}credential=other,expires=1,signature=abc", "unknown key"),
    ],
)
def test_a_header_that_is_none_is_refused(header: str, why: str) -> None:
    assert refused(signed("GET", "/v2/instance"), header) == why


def test_a_wrong_secret_is_403_and_is_reported_in_the_log(lab: Lab) -> None:
    client = Client(lab.key, "wrong", url=lab.url)

    with pytest.raises(ExoscaleAPIAuthException, match="Invalid request signature"):
        client.list_instances()
    assert [each.signature for each in lab.log] == ["wrong signature"]
    assert not lab.log[0].signed


def test_a_query_is_signed_by_the_sdk_as_the_lab_expects_it(lab: Lab) -> None:
    client = Client(lab.key, lab.secret, url=lab.url)

    client.list_templates(visibility="public", family="a b:c&d")
    assert lab.log[0].signature == "ok"
    assert lab.log[0].arguments == {"visibility": "public", "family": "a b:c&d"}


@pytest.mark.parametrize(("offset_s", "why"), [(900, "expired"), (-900, "expires too far in the future")])
def test_a_clock_15_minutes_off_is_refused_and_seen_in_the_date_header(
    lab: Lab, offset_s: float, why: str
) -> None:
    lab.faults.clock_offset_s = offset_s
    answer = ask(lab, "GET", "/v2/instance")

    assert answer.status_code == 403
    assert lab.log[0].signature == why
    seen_s = time.mktime(time.strptime(answer.headers["Date"], "%a, %d %b %Y %H:%M:%S GMT")) - time.timezone
    assert abs(seen_s - time.time() - offset_s) < 60


def test_each_key_of_the_account_works_until_it_is_revoked(lab: Lab) -> None:
    key, secret = lab.add_key()
    client = Client(key, secret, url=lab.url)
    assert client.list_instances() == {"instances": []}

    lab.revoke(key)

    with pytest.raises(ExoscaleAPIAuthException):
        client.list_instances()


def test_a_restricted_key_reads_and_changes_nothing(lab: Lab) -> None:
    client = Client(lab.restricted_key, lab.restricted_secret, url=lab.url)
    assert client.list_instances() == {"instances": []}

    with pytest.raises(ExoscaleAPIAuthException, match="Forbidden by role policy"):
        client.create_security_group(name="rain")
    assert lab.left() == ()


@pytest.mark.parametrize("prefix", ["", "/ch-gva-2"])
def test_zones_are_reported_without_a_signature_under_every_prefix(lab: Lab, prefix: str) -> None:
    answer = requests.get(lab.url.replace("/v2", f"{prefix}/v2/zone"), timeout=5)

    endpoints = {each["name"]: each["api-endpoint"] for each in answer.json()["zones"]}
    assert endpoints["ch-gva-2"] == lab.url.replace("/v2", "/ch-gva-2/v2")
    assert len(endpoints) == 8
    assert lab.log[0].signed
