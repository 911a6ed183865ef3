"""Rows 1 to 23 of the fault matrix: what can go wrong while ``up`` asks a cloud for machines.

A second of a command lasts 1/60 of one here (commands).
"""

from __future__ import annotations

import signal
import socket
import time

import pytest

from rain_deploy.core.text import owner_tag
from tests.faults.account import CLUSTER, COLLEAGUE, OWNER, Account, Home, until
from tests.faults.commands import HASTE, Running
from tests.faults.link import Link
from tests.lab.faults import reply

REASONS = {
    "busy": 22,
    "conflict": 23,
    "fault": 23,
    "forbidden": 23,
    "incorrect": 23,
    "interrupted": 22,
    "not-found": 23,
    "partial": 23,
    "unavailable": 22,
    "unknown": 23,
    "unsupported": 23,
}
"""Every reason of the API's description -> exit code."""
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def in_create(cloud: Account, home: Home, nodes: int) -> Running:
    """An ``up`` with all of its creates in flight, which are answered when the lab's faults are cleared."""
    cloud.lab.faults.hang("create-instance", times=nodes)
    running = home.start("up", "--nodes", f"{nodes}")
    until(lambda: len(cloud.lab.log.of("create-instance")) == nodes, "the creates are sent")
    return running


# ---- 1 to 3: the outcome of a create is not known


@pytest.mark.parametrize("operation", ["register-ssh-key", "create-security-group", "create-instance"])
def test_row_01_a_create_whose_answer_is_lost_is_looked_for_and_not_repeated(
    operation: str, cloud: Account, me: Home
) -> None:
    cloud.lab.faults.cut(operation, committed=True)
    me.well("up", "--nodes", "2")
    assert len(cloud.lab.log.of("create-instance")) == 2
    assert len(cloud.lab.log.of("register-ssh-key", "create-security-group")) == 2
    me.converges("up", nodes=2)


def test_row_01_a_create_that_never_arrived_is_sent_again_after_the_search(cloud: Account, me: Home) -> None:
    cloud.lab.faults.cut("create-instance", committed=False)
    me.well("up", "--nodes", "2")
    first, *_, last = cloud.lab.log.of("create-instance")
    looks = [
        each for each in cloud.lab.log.of("list-instances") if first.began_s < each.began_s < last.began_s
    ]
    assert looks
    me.converges("up", nodes=2)


def test_row_01_a_create_that_shows_after_it_was_given_up_is_removed_too(cloud: Account, me: Home) -> None:
    cloud.lab.faults.list_lag_s["list-instances"] = 3600.0
    cloud.lab.faults.cut("create-instance", committed=True)
    me.well("up", "--nodes", "1")
    assert me.nodes() == ["node-1", "node-1"]
    cloud.lab.faults.list_lag_s.clear()
    me.check_in_sight()
    me.goes_down()


@pytest.mark.parametrize("write", range(10, 60, 9))
def test_row_02_killed_at_a_write_on_disk_it_is_found_or_removed(
    write: int, cloud: Account, me: Home
) -> None:
    killed = me.run("up", "--nodes", "2", killed_at_write=write)
    assert killed.status == -signal.SIGKILL, str(killed)
    me.check_in_sight()
    if write % 2:
        me.converges("up", "--nodes", "2", nodes=2)
    else:
        me.goes_down()


def test_row_03_an_instance_that_no_list_shows_for_90_seconds_is_waited_for(cloud: Account, me: Home) -> None:
    cloud.lab.faults.list_lag_s["list-instances"] = 90 / HASTE
    cloud.lab.faults.cut("create-instance", committed=True)
    me.well("up", "--nodes", "1", settle_s=120.0, api_s=150.0)
    assert len(cloud.lab.log.of("create-instance")) == 1
    me.converges("up", nodes=1)


def test_row_03_an_intent_without_outcome_is_not_dropped_while_lists_lag(cloud: Account, me: Home) -> None:
    cloud.lab.faults.list_lag_s["list-instances"] = 90 / HASTE
    running = in_create(cloud, me, 1)
    running.signal(signal.SIGKILL)
    assert running.wait().status == -signal.SIGKILL
    cloud.lab.faults.clear()
    cloud.wait_until_quiet()
    assert me.nodes() == ["node-1"]
    me.well("up", settle_s=120.0, api_s=150.0)
    me.converges("up", nodes=1)


