"""Calls of Exoscale's API: repeated only where that is safe, bounded in time, told in our words.

Against the lab.  Row numbers are those of the fault matrix.
"""

from __future__ import annotations

import concurrent.futures
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from rain_deploy.errors import (
    ApiError,
    CredentialsError,
    InputError,
    PartlyUp,
    QuotaError,
    RainDeployError,
)
from rain_deploy.providers.exoscale import answers as exoscale_answers
from rain_deploy.providers.exoscale.account import Account
from rain_deploy.providers.exoscale.answers import Absent, Operation, Refused, Unclear, UnknownForm
from rain_deploy.providers.exoscale.api import Api
from rain_deploy.providers.exoscale.patience import Patience, Watch
from tests.lab.faults import HTML, Reply, reply
from tests.lab.lab import Lab

HOST = "127.3.0.1"
NOWHERE = "00000000-0000-4000-8000-000000000000"
GROUP = {"name": "rain-deploy_group"}


@dataclass
class Time:
    """A clock that only pauses move; each is noted."""

    now_s: float = 1000.0
    paused: list[float] = field(default_factory=list)

    def pause(self, seconds: float) -> None:
        self.paused.append(seconds)
        self.now_s += seconds
        time.sleep(0.001)  # operations of the lab take a little of the real time


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(host=HOST, latency_s=0.01) as lab:
        yield lab


@pytest.fixture
def passing() -> Time:
    return Time()


@pytest.fixture
def notices() -> list[str]:
    return []


@pytest.fixture
def account(lab: Lab) -> Account:
    return Account(lab.key, lab.secret, None, lab.url, "EXOSCALE_API_KEY in the environment")


@pytest.fixture
def patience(passing: Time) -> Patience:
    return Patience(clock=lambda: passing.now_s, pause=passing.pause, answer_s=0.5)


@pytest.fixture
def api(account: Account, patience: Patience, notices: list[str]) -> Api:
    return Api(account, patience=patience, notice=notices.append)


def asked(lab: Lab, operation: str) -> int:
    return sum(request.operation == operation for request in lab.log)


def failing(call: Callable[[], Any], error: type[RainDeployError], code: int) -> Any:
    with pytest.raises(error) as caught:
        call()
    assert caught.value.exit_code == code
    return caught.value


# ---- the plain way


def test_a_zone_is_called_at_its_own_endpoint_and_the_organization_at_the_accounts(
    lab: Lab, api: Api
) -> None:
    port = lab.url.split(":")[2].partition("/")[0]
    assert api.zones()["de-fra-1"] == f"http://{HOST}:{port}/de-fra-1/v2"
    assert api.read("list-instances", zone="de-fra-1") == {"instances": []}
    api.wait(api.write("create-security-group", **GROUP), what="group")
    assert [(request.operation, request.zone) for request in lab.log][:3] == [
        ("list-zones", "ch-dk-2"),
        ("list-instances", "de-fra-1"),
        ("create-security-group", "ch-dk-2"),
    ]
    assert all(request.signed and request.documented for request in lab.log)
    assert asked(lab, "list-zones") == 1


def test_zones_are_asked_without_a_signature_as_a_restricted_key_may_not(lab: Lab, api: Api) -> None:
    api.zones()
    assert "authorization" not in lab.log[0].headers


def test_without_an_endpoint_exoscales_own_is_asked_for_zones_and_the_accounts_zone_for_the_rest(
    lab: Lab, account: Account
) -> None:
    class Own(HTTPAdapter):
        """Leads to the lab what is for the SDK's own address."""

        def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
            request.url = request.url.replace("https://api-ch-gva-2.exoscale.com/v2", lab.url)
            return super().send(request, *arguments, **options)

    for zone, default in (("at-vie-1", "at-vie-1"), (None, "ch-dk-2")):
        api = Api(replace(account, endpoint=None, zone=zone), adapter=Own)
        api.read("list-security-groups")
        assert (api.zone, lab.log[-1].zone) == (default, default)


def test_arguments_are_in_the_spelling_of_the_sdk(lab: Lab, api: Api) -> None:
    group = api.write("create-security-group", **GROUP)
    rule: dict[str, Any] = {"flow_direction": "ingress", "protocol": "tcp", "start_port": 22, "end_port": 22}
    api.wait(
        api.write("add-rule-to-security-group", id=group.reference, network="127.3.0.9/32", **rule),
        what="rule",
    )
    found = api.read("get-security-group", id=group.reference)
    assert found["rules"][0]["network"] == "127.3.0.9/32"
    assert isinstance(api.read("list-events", **{"from": "2026-11-24T00:00:00Z"}), list)


