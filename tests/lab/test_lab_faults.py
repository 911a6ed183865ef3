from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from exoscale.api.exceptions import ExoscaleAPIClientException, ExoscaleAPIServerException

from tests.lab.conftest import Account
from tests.lab.lab import Lab
from tests.lab.machines import NoMachines
from tests.support.waiting import LONG_S, wait_for


def test_429_strikes_as_often_as_told_and_says_when_to_come_again(lab: Lab, account: Account) -> None:
    lab.faults.status("list-instances", 429, retry_after="7", times=2)

    for _ in range(2):
        with pytest.raises(ExoscaleAPIClientException) as caught:
            account.client.list_instances()
        assert caught.value.response.headers["Retry-After"] == "7"
    assert account.client.list_instances() == {"instances": []}
    assert [each.status for each in lab.log] == [429, 429, 200]


@pytest.mark.parametrize(("committed", "left"), [(False, 0), (True, 1)])
def test_an_error_comes_instead_of_the_effect_or_after_it(
    lab: Lab, account: Account, committed: bool, left: int
) -> None:
    lab.faults.html("create-security-group", 502, committed=committed)

    with pytest.raises(ExoscaleAPIServerException, match="Bad Gateway") as caught:
        account.client.create_security_group(name="rain")
    assert caught.value.response.headers["Content-Type"] == "text/html"
    assert len(lab.left()) == left


@pytest.mark.parametrize(("committed", "left"), [(False, 0), (True, 1)])
def test_a_cut_connection_leaves_the_effect_or_nothing(
    lab: Lab, account: Account, committed: bool, left: int
) -> None:
    lab.faults.cut("create-security-group", committed=committed)

    with pytest.raises(requests.exceptions.ConnectionError):
        account.client.create_security_group(name="rain")
    assert len(lab.left()) == left
    (request,) = lab.log
    assert request.status is None
    assert request.committed is committed
    assert account.client.list_ssh_keys() == {"ssh-keys": []}


def test_a_fault_behind_a_cut_waits_for_the_next_request(lab: Lab, account: Account) -> None:
    lab.faults.cut("create-security-group", committed=False)
    lab.faults.status("create-security-group", 409, "in use")

    with pytest.raises(requests.exceptions.ConnectionError):
        account.client.create_security_group(name="rain")
    with pytest.raises(ExoscaleAPIClientException, match="in use"):
        account.client.create_security_group(name="rain")


def test_truncated_json_comes_after_the_effect(lab: Lab, account: Account) -> None:
    lab.faults.truncate("create-security-group")

    with pytest.raises(requests.exceptions.JSONDecodeError):
        account.client.create_security_group(name="rain")
    assert len(lab.left()) == 1


def test_a_hang_ends_when_it_is_released(lab: Lab, account: Account) -> None:
    hang = lab.faults.hang("list-instances")

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(account.client.list_instances)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.1)
        hang.release()
        assert waiting.result(timeout=LONG_S) == {"instances": []}


def test_the_lab_ends_while_a_request_hangs() -> None:
    with ThreadPoolExecutor(1) as pool:
        with Lab() as lab:
            lab.faults.hang("list-instances")
            waiting = pool.submit(Account(lab).client.list_instances)
            while not lab.log:
                time.sleep(0.01)
        assert waiting.exception(timeout=LONG_S) is None or isinstance(waiting.exception(), OSError)


def test_a_barrier_holds_creates_until_all_are_in_flight(lab: Lab) -> None:
    lab.faults.barrier("create-instance", 4)
    call = Account(lab).request()

    with ThreadPoolExecutor(4) as pool:
        created = [pool.submit(Account(lab).client.create_instance, **call) for _ in range(4)]
        assert [each.result(timeout=LONG_S)["state"] for each in created] == ["pending"] * 4

    assert lab.log.peak("create-instance") == 4


def test_a_fault_is_for_some_requests_only(lab: Lab, account: Account) -> None:
    lab.faults.status("create-*", 500, times=None, skip=1, match=lambda request: request.json["name"] == "b")

    account.group("a")
    account.group("b")
    with pytest.raises(ExoscaleAPIServerException):
        account.group("b")
    assert account.group("c")
    lab.faults.clear()
    assert account.group("d")