REFUSED = {
    "401": (401, "Unauthorized", 20),
    "signature": (403, "Invalid request signature", 20),
    "role": (403, "Forbidden by role policy for compute - A deny rule matched. Rule index: 0", 20),
    "wrong": (400, "Invalid value in user-data", 10),
    "quota": (409, "Quota exceeded", 21),
}


@pytest.mark.parametrize("how", REFUSED)
@pytest.mark.parametrize("operation", ["register-ssh-key", "create-security-group", "create-instance"])
def test_a_create_that_is_refused_is_not_looked_for(
    operation: str, how: str, cloud: Account, me: Home
) -> None:
    status, words, code = REFUSED[how]
    cloud.lab.faults.status(operation, status, words, times=None)
    done = me.ends(code, "up", "--nodes", "2", settle_s=120.0)
    last = cloud.lab.log.of(operation)[-1]
    looks = [each for each in cloud.lab.log.of("list-instances") if each.began_s > last.began_s]
    zones = {each.zone for each in looks}
    assert len(looks) <= 3 * len(zones), "what it deletes is listed, and listed again"
    assert "waiting for" not in done.err
    assert cloud.ours() == []


def test_a_search_for_a_lost_create_says_what_is_looked_for(cloud: Account, me: Home) -> None:
    cloud.lab.faults.cut("create-instance", committed=False)
    done = me.well("up", "--nodes", "1")
    assert "waiting for Exoscale's lists to show node-1" in " ".join(done.err.split())


@pytest.mark.parametrize("verb", ["status", "list", "zones", "types", "gc", "check", "up --dry-run"])
def test_a_command_that_only_looks_gives_up_soon_where_the_api_does_not_answer(
    verb: str, cloud: Account, me: Home
) -> None:
    me.well("up", "--nodes", "1")
    cloud.lab.faults.status("*", 503, "down for maintenance", times=None)
    asked = len(cloud.lab.log)
    began_s = time.monotonic()
    done = me.run(*verb.split(), api_s=3600.0)
    assert time.monotonic() - began_s < 30, "one of the two deadlines: an hour is a minute here"
    assert done.status in {0, 20, 22}, str(done)
    assert "down for maintenance" in " ".join((done.out + done.err).split())
    assert len(cloud.lab.log) > asked
    if verb in {"status", "list"}:
        assert done.status == 0
        assert "showing what was recorded at" in " ".join((done.out + done.err).split())
    cloud.lab.faults.clear()
    me.goes_down()


# ---- 4 and 5: the API asks to wait, or does not work


def test_row_04_it_waits_as_long_as_it_is_told_to_and_says_so_in_one_line(cloud: Account, me: Home) -> None:
    cloud.lab.faults.status("create-instance", 429, retry_after="30", times=2)
    done = me.well("up", "--nodes", "2")
    refused, again = (
        [each for each in cloud.lab.log.of("create-instance") if (each.status == 429) is told]
        for told in (True, False)
    )
    assert len(refused) == len(again) == 2
    assert min(each.began_s for each in again) >= min(each.began_s for each in refused) + 30 / HASTE
    assert done.err.count("asks to wait") == 1
    me.converges("up", nodes=2)


@pytest.mark.parametrize("status", [500, 503])
def test_row_05_two_minutes_without_a_working_api_are_endured(status: int, cloud: Account, me: Home) -> None:
    fault = cloud.lab.faults.status("*", status, times=None)
    running = me.start("up", "--nodes", "1", api_s=300.0)
    until(lambda: fault.struck > 0, "a request meets the outage")
    time.sleep(120 / HASTE)
    fault.release()
    assert running.wait().status == 0
    me.has(1)
    me.goes_down()