def test_an_unknown_zone_names_the_valid_ones(api: Api) -> None:
    error = failing(lambda: api.read("list-instances", zone="ch-xx-1"), InputError, 10)
    assert "'ch-xx-1'" in error.message
    assert "at-vie-1" in error.message


def test_each_thread_has_its_own_connection(lab: Lab, api: Api) -> None:
    lab.faults.barrier("list-instances", 8)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(api.read, "list-instances", zone="ch-gva-2") for _ in range(8)]
        assert all(call.result() == {"instances": []} for call in calls)
    assert max(request.in_flight for request in lab.log) == 8


def test_every_request_goes_through_the_adapter_that_is_given(account: Account) -> None:
    seen: list[str] = []

    class Adapter(HTTPAdapter):
        def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
            seen.append(request.path_url)
            return super().send(request, *arguments, **options)

    Api(account, adapter=Adapter).read("list-instances", zone="ch-gva-2")
    assert seen == ["/v2/zone", "/ch-gva-2/v2/instance"]


def test_a_read_is_no_write_and_a_write_no_read(lab: Lab, api: Api) -> None:
    with pytest.raises(ValueError, match="not a read"):
        api.read("create-instance", zone="ch-dk-2")
    with pytest.raises(ValueError, match="not a write"):
        api.write("list-instances", zone="ch-dk-2")
    assert not lab.log


def test_the_sdk_is_imported_when_it_is_called_and_not_before() -> None:
    program = (
        "import sys, rain_deploy.providers.exoscale.api as a, rain_deploy.providers.exoscale.account as b\n"
        "a.Api(b.Account('k', 's', None, None, ''))\n"
        "print(*sorted({'exoscale', 'requests', 'urllib3'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""


# ---- row 4: 429


def test_row_4_a_read_waits_as_told_and_says_so_once(
    lab: Lab, api: Api, passing: Time, notices: list[str]
) -> None:
    lab.faults.status("list-instances", 429, retry_after="7", times=2)
    assert api.read("list-instances", zone="ch-dk-2") == {"instances": []}
    assert all(7 <= pause <= 8.5 for pause in passing.paused)
    assert notices == ["Exoscale's API asks to wait 7 s (429)"] * len(passing.paused)


def test_row_4_a_write_that_was_put_off_is_repeated_and_done_once(
    lab: Lab, api: Api, passing: Time, notices: list[str]
) -> None:
    lab.faults.status("create-security-group", 429, retry_after="3")
    api.write("create-security-group", **GROUP)
    assert sum(request.committed for request in lab.log) == 1
    assert 3 <= sum(passing.paused) <= 4
    assert len(notices) == 1


def test_row_4_threads_that_wait_together_say_it_once(account: Account, lab: Lab) -> None:
    notices: list[str] = []
    api = Api(account, patience=Patience(answer_s=5), notice=notices.append)
    lab.faults.status("list-instances", 429, retry_after="0.5", times=6)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: api.read("list-instances", zone="ch-dk-2"), range(6)))
    assert len(notices) == 1


def test_row_4_a_wait_that_is_longer_than_the_deadline_is_not_begun(
    lab: Lab, api: Api, passing: Time
) -> None:
    lab.faults.status("create-security-group", 429, retry_after="3600", times=None)
    error = failing(lambda: api.write("create-security-group", **GROUP), ApiError, 22)
    assert "3600 s" in error.message
    assert not isinstance(error, Unclear)
    assert passing.paused == []


def test_row_4_while_an_operation_is_polled(lab: Lab, api: Api, passing: Time) -> None:
    lab.faults.status("get-operation", 429, retry_after="9")
    api.wait(api.write("create-security-group", **GROUP), what="group")
    assert any(9 <= pause < 12 for pause in passing.paused)


# ---- row 5: 500 and 503


@pytest.mark.parametrize("status", [500, 502, 503])
def test_row_5_reads_go_on_through_an_outage_of_two_minutes(
    lab: Lab, api: Api, passing: Time, notices: list[str], status: int
) -> None:
    fault = lab.faults.status("list-instances", status, times=None)

    def end(_request: object) -> None:
        if passing.now_s > 1120:
            fault.release()

    lab.faults.call("list-instances", end, times=None)
    assert api.read("list-instances", zone="ch-dk-2") == {"instances": []}
    assert max(passing.paused) < 3.7
    assert passing.paused[0] < 0.3
    assert len(notices) == 1
    assert str(status) in notices[0]


def test_row_5_reads_end_by_the_deadline_of_an_outage_without_end(lab: Lab, api: Api, passing: Time) -> None:
    lab.faults.status("list-instances", 503, "Endpoint template temporarily unavailable", times=None)
    error = failing(lambda: api.read("list-instances", zone="ch-dk-2"), ApiError, 22)
    assert "temporarily unavailable" in error.message
    assert 1150 <= passing.now_s < 1151


