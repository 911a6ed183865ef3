from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from exoscale.api.exceptions import ExoscaleAPIClientException

from tests.lab.conftest import Account, ask
from tests.lab.lab import PUBLIC_KEY, Lab

UNKNOWN = "5c9b6a10-0000-4000-8000-000000000001"
IN_USE = "Cannot delete group when it's in use"


def refused(call: Callable[[], object]) -> tuple[int, dict[str, Any]]:
    """Status and body of the refusal."""
    with pytest.raises(ExoscaleAPIClientException) as caught:
        call()
    body: dict[str, Any] = caught.value.response.json()
    return caught.value.response.status_code, body


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"disk_size": 5}, 400, "should be an Integer between 10 51200"),
        ({"disk_size": 51201}, 400, "should be an Integer between 10 51200"),
        ({"disk_size": "20"}, 400, "Invalid value in disk-size"),
        ({"name": "with_underscore"}, 400, "bad request"),
        ({"name": "-front"}, 400, "bad request"),
        ({"user_data": "not base64!"}, 400, "user-data"),
        ({"user_data": base64.b64encode(bytes(24_600)).decode()}, 400, "user-data"),
        ({"labels": {"a": "with space"}}, 400, "labels.a"),
        ({"labels": {"a": "x" * 129}}, 400, "labels.a"),
        ({"labels": {"a": 1}}, 400, "labels.a"),
        ({"instance_type": {"id": UNKNOWN}}, 404, "instance-type"),
        ({"template": {"id": UNKNOWN}}, 404, "template"),
        ({"template": {"id": "no-uuid"}}, 400, "template.id"),
        ({"ssh_keys": [{"name": "unknown"}]}, 404, "ssh-key"),
        ({"security_groups": [{"id": UNKNOWN}]}, 404, "security-group"),
        ({"anti_affinity_groups": [{"id": UNKNOWN}]}, 404, "anti-affinity-group"),
        ({"public_ip_assignment": "many"}, 400, "public-ip-assignment"),
    ],
)
def test_a_create_that_cannot_be_is_refused_and_makes_nothing(
    lab: Lab, account: Account, change: dict[str, Any], status: int, message: str
) -> None:
    seen, body = refused(lambda: account.client.create_instance(**account.request(**change)))

    assert (seen, message in body["message"]) == (status, True), body
    assert lab.left() == ()


def test_missing_keys_are_named(account: Account) -> None:
    status, body = refused(lambda: account.client.create_instance(name="node-1"))

    assert status == 400
    assert body["message"] == "missing keys 'disk-size', 'instance-type', 'template'"
    assert body["errors"] == [{"message": body["message"]}]


def test_a_disk_smaller_than_the_template_is_refused(lab: Lab, account: Account) -> None:
    template = lab.seed_template("Large", size=50 * 2**30)

    call = account.request(template={"id": template.id})

    assert refused(lambda: account.client.create_instance(**call))[0] == 400


def test_a_body_that_is_no_json_is_refused(lab: Lab) -> None:
    assert ask(lab, "POST", "/v2/security-group", b"{").status_code == 400
    assert ask(lab, "POST", "/v2/security-group", b"[]").status_code == 400


def test_keys_that_nobody_documents_are_taken_as_exo_sends_them(account: Account) -> None:
    call = account.request(tpm_enabled=False, ssh_key={})
    call["template"] |= {"created-at": "0001-01-01T00:00:00Z"}
    call["instance_type"] |= {"authorized": True, "cpus": 2, "zones": ["ch-dk-2"]}

    assert account.client.create_instance(**call)["state"] == "pending"


@pytest.mark.parametrize("operation", ["get_instance", "get_security_group", "get_operation", "get_template"])
def test_unknown_ids_are_404_and_malformed_ones_400(account: Account, operation: str) -> None:
    call = getattr(account.client, operation)

    assert refused(lambda: call(id=UNKNOWN))[0] == 404
    assert refused(lambda: call(id="no-uuid"))[0] == 400


def test_names_of_keys_and_groups_are_given_once(account: Account) -> None:
    account.key("k1")
    account.group("rain")

    assert refused(lambda: account.client.register_ssh_key(name="k1", public_key=PUBLIC_KEY))[0] == 409
    status, body = refused(lambda: account.client.create_security_group(name="rain"))
    assert (status, body["message"]) == (409, "Security Group name is already in use")


@pytest.mark.parametrize("text", ["", "ssh-ed25519", "ssh-ed25519 !!", "ssh-rsa " + PUBLIC_KEY.split()[1]])
def test_a_public_key_that_is_none_is_refused(account: Account, text: str) -> None:
    status, body = refused(lambda: account.client.register_ssh_key(name="k1", public_key=text))

    assert (status, body["message"]) == (409, "Public key is invalid")