def test_row_05_a_create_that_failed_is_looked_for_before_it_is_repeated(cloud: Account, me: Home) -> None:
    cloud.lab.faults.status("create-instance", 500, committed=True)
    cloud.lab.faults.status("create-instance", 503, skip=1)
    me.well("up", "--nodes", "2")
    assert len(cloud.lab.log.of("create-instance")) == 3
    me.converges("up", nodes=2)


def test_row_05_an_api_that_never_works_ends_it_before_anything_is_made(cloud: Account, me: Home) -> None:
    cloud.lab.faults.status("*", 503, times=None)
    me.ends(22, "up", "--nodes", "2")
    assert cloud.ours() == []
    me.converges("up", "--nodes", "2", nodes=2)


def test_row_05_creates_that_never_work_end_it_and_what_was_made_is_removed(cloud: Account, me: Home) -> None:
    cloud.lab.faults.status("create-instance", 503, times=None, skip=1)
    me.ends(22, "up", "--nodes", "2")
    assert cloud.ours() == []
    me.converges("up", "--nodes", "2", nodes=2)


# ---- 6 to 9: the operation behind a create does not end well


def test_row_06_an_operation_that_never_ends_is_given_up_and_its_machine_removed(
    cloud: Account, me: Home
) -> None:
    cloud.lab.faults.outcome("create-instance", "pending", effect_after_s=600.0)
    me.ends(22, "up", "--nodes", "2")
    assert cloud.ours() == []
    me.converges("up", "--nodes", "2", nodes=2)


def test_row_06_an_operation_that_never_ends_leaves_its_id_on_record_with_keep_partial(
    cloud: Account, me: Home
) -> None:
    cloud.lab.faults.outcome("create-instance", "pending", effect_after_s=600.0)
    done = me.ends(22, "up", "--nodes", "2", "--keep-partial")
    assert f"rain-deploy down -c {CLUSTER}" in done.err
    me.has(2)
    me.goes_down()


@pytest.mark.parametrize(("reason", "status"), REASONS.items())
def test_row_07_why_an_operation_failed_is_reported(
    reason: str, status: int, cloud: Account, me: Home
) -> None:
    cloud.lab.faults.outcome("create-instance", "failure", reason=reason, message="no luck", times=None)
    done = me.ends(status, "up", "--nodes", "1")
    assert reason in done.err
    assert "no luck" in done.err
    assert cloud.ours() == []


def test_row_07_a_quota_is_told_apart_from_other_failures(cloud: Account, me: Home) -> None:
    said = "Quota exceeded for instance: limit 20"
    cloud.lab.faults.outcome("create-instance", "failure", reason="conflict", message=said, times=None)
    assert "quota" in me.ends(21, "up", "--nodes", "1").err
    me.converges("up", "--nodes", "1", nodes=1)


def test_row_08_a_machine_that_runs_after_its_operation_timed_out_is_seen_and_removed(
    cloud: Account, me: Home
) -> None:
    cloud.lab.faults.outcome("create-instance", "timeout", effect_after_s=0.5, times=None)
    me.ends(23, "up", "--nodes", "1", "--keep-partial")
    until(lambda: cloud.vm("node-1").state == "running", "the machine runs after all")
    me.check_in_sight()
    shown = me.well("status").out
    assert "node-1: its machine runs" in shown
    assert "0.0495 CHF per hour" in shown
    me.goes_down()


def test_row_08_without_keep_partial_a_timed_out_machine_does_not_stay(cloud: Account, me: Home) -> None:
    cloud.lab.faults.outcome("create-instance", "timeout", effect_after_s=0.5, times=None)
    me.ends(23, "up", "--nodes", "1")
    time.sleep(0.6)
    assert cloud.ours() == []
    me.converges("up", "--nodes", "1", nodes=1)


def test_row_09_a_machine_in_state_error_is_replaced_once(cloud: Account, me: Home) -> None:
    cloud.lab.faults.outcome("create-instance", "success", effect="error")
    me.well("up", "--nodes", "2")
    assert len(cloud.lab.log.of("create-instance")) == 3
    assert {vm.state for vm in cloud.lab.instances()} == {"running"}
    me.converges("up", nodes=2)