def test_row_5_no_read_is_given_more_time_than_its_deadline_has_left(
    account: Account, patience: Patience, lab: Lab
) -> None:
    given: list[tuple[float, float]] = []

    class Adapter(HTTPAdapter):
        def send(self, *arguments: Any, **options: Any) -> Any:
            given.append(options["timeout"])
            return super().send(*arguments, **options)

    lab.faults.status("list-instances", 503, times=None)
    lab.faults.status("create-security-group", 429, times=None)
    api = Api(account, patience=replace(patience, answer_s=30), adapter=Adapter)
    failing(lambda: api.read("list-instances", zone="ch-dk-2"), ApiError, 22)
    assert given[:1] == [(10, 30)]
    assert given[-1:] == [(1, 1)]
    failing(lambda: api.write("create-security-group", **GROUP), ApiError, 22)
    assert given[-1:] == [(10, 30)]  # a write that is cut short would be unclear


@pytest.mark.parametrize("committed", [True, False])
def test_row_5_a_write_is_sent_once_and_unclear(lab: Lab, api: Api, committed: bool) -> None:
    lab.faults.status("create-security-group", 503, committed=committed, times=None)
    failing(lambda: api.write("create-security-group", **GROUP), Unclear, 22)
    assert asked(lab, "create-security-group") == 1


# ---- rows 1 and 23: lost, cut and garbled answers


Spoil = Callable[[Lab, str], object]
SPOILED: dict[str, Spoil] = {
    "cut": lambda lab, operation: lab.faults.cut(operation, times=2),
    "hang": lambda lab, operation: lab.faults.hang(operation, 1.0, committed=True, times=1),
    "html 502": lambda lab, operation: lab.faults.html(operation, committed=True, times=2),
    "html 200": lambda lab, operation: lab.faults.html(operation, 200, committed=True, times=2),
    "html 403": lambda lab, operation: lab.faults.html(operation, 403, committed=True, times=2),
    "html 404": lambda lab, operation: lab.faults.html(operation, 404, committed=True, times=2),
    "truncated": lambda lab, operation: lab.faults.truncate(operation, times=2),
    "empty": lambda lab, operation: lab.faults.answer(operation, Reply(200, b""), committed=True, times=2),
    "null": lambda lab, operation: lab.faults.answer(operation, reply(200, None), committed=True, times=2),
    "list": lambda lab, operation: lab.faults.answer(operation, reply(200, []), committed=True, times=2),
    "another object": lambda lab, operation: lab.faults.answer(
        operation, reply(200, {"message": "hello"}), committed=True, times=2
    ),
    "redirect": lambda lab, operation: lab.faults.answer(
        operation, reply(302, {}, ("Location", f"{lab.url}/zone")), committed=True, times=2
    ),
}


LOST = ("cut", "hang", "html 502", "truncated", "empty")
"""Faults on the way; all other spoiled answers have an unknown form."""
UNKNOWN = tuple(name for name in SPOILED if name not in LOST)


@pytest.mark.parametrize("name", LOST)
def test_row_23_a_read_whose_answer_is_lost_is_asked_again(lab: Lab, api: Api, name: str) -> None:
    SPOILED[name](lab, "list-instances")
    assert api.read("list-instances", zone="ch-dk-2") == {"instances": []}
    assert asked(lab, "list-instances") == (2 if name == "hang" else 3)


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_answer_of_an_unknown_form_ends_a_read_at_once_and_is_shown(
    lab: Lab, api: Api, passing: Time, name: str
) -> None:
    SPOILED[name](lab, "list-instances")
    error = failing(lambda: api.read("list-instances", zone="ch-dk-2"), UnknownForm, 22)
    assert asked(lab, "list-instances") == 1
    assert passing.paused == []
    text = {"html": "502 Bad Gateway", "null": "null", "list": "[]", "another": "hello", "redirect": "{}"}
    assert text[name.partition(" ")[0]] in error.message
    assert "report this as a bug" in (error.next_step or "")


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_row_1_a_write_whose_answer_is_lost_is_unclear_and_not_repeated(
    lab: Lab, api: Api, spoil: Spoil
) -> None:
    spoil(lab, "create-security-group")
    error = failing(lambda: api.write("create-security-group", **GROUP), Unclear, 22)
    assert "not known" in error.message
    assert asked(lab, "create-security-group") == 1
    assert len(lab.left()) == 1