@pytest.mark.parametrize("reason", ["busy", "conflict", "fault", None])
def test_a_failed_operation_leaves_nothing_and_may_have_no_reason(
    lab: Lab, account: Account, reason: str | None
) -> None:
    lab.faults.outcome("create-instance", "failure", reason=reason, message="no room")
    operation = account.client.create_instance(**account.request())

    ended = account.wait(operation)

    assert ended["state"] == "failure"
    assert ended.get("reason") == reason
    assert ended["message"] == "no room"
    assert lab.left() == ()


class Stuck(NoMachines):
    """Machines of which none can be deleted."""

    def delete(self, instance_id: str) -> None:
        raise RuntimeError(f"{instance_id} does not end")


def test_an_operation_whose_machine_cannot_be_worked_on_fails_and_does_not_stay_pending() -> None:
    with Lab(Stuck("127.1"), latency_s=0.02) as lab:
        account = Account(lab)
        made = account.create()

        ended = account.wait(account.client.delete_instance(id=made))

        assert (ended["state"], ended["message"]) == ("failure", f"{made} does not end")
        assert account.client.get_instance(id=made)["state"] == "error"


def test_an_instance_can_land_in_error(lab: Lab, account: Account) -> None:
    lab.faults.outcome("create-instance", "failure", reason="fault", effect="error")
    operation = account.client.create_instance(**account.request())

    account.wait(operation)

    assert account.client.get_instance(id=operation["reference"]["id"])["state"] == "error"
    account.wait(account.client.delete_instance(id=operation["reference"]["id"]))
    assert lab.left() == ()


def test_an_operation_times_out_and_the_instance_runs_later(lab: Lab, account: Account) -> None:
    lab.faults.outcome("create-instance", "timeout", effect_after_s=0.2)
    operation = account.client.create_instance(**account.request())

    assert account.wait(operation)["state"] == "timeout"

    vm = operation["reference"]["id"]
    assert account.client.get_instance(id=vm)["state"] == "starting"
    wait_for(lambda: account.client.get_instance(id=vm)["state"] == "running")


def test_an_operation_can_be_pending_for_ever(lab: Lab, account: Account) -> None:
    lab.faults.outcome("create-instance", "pending")
    operation = account.client.create_instance(**account.request())

    wait_for(lambda: lab.instances()[0].state == "running")

    assert account.client.get_operation(id=operation["id"])["state"] == "pending"


def test_a_delete_is_accepted_and_not_done(lab: Lab, account: Account) -> None:
    vm = account.create()
    lab.faults.outcome("delete-instance", "success", effect="none")

    assert account.wait(account.client.delete_instance(id=vm))["state"] == "success"

    assert account.client.get_instance(id=vm)["state"] == "running"
    account.wait(account.client.delete_instance(id=vm))
    assert lab.left() == ()


def test_a_new_instance_is_missing_from_a_stale_list_alone(lab: Lab, account: Account) -> None:
    lab.faults.list_lag_s["list-instances"] = 60
    vm = account.create()

    assert account.client.list_instances() == {"instances": []}
    assert account.client.get_instance(id=vm)["id"] == vm
    lab.faults.list_lag_s.clear()
    assert len(account.client.list_instances()["instances"]) == 1


def test_events_come_late_or_never(lab: Lab, account: Account) -> None:
    lab.faults.list_lag_s["list-events"] = 60
    account.group()

    assert account.client.list_events() == []


def test_an_address_comes_late(lab: Lab, account: Account) -> None:
    lab.faults.late_address_s = 0.3
    vm = account.create()
    assert "public-ip" not in account.client.get_instance(id=vm)

    wait_for(lambda: "public-ip" in account.client.get_instance(id=vm))


def test_a_test_is_called_before_the_effect_after_it_and_after_the_answer(lab: Lab, account: Account) -> None:
    seen: list[tuple[str, int]] = []
    answered = threading.Event()
    lab.faults.call("create-security-group", lambda _: seen.append(("before", len(lab.left()))))
    lab.faults.call(
        "create-security-group", lambda _: seen.append(("committed", len(lab.left()))), stage="committed"
    )
    lab.faults.call("create-security-group", lambda _: answered.set(), stage="answered")

    account.group()

    assert seen == [("before", 0), ("committed", 1)]
    assert answered.wait(5)


def test_deleting_an_instance_that_still_boots_leaves_no_machine(lab: Lab, account: Account) -> None:
    lab.api.latency_s = 0.1
    operation = account.client.create_instance(**account.request())

    lab.api.latency_s = 0.01
    account.wait(account.client.delete_instance(id=operation["reference"]["id"]))
    account.wait(operation)

    assert lab.left() == ()
    assert not lab.machines.running(operation["reference"]["id"])