def test_row_09_a_second_machine_in_state_error_is_reported(cloud: Account, me: Home) -> None:
    cloud.lab.faults.outcome("create-instance", "success", effect="error", times=None)
    assert "state error" in me.ends(23, "up", "--nodes", "1").err
    assert len(cloud.lab.log.of("create-instance")) == 2
    assert cloud.ours() == []
    me.converges("up", "--nodes", "1", nodes=1)


# ---- 10 to 13: the account or the clock does not let it


def test_row_10_a_quota_that_ends_at_the_third_node_of_five_removes_the_two(cloud: Account, me: Home) -> None:
    cloud.lab.faults.status("create-instance", 409, "Quota exceeded for instance", skip=2, times=None)
    me.ends(21, "up", "--nodes", "5")
    assert len([each for each in cloud.lab.log.of("create-instance") if each.committed]) == 2
    assert cloud.ours() == []
    me.converges("up", "--nodes", "2", nodes=2)


def test_row_10_with_keep_partial_the_two_stay_on_record(cloud: Account, me: Home) -> None:
    cloud.lab.faults.status("create-instance", 409, "Quota exceeded for instance", skip=2, times=None)
    me.ends(21, "up", "--nodes", "5", "--keep-partial")
    assert len(me.nodes()) == 2
    me.converges("up", "--nodes", "5", nodes=5)


def test_row_10_a_quota_that_is_known_before_costs_no_create(cloud: Account, me: Home) -> None:
    cloud.lab.store.limits["instance"] = 4  # two are used
    me.ends(21, "up", "--nodes", "3")
    assert cloud.creates() == []


@pytest.mark.parametrize("key", ["wrong", "expired", "restricted"])
def test_row_11_a_key_that_is_refused_is_named_before_anything_is_made(
    key: str, cloud: Account, me: Home
) -> None:
    lab = cloud.lab
    other, secret = lab.add_key()
    if key == "wrong":
        me.environ = {"EXOSCALE_API_SECRET": "not-the-secret"}
    if key == "expired":
        me.environ = {"EXOSCALE_API_KEY": other, "EXOSCALE_API_SECRET": secret}
        lab.revoke(other)
    if key == "restricted":
        me.environ = {
            "EXOSCALE_API_KEY": lab.restricted_key,
            "EXOSCALE_API_SECRET": lab.restricted_secret,
        }
    done = me.run("up", "--nodes", "2")
    me.environ = {}
    me.check(done, 20)
    assert "EXOSCALE_API_KEY" in done.err
    assert cloud.ours() == []
    me.converges("up", "--nodes", "2", nodes=2)


def test_row_12_a_key_that_expires_after_the_second_node_stops_and_tells_what_runs(
    cloud: Account, me: Home
) -> None:
    lab = cloud.lab
    kept = lab.keys[lab.key]
    lab.faults.call("create-instance", lambda _request: lab.revoke(lab.key), skip=2)
    lab.faults.answer(
        "create-instance", reply(403, {"message": "Invalid request signature"}), skip=2, times=None
    )
    done = me.run("up", "--nodes", "4")
    lab.keys[lab.key] = kept
    me.check(done, 20)
    assert len(me.nodes()) == 2
    assert f"next: rain-deploy down -c {CLUSTER}" in done.err
    me.goes_down()


@pytest.mark.parametrize("minutes", [15, -15])
def test_row_13_a_clock_that_is_15_minutes_off_is_called_the_clock(
    minutes: int, cloud: Account, me: Home
) -> None:
    cloud.lab.faults.clock_offset_s = 60.0 * minutes
    done = me.run("up", "--nodes", "2")
    cloud.lab.faults.clock_offset_s = 0.0
    me.check(done, 20)
    assert "clock" in done.err
    assert "secret" not in done.err
    assert cloud.creates() == []
    me.converges("up", "--nodes", "2", nodes=2)


# ---- 14 to 17: the operator's side stops, sleeps, or is cut off