def test_no_redirect_is_followed(lab: Lab, api: Api) -> None:
    elsewhere = ("Location", f"{lab.url}/security-group")
    lab.faults.answer("create-security-group", reply(307, {}, elsewhere))
    lab.faults.answer("list-instances", reply(302, {}, elsewhere))
    failing(lambda: api.write("create-security-group", **GROUP), Unclear, 22)
    failing(lambda: api.read("list-instances", zone="ch-dk-2"), UnknownForm, 22)
    assert [r.operation for r in lab.log if r.path.endswith("/security-group")] == ["create-security-group"]


@pytest.mark.parametrize("name", LOST)
def test_row_23_a_poll_is_repeated(lab: Lab, api: Api, name: str) -> None:
    SPOILED[name](lab, "get-operation")
    api.wait(api.write("create-security-group", **GROUP), what="group")
    assert len(lab.left()) == 1


@pytest.mark.parametrize("name", [name for name in UNKNOWN if name != "another object"])
def test_an_answer_of_an_unknown_form_ends_a_wait_at_once(lab: Lab, api: Api, name: str) -> None:
    SPOILED[name](lab, "get-operation")
    operation = api.write("create-security-group", **GROUP)
    failing(lambda: api.wait(operation, what="group"), UnknownForm, 22)
    assert asked(lab, "get-operation") == 1


def test_after_an_answer_of_an_unknown_form_a_create_is_searched_for_and_not_sent_again(
    lab: Lab, api: Api, passing: Time
) -> None:
    lab.faults.html("create-security-group", 200, times=None)
    found: list[str | None] = [None, None, "it"]

    def make() -> str:
        return api.write("create-security-group", **GROUP).made

    assert api.made_once(lambda: found.pop(0), make, what="group") == "it"
    error = failing(lambda: api.made_once(lambda: None, make, what="group"), ApiError, 22)
    assert "Bad Gateway" in error.message
    assert asked(lab, "create-security-group") == 2, "once for each of the two"


def test_a_refusal_after_a_lost_answer_does_not_claim_that_nothing_was_made(lab: Lab, api: Api) -> None:
    lab.faults.cut("create-security-group")
    lab.faults.status("create-security-group", 403, "Forbidden by role policy", skip=1, times=None)

    def make() -> str:
        return api.write("create-security-group", **GROUP).made

    failing(lambda: api.made_once(lambda: None, make, what="group"), ApiError, 22)


@pytest.mark.parametrize("error", [CredentialsError("401"), QuotaError("full"), InputError("400")])
def test_a_search_that_is_refused_after_a_lost_answer_does_not_claim_it_either(
    lab: Lab, api: Api, error: RainDeployError
) -> None:
    def make() -> str:
        return api.write("create-security-group", **GROUP).made

    def find() -> str | None:
        raise error

    lab.faults.cut("create-security-group")
    assert failing(lambda: api.made_once(find, make, what="group"), type(error), error.exit_code).accepted


def test_a_search_that_is_refused_after_a_name_was_taken_made_nothing(lab: Lab, api: Api) -> None:
    def find() -> str | None:
        raise CredentialsError("401")

    def make() -> str:
        return api.write("create-security-group", **GROUP).made

    lab.faults.status("create-security-group", 409, "it exists already")
    assert not failing(lambda: api.made_once(find, make, what="group"), CredentialsError, 20).accepted


# ---- no wait is silent


@pytest.mark.parametrize("wait", ["operation", "search", "in use", "rounds"])
def test_a_wait_of_more_than_three_seconds_says_once_what_is_waited_for(
    lab: Lab, api: Api, passing: Time, notices: list[str], wait: str
) -> None:
    def until_said(_request: object) -> None:
        assert passing.now_s < 1000 + 3 + 3.6 or notices

    lab.faults.call("*", until_said, times=None)
    if wait == "operation":
        lab.faults.outcome("create-security-group", "pending")
        operation = api.write("create-security-group", **GROUP)
        failing(lambda: api.wait(operation, what="the group"), ApiError, 22)
    elif wait == "search":
        lab.faults.html("create-security-group", 200, times=None)
        make = lambda: api.write("create-security-group", **GROUP).made  # noqa: E731
        failing(lambda: api.made_once(lambda: None, make, what="the group"), ApiError, 22)
    elif wait == "in use":
        lab.faults.status("delete-security-group", 409, "in use", times=20)
        api.delete("delete-security-group", "the group", id=NOWHERE)
    else:
        list(api.patience.rounds(60.0, "the group"))
    said = [each for each in notices if each.startswith("waiting for ")]
    assert len(said) == 1
    assert "the group" in said[0]


