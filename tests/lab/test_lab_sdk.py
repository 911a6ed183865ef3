from __future__ import annotations

import pytest
from exoscale.api.exceptions import ExoscaleAPIClientException

from tests.lab import spec
from tests.lab.conftest import Account, ask
from tests.lab.lab import Lab
from tests.lab.machines import NoMachines


def _documented(operation: str, value: object) -> object:
    """Return an answer after it was compared with what the specification promises of it."""
    items = (each for path in spec.document()["paths"].values() for each in path.values())
    found = next(each for each in items if isinstance(each, dict) and each.get("operationId") == operation)
    schema = found["responses"]["200"]["content"]["application/json"]["schema"]
    assert [error.message for error in spec.validator(schema).iter_errors(value)] == []
    return value


def test_an_instance_lives_as_documented_from_create_to_delete(lab: Lab, account: Account) -> None:
    client, key, group = account.client, account.key(), account.group()
    operation = client.create_instance(
        **account.request(
            ssh_keys=[{"name": key}],
            security_groups=[{"id": group}],
            labels={"rain-deploy": "v1"},
            user_data="I2Nsb3VkLWNvbmZpZwo=",
        )
    )
    assert operation["state"] == "pending"
    assert operation["reference"]["command"] == "get-instance"
    vm = operation["reference"]["id"]
    assert client.get_instance(id=vm)["state"] == "starting"
    assert _documented("get-operation", account.wait(operation))

    whole = client.get_instance(id=vm)
    _documented("get-instance", whole)
    assert whole["state"] == "running"
    assert whole["public-ip"] == "127.1.0.1"
    assert whole["labels"] == {"rain-deploy": "v1"}
    assert whole["instance-type"].keys() == whole["template"].keys() == {"id"}
    assert whole["secureboot-enabled"] is whole["tpm-enabled"] is False
    thin = client.list_instances()["instances"][0]
    assert not thin.keys() & {"disk-size", "user-data", "anti-affinity-groups"}
    assert thin.items() <= whole.items()

    account.wait(client.delete_instance(id=vm))
    with pytest.raises(ExoscaleAPIClientException, match="404"):
        client.get_instance(id=vm)
    assert {each.kind for each in lab.left()} == {"ssh-key", "security-group"}
    assert all(each.signed and each.documented for each in lab.log)


def test_answers_have_the_documented_shape(lab: Lab, account: Account) -> None:
    client, vm, group = account.client, account.create(), account.group()
    account.key()
    account.wait(client.create_anti_affinity_group(name="spread"))
    account.wait(
        client.add_rule_to_security_group(
            id=group,
            flow_direction="ingress",
            protocol="tcp",
            start_port=22,
            end_port=22,
            network="192.0.2.1/32",
        )
    )
    account.wait(client.create_snapshot(id=vm))

    lists = "zones templates instance-types quotas ssh-keys security-groups anti-affinity-groups instances"
    for each in [
        *lists.split(),
        *["snapshots", "events", "instance-pools", "private-networks", "deploy-targets"],
    ]:
        _documented(f"list-{each}", getattr(client, f"list_{each.replace('-', '_')}")())
    _documented("get-security-group", client.get_security_group(id=group))
    _documented("get-quota", client.get_quota(entity="instance"))


def test_an_answer_of_a_key_is_final_and_refers_to_nothing(account: Account) -> None:
    answer = account.client.register_ssh_key(name="k1", public_key=PUBLIC)

    assert answer.keys() == {"id", "state"}
    assert answer["state"] == "success"
    assert account.client.get_ssh_key(name="k1").keys() == {"name", "fingerprint"}
    assert account.client.delete_ssh_key(name="k1").keys() == {"id", "state"}
    assert account.client.list_ssh_keys() == {"ssh-keys": []}


PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJm0pzdDL4Uuil0OQLlmD1UMZwYqdkM0bEBS0HLu9UsE a comment\n"


def test_start_and_stop_tell_a_resource_instead_of_a_reference(account: Account) -> None:
    vm = account.create()

    answer = account.client.stop_instance(id=vm)

    assert answer["resource"] == {"id": vm, "type": "instance"}
    assert "reference" not in answer
    account.wait(answer)
    assert account.client.get_instance(id=vm)["state"] == "stopped"
    account.wait(account.client.start_instance(id=vm))
    assert account.client.get_instance(id=vm)["state"] == "running"
    assert "reference" in account.client.reboot_instance(id=vm)


def test_zones_keep_their_own_instances_and_the_organisation_its_groups(lab: Lab) -> None:
    one, other = (Account(lab, lab.api.zone_urls[zone]) for zone in ("ch-dk-2", "ch-gva-2"))
    vm, group = one.create(), one.group()

    assert other.client.list_instances() == {"instances": []}
    with pytest.raises(ExoscaleAPIClientException, match="404"):
        other.client.get_instance(id=vm)
    with pytest.raises(ExoscaleAPIClientException, match="404"):
        other.client.create_instance(**one.request())  # a template's id is of its zone
    assert other.client.get_security_group(id=group)["name"] == "rain"
    assert Account(lab).client.get_instance(id=vm)["id"] == vm  # no prefix: the default zone