@pytest.mark.parametrize(("number", "status"), SIGNALS.items())
def test_row_14_one_signal_lets_the_create_in_flight_end_and_undoes_it(
    number: int, status: int, cloud: Account, me: Home
) -> None:
    running = in_create(cloud, me, 2)
    asked = len(cloud.lab.log.changes)
    running.signal(number)
    time.sleep(0.2)
    assert running.process.poll() is None
    assert len(cloud.lab.log.changes) == asked, "it did not wait for the creates in flight"
    cloud.lab.faults.clear()
    me.check(running.wait(), status)
    creates = cloud.lab.log.of("create-instance")
    assert all(each.status == 200 for each in creates)
    assert len(cloud.lab.log.of("delete-instance")) == len(creates)
    assert cloud.ours() == []
    me.converges("up", "--nodes", "2", nodes=2)


@pytest.mark.parametrize("first", SIGNALS)
def test_row_15_a_ctrl_c_after_a_signal_leaves_at_once_and_loses_nothing(
    first: int, cloud: Account, me: Home
) -> None:
    running = in_create(cloud, me, 2)
    asked = len(cloud.lab.log.changes)
    running.signal(first)
    running.signal(signal.SIGINT)
    done = running.wait()
    assert done.status == 130
    assert len(cloud.lab.log.changes) == asked
    assert "rain-deploy down" in done.err
    cloud.lab.faults.clear()
    cloud.wait_until_quiet()
    assert me.nodes() == ["node-1", "node-2"]
    me.check_in_sight()
    me.converges("up", "--nodes", "2", nodes=2)


def test_row_16_a_laptop_that_slept_for_minutes_goes_on(cloud: Account, me: Home) -> None:
    with Link(cloud.port) as link:
        cloud.behind(link)
        cloud.lab.faults.outcome("create-instance", "success", effect_after_s=5.5)
        running = me.start("up", "--nodes", "1", operation_s=240.0)
        until(lambda: len(cloud.lab.log.of("list-instances")) > 4, "it waits for the machine")
        running.signal(signal.SIGSTOP)
        link.cut()
        time.sleep(300 / HASTE)  # longer than any of its deadlines
        link.open()
        running.signal(signal.SIGCONT)
        done = running.wait()
        assert done.status == 0, str(done)
        me.converges("up", nodes=1)


def test_row_17_a_network_that_comes_back_is_waited_for(cloud: Account, me: Home) -> None:
    with Link(cloud.port) as link:
        cloud.behind(link)
        cloud.lab.faults.call("create-instance", lambda _request: link.cut(), stage="committed")
        running = me.start("up", "--nodes", "2", api_s=300.0, settle_s=120.0)
        until(lambda: bool(cloud.lab.log.of("create-instance")), "a create is sent")
        time.sleep(60 / HASTE)
        link.open()
        done = running.wait()
        assert done.status == 0, str(done)
        me.converges("up", nodes=2)


def test_row_17_a_network_that_stays_lost_ends_it_with_everything_on_record(cloud: Account, me: Home) -> None:
    with Link(cloud.port) as link:
        cloud.behind(link)
        cloud.lab.faults.call("create-instance", lambda _request: link.cut(), stage="committed", skip=1)
        done = me.run("up", "--nodes", "2")
        link.open()
        me.check(done, 22)
        assert len(me.nodes()) == 2
        me.converges("up", "--nodes", "2", nodes=2)


def test_row_17_an_api_that_accepts_and_never_answers_is_given_up(cloud: Account, me: Home) -> None:
    cloud.lab.faults.hang("*", times=None, match=lambda request: request.operation != "list-zones")
    done = me.start("up", "--nodes", "1", answer_s=0.2).wait()
    me.check(done, 22)
    assert cloud.ours() == []
    me.converges("up", "--nodes", "1", nodes=1)


# ---- 18 to 22: what is there already, and what is asked for


def test_row_18_the_same_cluster_again_makes_no_second_set(cloud: Account, me: Home) -> None:
    me.well("up", "--nodes", "2")
    changes = len(cloud.lab.log.changes)
    assert "nothing had to be changed" in me.well("up", "--nodes", "2").out
    assert len(cloud.lab.log.changes) == changes
    me.converges("up", nodes=2)