def test_a_wait_of_less_than_three_seconds_says_nothing(lab: Lab, api: Api, notices: list[str]) -> None:
    list(api.patience.rounds(2.5, "the group"))
    api.change("create-security-group", what="group", **GROUP)
    assert notices == []


def test_a_request_that_hangs_says_after_three_seconds_what_is_asked(
    lab: Lab, account: Account, notices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rain_deploy.providers.exoscale.patience.SILENT_S", 0.2)
    api = Api(account, notice=notices.append)
    lab.faults.hang("list-instances", 0.8, times=None)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: api.read("list-instances", zone="ch-dk-2"), range(4)))
    assert notices == ["waiting for Exoscale's API to answer list-instances (up to 30 s)"]


# ---- a command that only looks


@pytest.mark.parametrize("fault", ["503", "not reached", "silent"])
def test_a_view_gives_up_within_its_time_all_calls_together(
    lab: Lab, account: Account, patience: Patience, passing: Time, fault: str
) -> None:
    if fault == "not reached":
        with socket.socket() as taken:
            taken.bind((HOST, 0))
            account = replace(account, endpoint=f"http://{HOST}:{taken.getsockname()[1]}/v2")
    api = Api(account, patience=patience)
    if fault == "503":
        lab.faults.status("*", 503, times=None)
    elif fault == "silent":
        lab.faults.call("*", lambda _request: passing.pause(4.0), times=None)
        lab.faults.cut("*", times=None)
    began_s = passing.now_s
    with api.within(8.0):
        for operation in ("list-instances", "list-quotas", "list-security-groups"):
            failing(lambda operation=operation: api.read(operation, zone="ch-dk-2"), ApiError, 22)  # type: ignore[misc]
    assert passing.now_s - began_s < 10.0
    began_s = passing.now_s
    failing(lambda: api.read("list-quotas"), ApiError, 22)
    assert passing.now_s - began_s >= 150, "a command that changes something is patient"