def test_a_group_has_no_rules_until_it_has_some(account: Account) -> None:
    client, group = account.client, account.group()
    assert client.get_security_group(id=group).keys() == {"id", "name", "visibility"}

    added = client.add_rule_to_security_group(
        id=group,
        flow_direction="ingress",
        protocol="tcp",
        start_port=7210,
        end_port=7210,
        security_group={"id": group},
        description="rain",
    )

    assert added["reference"]["id"] == group
    account.wait(added)
    (rule,) = client.get_security_group(id=group)["rules"]
    assert rule["security-group"] == {"id": group, "name": "rain"}
    account.wait(client.delete_rule_from_security_group(id=group, rule_id=rule["id"]))
    assert "rules" not in client.get_security_group(id=group)


def test_labels_are_replaced_as_a_whole(account: Account) -> None:
    vm = account.create(labels={"a": "1", "b": "2"})

    account.wait(account.client.update_instance(id=vm, labels={"a": "3"}))

    assert account.client.get_instance(id=vm)["labels"] == {"a": "3"}


def test_an_event_tells_from_where_a_group_was_created(lab: Lab, account: Account) -> None:
    account.group("rain-deploy_x")

    (event,) = account.client.list_events()

    assert event["source-ip"] == "127.0.0.1"
    assert event["body-params"] == {"name": "rain-deploy_x"}
    assert event["handler"] == "create-security-group"
    assert event["uri"] == "/v2/security-group"
    assert account.client.list_events(**{"from": "2999-01-01T00:00:00Z"}) == []


def test_addresses_of_a_small_pool_are_used_again() -> None:
    with Lab(NoMachines("127.1", size=1), latency_s=0) as lab:
        account = Account(lab)
        first = account.create()
        address = account.client.get_instance(id=first)["public-ip"]
        account.client.delete_instance(id=first)

        again = account.create()

        assert account.client.get_instance(id=again)["public-ip"] == address
        ended = account.client.create_instance(**account.request("one-too-many"))
        assert ended["state"] == "failure"
        assert ended["reason"] == "unavailable"


def test_no_latency_ends_operations_in_their_first_answer() -> None:
    with Lab(latency_s=0) as lab:
        account = Account(lab)
        operation = account.client.create_instance(**account.request())

        assert operation["state"] == "success"
        assert account.client.wait(operation["id"])["state"] == "success"
        assert account.client.get_instance(id=operation["reference"]["id"])["state"] == "running"


def test_a_machine_that_powers_itself_off_is_a_stopped_instance(lab: Lab, account: Account) -> None:
    vm = account.create()
    assert isinstance(lab.machines, NoMachines)

    lab.machines.power_off(vm)

    assert account.client.get_instance(id=vm)["state"] == "stopped"
    account.wait(account.client.start_instance(id=vm))
    assert lab.machines.running(vm)


def test_seeded_resources_are_seen_by_clients_and_told_apart(lab: Lab, account: Account) -> None:
    lab.seed_instance(name="colleague", labels={"rain-deploy-owner": "o-other"}, zone="ch-gva-2")
    lab.seed_key("theirs")
    lab.seed_group("their-group")
    lab.seed_template("GPU image", visibility="private", default_user="ubuntu")
    elsewhere = Account(lab, lab.api.zone_urls["ch-gva-2"])

    (vm,) = elsewhere.client.list_instances()["instances"]

    assert vm["labels"] == {"rain-deploy-owner": "o-other"}
    assert [each["name"] for each in account.client.list_ssh_keys()["ssh-keys"]] == ["theirs"]
    (template,) = account.client.list_templates(visibility="private")["templates"]
    assert template["name"] == "GPU image"
    assert len(lab.left()) == 3
    assert lab.left(seeded=False) == ()


def test_what_is_not_modelled_says_so(lab: Lab, account: Account) -> None:
    with pytest.raises(Exception, match=r"501.*list-sks-clusters is not modelled"):
        account.client.list_sks_clusters()
    assert lab.log[0].documented


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/nonsense"),
        ("POST", "/v2/instance/{id}:start"),
        ("GET", "/nowhere/v2/instance"),
        ("GET", "/"),
    ],
)
def test_what_is_not_documented_is_404_and_marked(lab: Lab, method: str, path: str) -> None:
    identity = "5c9b6a10-0000-4000-8000-000000000001"

    assert ask(lab, method, path.format(id=identity)).status_code == 404
    assert not lab.log[0].documented


def test_the_log_tells_what_was_asked(lab: Lab, account: Account) -> None:
    group = account.group("rain")

    (request,) = lab.log.of("create-security-group")

    assert request.json == {"name": "rain"}
    assert request.committed
    assert request.made == group
    assert request.status == 200
    assert request.zone == "ch-dk-2"
    assert "python-requests" in request.headers["user-agent"]
    assert request.ended_s is not None
    assert request.ended_s >= request.began_s