def test_row_19_a_name_that_a_colleague_uses_is_refused_and_nothing_touched(cloud: Account, me: Home) -> None:
    cloud.seed_of_colleague(CLUSTER)
    done = me.ends(10, "up", "--nodes", "2")
    assert owner_tag(COLLEAGUE) in done.err
    assert cloud.lab.log.changes == []


def test_row_20_two_commands_at_once_one_tells_who_holds_the_cluster(cloud: Account, me: Home) -> None:
    running = in_create(cloud, me, 2)
    for verb in ("up", "down"):
        second = me.start(verb).wait()
        assert second.status == 11, str(second)
        assert "`up`" in second.err
        assert f"process {running.process.pid} on {socket.gethostname()}, for " in second.err
    cloud.lab.faults.clear()
    assert running.wait().status == 0
    me.converges("up", nodes=2)


def test_row_20_two_laptops_at_once_keep_apart_what_is_whose(cloud: Account, me: Home) -> None:
    other = cloud.home()
    cloud.lab.faults.barrier("list-quotas", 2)  # asked for after each has seen that the name is free
    both = [home.start("up", "--nodes", "1") for home in (me, other)]
    for done in [running.wait() for running in both]:
        assert done.status == 0, str(done)
    assert me.nodes() == ["node-1", "node-1"]
    other.well("down")
    me.has(1)
    me.goes_down()


@pytest.mark.parametrize("kind", ["ssh-key", "security-group"])
def test_row_21_what_a_past_run_left_under_our_name_is_in_nobodys_way(
    kind: str, cloud: Account, me: Home
) -> None:
    name = f"rain-deploy_{owner_tag(OWNER)}_{CLUSTER}_{me.store.next_cluster_id(CLUSTER)}"
    if kind == "ssh-key":
        cloud.lab.seed_key(name)
    else:
        cloud.lab.seed_group(name)
    me.well("up", "--nodes", "1")
    (vm,) = (vm for vm in cloud.lab.instances() if not vm.seeded)
    if kind == "ssh-key":
        assert vm.keys == [f"{name}_2"]
    else:
        assert [cloud.lab.store.groups[each].name for each in vm.groups] == [name]
    me.converges("up", nodes=1)
    assert cloud.things() == cloud.foreign


@pytest.mark.parametrize(
    ("flag", "wrong", "valid"),
    [
        ("--zone", "ch-nowhere-9", "ch-gva-2"),
        ("--instance-type", "standard.enormous", "standard.medium"),
        ("--template", "No Such Linux", "Linux Debian 12 (Bookworm) 64-bit"),
    ],
)
def test_row_22_what_is_not_offered_is_refused_with_what_is(
    flag: str, wrong: str, valid: str, cloud: Account, me: Home
) -> None:
    done = me.ends(10, "up", "--nodes", "2", flag, wrong)
    assert wrong in done.err
    assert valid in done.err
    assert cloud.creates() == []


# ---- 23: answers that say nothing


@pytest.mark.parametrize("status", [200, 502])
def test_row_23_a_page_of_html_is_an_unknown_outcome_and_kept_in_the_log(
    status: int, cloud: Account, me: Home
) -> None:
    cloud.lab.faults.html("create-instance", status, times=None)
    done = me.ends(22, "up", "--nodes", "1")
    assert "<html>" not in done.err
    assert "502 Bad Gateway</h1>" in me.logs()
    assert cloud.ours() == []
    me.converges("up", "--nodes", "1", nodes=1)


def test_row_23_half_an_answer_is_an_unknown_outcome_and_the_machine_adopted(
    cloud: Account, me: Home
) -> None:
    cloud.lab.faults.truncate("create-instance")
    me.well("up", "--nodes", "2")
    assert len(cloud.lab.log.of("create-instance")) == 2
    me.converges("up", nodes=2)


def test_row_23_an_operation_in_an_unknown_state_is_an_unknown_outcome(cloud: Account, me: Home) -> None:
    cloud.lab.faults.outcome("create-instance", "bewitched")
    me.ends(22, "up", "--nodes", "1")
    assert "bewitched" in me.logs()
    assert cloud.ours() == []
    me.converges("up", "--nodes", "1", nodes=1)