@pytest.mark.parametrize("slow", ["resolver", "library"])
def test_a_view_gives_up_on_what_has_no_deadline_of_its_own(
    account: Account, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    over = threading.Event()

    def wait(*_arguments: object, **_more: object) -> Any:
        over.wait(30)
        raise OSError("no answer")

    class Slow(HTTPAdapter):
        send = wait

    if slow == "resolver":
        monkeypatch.setattr(socket, "getaddrinfo", wait)
    account = replace(account, endpoint="http://api.example/v2")
    api = Api(account, adapter=Slow if slow == "library" else None)
    began_s = time.monotonic()
    with api.within(2.0):
        for _ in range(3):
            failing(lambda: api.read("list-zones"), ApiError, 22)
    over.set()
    assert time.monotonic() - began_s < 10.0


def test_a_view_of_an_api_that_is_slow_and_answers_is_not_given_up(lab: Lab, api: Api, passing: Time) -> None:
    lab.faults.call("*", lambda _request: passing.pause(5.0), times=None)
    lab.faults.status("list-quotas", 503, times=1)
    with api.within(8.0):
        for operation in ("list-instances", "list-quotas", "list-security-groups"):
            api.read(operation, zone="ch-dk-2")


def test_row_23_an_unknown_state_is_no_success(lab: Lab, api: Api) -> None:
    operation = api.write("create-security-group", **GROUP)
    lab.faults.answer("get-operation", reply(200, {"id": operation.id, "state": "glorious"}), times=2)
    assert not api.is_done(operation)
    api.wait(operation, what="group")
    assert asked(lab, "get-operation") >= 3


def test_row_23_html_404_is_not_taken_for_absence(lab: Lab, api: Api) -> None:
    lab.faults.html("get-instance", 404, times=None)
    error = failing(lambda: api.read("get-instance", zone="ch-dk-2", id=NOWHERE), ApiError, 22)
    assert not isinstance(error, Absent)


def test_row_23_the_raw_answer_is_in_the_debug_log(
    lab: Lab, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "rain_deploy")
    lab.faults.html("list-instances")
    lab.faults.answer("list-instances", Reply(200, b'{"instances": [{"id": "half'), skip=1)
    api.read("list-instances", zone="ch-dk-2")
    assert HTML.decode().strip() in caplog.text
    assert '{"instances": [{"id": "half' in caplog.text
    lab.faults.answer("get-operation", reply(200, {"id": NOWHERE, "state": "glorious"}))
    api.wait(api.write("create-security-group", **GROUP), what="group")
    assert "glorious" in caplog.text


def test_a_write_that_was_never_sent_is_repeated_until_it_is(account: Account, patience: Patience) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        port = taken.getsockname()[1]
    api = Api(replace(account, endpoint=f"http://{HOST}:{port}/v2"), patience=patience)
    error = failing(lambda: api.write("create-security-group", **GROUP), ApiError, 22)
    assert not isinstance(error, Unclear)
    assert "not reached" in error.message
    with Lab(host=HOST, port=port) as late:
        account = replace(account, key=late.key, secret=late.secret, endpoint=late.url)
        Api(account, patience=patience).write("create-security-group", **GROUP)


# ---- rows 6, 7, 8: operations


def test_an_operation_that_is_final_in_the_first_answer_is_not_polled(lab: Lab, api: Api) -> None:
    api.wait(Operation("x", "success"), what="key")
    assert api.is_done(Operation("x", "success"))
    failing(lambda: api.wait(Operation("", "failure"), what="key"), PartlyUp, 23)
    failing(lambda: api.is_done(Operation("", "pending")), Unclear, 22)
    assert not lab.log


def test_polls_begin_soon_and_grow_to_three_seconds(lab: Lab, api: Api, passing: Time) -> None:
    lab.faults.outcome("create-security-group", "pending")
    operation = api.write("create-security-group", **GROUP)
    passing.paused.clear()
    error = failing(lambda: api.wait(operation, what="the group"), ApiError, 22)
    assert passing.paused[0] < 0.3
    assert 2.3 < max(passing.paused) < 3.7
    assert "the group" in error.message


def test_row_6_a_wait_ends_by_its_deadline_and_offers_down(lab: Lab, api: Api, passing: Time) -> None:
    lab.faults.outcome("create-security-group", "pending")
    operation = api.write("create-security-group", **GROUP)
    began_s = passing.now_s
    error = failing(lambda: api.wait(operation, what="the group"), ApiError, 22)
    assert 600 <= passing.now_s - began_s < 605
    assert "rain-deploy down" in (error.next_step or "")


REASONS = {
    "busy": (ApiError, 22),
    "unavailable": (ApiError, 22),
    "interrupted": (ApiError, 22),
    "conflict": (PartlyUp, 23),
    "fault": (PartlyUp, 23),
    "forbidden": (PartlyUp, 23),
    "incorrect": (PartlyUp, 23),
    "not-found": (PartlyUp, 23),
    "partial": (PartlyUp, 23),
    "unknown": (PartlyUp, 23),
    "unsupported": (PartlyUp, 23),
}


@pytest.mark.parametrize("reason", REASONS)
def test_row_7_each_reason_is_shown_with_the_clouds_words(lab: Lab, api: Api, reason: str) -> None:
    lab.faults.outcome("create-security-group", "failure", reason=reason, message="the very words")
    operation = api.write("create-security-group", **GROUP)
    error = failing(lambda: api.wait(operation, what="the group"), *REASONS[reason])
    assert reason in error.message
    assert "the very words" in error.message
    assert "the group" in error.message


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("Quota exceeded for instance", "a quota of the Exoscale account is used up"),
        ("instance limit reached", "a quota of the Exoscale account is used up"),
        ("Insufficient capacity in zone", "the zone has no room"),
        ("No more hosts available", "the zone has no room"),
    ],
)
def test_row_7_quota_and_capacity_are_told_apart_from_failures(
    lab: Lab, api: Api, words: str, meaning: str
) -> None:
    lab.faults.outcome("create-security-group", "failure", reason="unavailable", message=words)
    operation = api.write("create-security-group", **GROUP)
    error = failing(lambda: api.wait(operation, what="x"), QuotaError, 21)
    assert error.message.startswith(meaning)


def test_row_7_a_failure_without_a_reason(lab: Lab, api: Api) -> None:
    lab.faults.outcome("create-security-group", "failure")
    operation = api.write("create-security-group", **GROUP)
    error = failing(lambda: api.wait(operation, what="x"), PartlyUp, 23)
    assert "no reason was given" in error.message


def test_row_8_an_operation_that_times_out_may_still_come(lab: Lab, api: Api) -> None:
    lab.faults.outcome("create-security-group", "timeout", reason="unknown")
    operation = api.write("create-security-group", **GROUP)
    error = failing(lambda: api.wait(operation, what="x"), PartlyUp, 23)
    assert "may still come" in error.message


def test_an_operation_that_is_not_found_at_first_is_waited_for(lab: Lab, api: Api) -> None:
    lab.faults.status("get-operation", 404, times=3)
    api.wait(api.write("create-security-group", **GROUP), what="group")
    assert asked(lab, "get-operation") >= 4


# ---- refusals


def test_what_does_not_exist_is_absent(api: Api) -> None:
    failing(lambda: api.read("get-instance", zone="ch-dk-2", id=NOWHERE), Absent, 10)
    failing(lambda: api.write("delete-instance", zone="ch-dk-2", id=NOWHERE), Absent, 10)