def test_a_name_of_a_key_keeps_to_the_pattern(account: Account) -> None:
    call = {"name": "with space", "public_key": PUBLIC_KEY}

    assert refused(lambda: account.client.register_ssh_key(**call))[0] == 400


@pytest.mark.parametrize(
    "change",
    [
        {"network": "not a network"},
        {"network": "192.0.2.1/24"},
        {},
        {"network": "192.0.2.1/32", "security_group": {"id": UNKNOWN}},
        {"network": "192.0.2.1/32", "start_port": 23},
        {"network": "192.0.2.1/32", "protocol": "carrier-pigeon"},
        {"network": "192.0.2.1/32", "end_port": 70000},
    ],
)
def test_a_rule_that_cannot_be_is_refused(account: Account, change: dict[str, Any]) -> None:
    group = account.group()
    rule = {"flow_direction": "ingress", "protocol": "tcp", "start_port": 22, "end_port": 22} | change

    assert refused(lambda: account.client.add_rule_to_security_group(id=group, **rule))[0] == 400
    assert "rules" not in account.client.get_security_group(id=group)


def test_a_group_is_in_use_while_it_has_instances_and_a_while_longer(lab: Lab, account: Account) -> None:
    group = account.group()
    vm = account.create(security_groups=[{"id": group}])
    status, body = refused(lambda: account.client.delete_security_group(id=group))
    assert (status, IN_USE in body["message"]) == (409, True)

    lab.faults.group_in_use_s = 60
    lab.faults.group_in_use_status = 412
    account.wait(account.client.delete_instance(id=vm))

    assert refused(lambda: account.client.delete_security_group(id=group))[0] == 412
    lab.faults.group_in_use_s = 0
    account.wait(account.client.delete_security_group(id=group))
    assert lab.left() == ()


def test_a_group_that_rules_of_another_name_is_in_use(account: Account) -> None:
    one, other = account.group("one"), account.group("other")
    account.client.add_rule_to_security_group(
        id=one,
        flow_direction="ingress",
        protocol="tcp",
        start_port=1,
        end_port=2,
        security_group={"id": other},
    )

    assert refused(lambda: account.client.delete_security_group(id=other))[0] == 409
    account.wait(account.client.delete_security_group(id=one))
    account.wait(account.client.delete_security_group(id=other))


def test_an_anti_affinity_group_takes_eight(account: Account) -> None:
    made = account.client.create_anti_affinity_group(name="spread")
    spread = made["reference"]["id"]
    one = account.request(anti_affinity_groups=[{"id": spread}])
    vms = [account.client.create_instance(**one)["reference"]["id"] for _ in range(8)]

    assert refused(lambda: account.client.create_instance(**one))[0] == 409
    assert [each["id"] for each in account.client.get_anti_affinity_group(id=spread)["instances"]] == vms
    assert refused(lambda: account.client.delete_anti_affinity_group(id=spread))[0] == 409


def test_a_quota_counts_all_zones_and_is_never_passed(lab: Lab, account: Account) -> None:
    lab.store.limits["instance"] = 2
    lab.seed_instance(zone="ch-gva-2")
    account.create()

    status, body = refused(lambda: account.client.create_instance(**account.request()))

    assert (status, "Quota exceeded" in body["message"]) == (409, True)
    assert account.client.get_quota(entity="instance") == {"resource": "instance", "limit": 2, "usage": 2}


def test_a_gpu_needs_authorization_and_quota() -> None:
    with Lab(latency_s=0) as lab:
        account = Account(lab)
        gpu = next(each for each in account.client.list_instance_types()["instance-types"] if "gpus" in each)
        assert gpu["authorized"] is False
        call = account.request(instance_type={"id": gpu["id"]})
        assert refused(lambda: account.client.create_instance(**call))[0] == 400

    with Lab(latency_s=0, authorized=frozenset({"gpu3"})) as lab:
        account = Account(lab)
        call = account.request(instance_type={"id": gpu["id"]})
        assert refused(lambda: account.client.create_instance(**call))[0] == 409
        lab.store.limits["gpu3"] = 1
        assert account.client.create_instance(**call)["state"] == "success"


def test_a_protected_instance_is_deleted_only_after_its_protection(lab: Lab, account: Account) -> None:
    vm = account.create()
    account.wait(account.client.add_instance_protection(id=vm))

    status, body = refused(lambda: account.client.delete_instance(id=vm))

    assert (status, "protect" in body["message"]) == (409, True)
    assert account.client.get_instance(id=vm)["state"] == "running"
    account.wait(account.client.remove_instance_protection(id=vm))
    account.wait(account.client.delete_instance(id=vm))
    assert lab.left() == ()


def test_the_filter_by_labels_is_not_modelled(account: Account) -> None:
    with pytest.raises(Exception, match="labels filter"):
        account.client.list_instances(labels="a:b")