@pytest.mark.parametrize(
    ("status", "words", "meaning"),
    [
        (400, "Cannot delete group when it's in use by virtual machines", "in_use"),
        (409, "busy", "in_use"),
        (412, "still referenced", "in_use"),
        (409, "Security Group name is already in use", "name_taken"),
        (400, "Invalid value in disk-size - should be an Integer between 10 51200", ""),
    ],
)
def test_a_refusal_tells_what_is_in_use(lab: Lab, api: Api, status: int, words: str, meaning: str) -> None:
    lab.faults.status("create-security-group", status, words)
    error = failing(lambda: api.write("create-security-group", **GROUP), Refused, 10)
    assert error.status == status
    assert [name for name in ("in_use", "name_taken") if getattr(error, name)] == meaning.split()
    assert words in error.message
    assert asked(lab, "create-security-group") == 1


def test_row_10_a_quota_that_is_used_up_says_what_to_do(lab: Lab, api: Api) -> None:
    lab.faults.status("create-security-group", 409, "Quota exceeded")
    error = failing(lambda: api.write("create-security-group", **GROUP), QuotaError, 21)
    assert "rain-deploy gc" in (error.next_step or "")


def test_an_operation_that_the_api_does_not_have_is_reported_at_once(lab: Lab, api: Api) -> None:
    error = failing(lambda: api.read("list-dbaas-services", zone="ch-dk-2"), ApiError, 22)
    assert "list-dbaas-services" in error.message
    assert asked(lab, "list-dbaas-services") == 1


def test_an_endpoint_without_v2_is_reported(lab: Lab, account: Account) -> None:
    api = Api(replace(account, endpoint=lab.url.removesuffix("/v2")))
    error = failing(lambda: api.read("list-instances", zone="ch-dk-2"), InputError, 10)
    assert "/v2" in (error.next_step or "")


@pytest.mark.parametrize("endpoint", ["127.3.0.1/v2", "ftp://127.3.0.1/v2", "http:///v2", "http://[/v2"])
def test_an_endpoint_that_is_no_address_is_reported_at_once(account: Account, endpoint: str) -> None:
    api = Api(replace(account, endpoint=endpoint))
    error = failing(api.zones, InputError, 10)
    assert "EXOSCALE_API_ENDPOINT" in (error.next_step or "")


def test_a_certificate_file_that_is_not_there_is_reported(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/absent/ca.pem")
    api = Api(replace(account, endpoint=f"https://{HOST}/v2"))
    error = failing(api.zones, InputError, 10)
    assert "/absent/ca.pem" in error.message


def test_the_clouds_words_are_reported_without_control_characters(lab: Lab, api: Api) -> None:
    lab.faults.status("create-security-group", 400, "no\x1b[31m\nred" + " word" * 1000)
    error = failing(lambda: api.write("create-security-group", **GROUP), Refused, 10)
    assert "no [31m red" in error.message
    assert len(error.message) < 600


def test_an_account_without_any_zone_is_reported(lab: Lab, api: Api) -> None:
    lab.faults.answer("list-zones", reply(200, {"zones": [{"name": "ch-dk-2"}]}), times=None)
    failing(api.zones, ApiError, 22)


# ---- rows 11, 12, 13: key and clock


@pytest.mark.parametrize("wrong", ["key", "secret"])
def test_row_11_a_wrong_key_names_where_it_came_from(account: Account, wrong: str) -> None:
    api = Api(replace(account, **{wrong: "EXOwrong"}))
    error = failing(lambda: api.read("list-quotas"), CredentialsError, 20)
    assert "EXOSCALE_API_KEY in the environment" in error.message
    assert "clock" not in error.message


def test_row_11_a_401_is_a_wrong_key_too(lab: Lab, api: Api) -> None:
    lab.faults.status("list-quotas", 401, "Unauthorized")
    failing(lambda: api.read("list-quotas"), CredentialsError, 20)


def test_row_11_a_key_without_the_right_is_told_which_one(lab: Lab, account: Account) -> None:
    api = Api(replace(account, key=lab.restricted_key, secret=lab.restricted_secret))
    error = failing(lambda: api.write("create-security-group", **GROUP), CredentialsError, 20)
    assert "may not do create-security-group" in error.message
    assert "role" in (error.next_step or "")


def test_row_12_a_key_that_expires_ends_a_wait_at_once(lab: Lab, api: Api) -> None:
    lab.faults.outcome("create-security-group", "pending")
    operation = api.write("create-security-group", **GROUP)
    lab.revoke(lab.key)
    failing(lambda: api.wait(operation, what="x"), CredentialsError, 20)
    assert asked(lab, "get-operation") == 1


@pytest.mark.parametrize(("offset_s", "words"), [(900, "15 minutes behind"), (-900, "15 minutes ahead of")])
def test_row_13_a_wrong_clock_is_called_that(lab: Lab, api: Api, offset_s: float, words: str) -> None:
    lab.faults.clock_offset_s = offset_s
    error = failing(lambda: api.read("list-quotas"), CredentialsError, 20)
    assert words in error.message
    assert "EXOSCALE_API_KEY" not in error.message


def test_row_13_nothing_is_created_by_a_wrong_clock_that_the_api_bears(lab: Lab, api: Api) -> None:
    lab.api.expiry_ahead_s = None
    group = api.write("create-security-group", **GROUP).reference
    lab.faults.clock_offset_s = -900
    assert api.read("list-instances", zone="ch-dk-2") == {"instances": []}
    error = failing(lambda: api.write("create-security-group", name="two"), CredentialsError, 20)
    assert "clock" in error.message
    assert asked(lab, "create-security-group") == 1
    api.wait(api.write("delete-security-group", id=group), what="removal")


@pytest.mark.parametrize("offset_s", [0, 60, -60])
def test_row_13_a_minute_is_no_wrong_clock(lab: Lab, api: Api, offset_s: float) -> None:
    lab.faults.clock_offset_s = offset_s
    api.write("create-security-group", **GROUP)
    assert abs(api.ahead_s or 0) < 62


@pytest.mark.parametrize(
    ("sent_s", "date_s", "ahead_s"), [(-900, -600, 0), (-900, -1500, 600), (-900, 600, -600), (0, 0, 0)]
)
def test_row_13_a_slow_answer_is_no_wrong_clock(sent_s: float, date_s: float, ahead_s: float) -> None:
    now_s = time.time()
    response = requests.Response()
    response.headers["Date"] = formatdate(now_s + date_s, usegmt=True)
    found = exoscale_answers.ahead_s(response, now_s + sent_s)
    assert found == pytest.approx(ahead_s, abs=2)


@pytest.mark.parametrize("date", ["", "yesterday", "Tue, 99 Foo 2026 11:00:00 GMT"])
def test_row_13_without_a_date_nothing_is_said_of_the_clock(date: str) -> None:
    response = requests.Response()
    response.headers["Date"] = date
    assert exoscale_answers.ahead_s(response, time.time()) is None


# ---- row 16: a closed laptop


def test_row_16_the_time_in_which_the_process_slept_does_not_count(lab: Lab, api: Api, passing: Time) -> None:
    def sleep(_request: object) -> None:
        passing.now_s += 3600

    operation = api.write("create-security-group", **GROUP)
    lab.faults.status("get-operation", 503, times=4)
    lab.faults.call("get-operation", sleep, times=3)
    api.wait(operation, what="group")
    lab.faults.status("list-instances", 503, times=4)
    lab.faults.call("list-instances", sleep, times=3)
    api.read("list-instances", zone="ch-dk-2")


def test_row_16_after_a_pause_in_which_the_process_slept_it_looks_again(passing: Time) -> None:
    slept = Patience(clock=lambda: passing.now_s, pause=lambda seconds: passing.pause(seconds + 600))
    watch = Watch(slept, 10)
    watch.pause(3)
    assert watch.left_s == 7
    passing.now_s += 8
    assert watch.left_s <= 0


# ---- secrets


def test_nothing_secret_is_logged_or_told(
    lab: Lab, account: Account, patience: Patience, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    data = "I2Nsb3VkLWNvbmZpZwo" * 40
    api = Api(account, patience=patience)
    lab.faults.status("list-instances", 400, f"Invalid value in user-data: {data}")
    told = str(failing(lambda: api.read("list-instances", zone="ch-dk-2"), Refused, 10))
    lab.faults.answer(
        "list-instances", Reply(200, json.dumps({"instances": [{"user-data": data}]}).encode()[:-3])
    )
    api.read("list-instances", zone="ch-dk-2")
    lab.faults.status("create-security-group", 500)
    told += str(failing(lambda: api.write("create-security-group", **GROUP), Unclear, 22))
    lab.revoke(lab.key)
    told += str(failing(lambda: api.read("list-quotas"), CredentialsError, 20))
    signatures = [
        request.headers["authorization"].rpartition("signature=")[2]
        for request in lab.log
        if "authorization" in request.headers
    ]
    assert len(signatures) >= 4
    for canary in (account.secret, data[:200], "EXO2-HMAC", *signatures):
        assert canary not in caplog.text + told + repr(account) + repr(api.__dict__)
