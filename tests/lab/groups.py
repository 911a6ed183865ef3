"""Operations of the organisation's own: SSH keys, security groups and their rules, anti-affinity groups."""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import time
from typing import Any

from tests.lab import store as world
from tests.lab.calls import Call, handles
from tests.lab.store import Change, Group, Key, RefusedError, Spread, Store, Vm

SPREAD_LIMIT = 8  # instances per anti-affinity group


# ---- SSH keys


def key_of(name: str, public_key: str, *, seeded: bool = False) -> Key:
    """Build a key; RefusedError for a text that is no OpenSSH public key."""
    words = public_key.split()
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (IndexError, binascii.Error):
        raise RefusedError(409, "Public key is invalid") from None
    if not blob[4:].startswith(words[0].encode()):
        raise RefusedError(409, "Public key is invalid")
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    fingerprint = ":".join(digest[n : n + 2] for n in range(0, 32, 2))
    return Key(name=name, fingerprint=fingerprint, public_key=public_key.strip(), seeded=seeded)


@handles("register-ssh-key")
def register_ssh_key(call: Call) -> Any:
    keys, name = call.store.keys, call.body["name"]
    if name in keys:
        raise RefusedError(409, "SSH key name is already in use")
    keys[name] = key_of(name, call.body["public-key"])
    return Change(id=name, at_once=True, undo=lambda: discard(keys, name))


@handles("list-ssh-keys")
def list_ssh_keys(call: Call) -> Any:
    return {"ssh-keys": [each.view() for each in call.listed(call.store.keys.values())]}


@handles("get-ssh-key")
def get_ssh_key(call: Call) -> Any:
    return known_key(call.store, call.request.parameters["name"]).view()


@handles("delete-ssh-key")
def delete_ssh_key(call: Call) -> Any:
    key = known_key(call.store, call.request.parameters["name"])
    return Change(id=key.name, at_once=True, effect=lambda: discard(call.store.keys, key.name))


def known_key(store: Store, name: str) -> Key:
    """Return the key; 404 else."""
    if name not in store.keys:
        raise world.absent("SSH key")
    return store.keys[name]


def discard(resources: dict[str, Any], key: str) -> None:
    """Remove it if it is there."""
    resources.pop(key, None)


# ---- security groups


@handles("create-security-group")
def create_security_group(call: Call) -> Any:
    groups, name = call.store.groups, call.body["name"]
    if any(each.name == name for each in groups.values()):
        raise RefusedError(409, "Security Group name is already in use")
    group = Group(name=name, description=call.body.get("description"))
    groups[group.id] = group
    return Change("get-security-group", group.id, undo=lambda: discard(groups, group.id))


@handles("list-security-groups")
def list_security_groups(call: Call) -> Any:
    if call.request.arguments.get("visibility") == "public":
        return {"security-groups": []}
    return {"security-groups": [each.view() for each in call.listed(call.store.groups.values())]}


@handles("get-security-group")
def get_security_group(call: Call) -> Any:
    return known_group(call.store, call.id).view()


@handles("delete-security-group")
def delete_security_group(call: Call) -> Any:
    group = known_group(call.store, call.id)
    status = call.faults.group_in_use_status
    freed_s = group.last_left_s + call.faults.group_in_use_s
    if time.time() < freed_s or any(group.id in vm.groups for vm in call.store.vms()):
        raise RefusedError(status, "Cannot delete group when it's in use by virtual machines")
    if any(_names(rule, group.id) for other in call.store.groups.values() for rule in _foreign(other, group)):
        raise RefusedError(status, "Cannot delete group when it's in use by other security groups")
    return Change("get-security-group", group.id, effect=lambda: discard(call.store.groups, group.id))


def _foreign(other: Group, group: Group) -> list[dict[str, Any]]:
    return [] if other is group else other.rules


def _names(rule: dict[str, Any], group_id: str) -> bool:
    return bool(rule.get("security-group", {}).get("id") == group_id)


def known_group(store: Store, group_id: str) -> Group:
    """Return the group; 404 else."""
    if group_id not in store.groups:
        raise world.absent("Security Group")
    return store.groups[group_id]


@handles("add-rule-to-security-group")
def add_rule(call: Call) -> Any:
    group = known_group(call.store, call.id)
    rule = {"id": world.new_id(), **checked_rule(call.store, call.body)}
    group.rules.append(rule)
    return Change("get-security-group", group.id, undo=lambda: _forget_rule(group, rule["id"]))


def checked_rule(store: Store, body: dict[str, Any]) -> dict[str, Any]:
    """Return the rule as it is kept; 400 for what cannot be one."""
    known = ("description", "flow-direction", "protocol", "icmp", "start-port", "end-port")
    rule = {name: body[name] for name in known if body.get(name) is not None}
    if ("network" in body) == ("security-group" in body):
        raise RefusedError(400, "one of network and security-group is needed")
    if body["protocol"] in {"tcp", "udp"} and not 1 <= body.get("start-port", 0) <= body.get("end-port", 0):
        raise RefusedError(400, "Invalid value in start-port, end-port")
    if "security-group" in body:
        group = known_group(store, body["security-group"].get("id", ""))
        return rule | {"security-group": {"id": group.id, "name": group.name}}
    try:
        return rule | {"network": str(ipaddress.ip_network(body["network"]))}
    except ValueError as error:
        raise RefusedError(400, f"Invalid value in network - {error}") from None


@handles("delete-rule-from-security-group")
def delete_rule(call: Call) -> Any:
    group, rule_id = known_group(call.store, call.id), call.request.parameters["rule-id"]
    if all(rule["id"] != rule_id for rule in group.rules):
        raise world.absent("Security Group rule")
    return Change("get-security-group", group.id, effect=lambda: _forget_rule(group, rule_id))


def _forget_rule(group: Group, rule_id: str) -> None:
    group.rules[:] = [rule for rule in group.rules if rule["id"] != rule_id]


@handles("attach-instance-to-security-group")
def attach(call: Call) -> Any:
    group, vm = known_group(call.store, call.id), _member(call)
    return Change("get-security-group", group.id, effect=lambda: _join(vm, group))


@handles("detach-instance-from-security-group")
def detach(call: Call) -> Any:
    group, vm = known_group(call.store, call.id), _member(call)
    if group.id not in vm.groups:
        raise RefusedError(400, "The instance is not in this security group")
    return Change("get-security-group", group.id, effect=lambda: vm.groups.remove(group.id))


def _member(call: Call) -> Vm:
    vm = call.zone.instances.get(call.body["instance"].get("id", ""))
    if vm is None:
        raise world.absent("Instance")
    return vm


def _join(vm: Vm, group: Group) -> None:
    if group.id not in vm.groups:
        vm.groups.append(group.id)


# ---- anti-affinity groups


@handles("create-anti-affinity-group")
def create_spread(call: Call) -> Any:
    spreads, name = call.store.spreads, call.body["name"]
    if any(each.name == name for each in spreads.values()):
        raise RefusedError(409, "Anti-affinity Group name is already in use")
    spread = Spread(name=name, description=call.body.get("description") or "")
    spreads[spread.id] = spread
    return Change("get-anti-affinity-group", spread.id, undo=lambda: discard(spreads, spread.id))


@handles("list-anti-affinity-groups")
def list_spreads(call: Call) -> Any:
    spreads = call.listed(call.store.spreads.values())
    return {"anti-affinity-groups": [each.view(members(call.store, each)) for each in spreads]}


@handles("get-anti-affinity-group")
def get_spread(call: Call) -> Any:
    spread = known_spread(call.store, call.id)
    return spread.view(members(call.store, spread))


@handles("delete-anti-affinity-group")
def delete_spread(call: Call) -> Any:
    spread = known_spread(call.store, call.id)
    if members(call.store, spread):
        raise RefusedError(409, "Cannot delete group when it's in use by virtual machines")
    return Change("get-anti-affinity-group", spread.id, effect=lambda: discard(call.store.spreads, spread.id))


def known_spread(store: Store, spread_id: str) -> Spread:
    """Return the group; 404 else."""
    if spread_id not in store.spreads:
        raise world.absent("Anti-affinity Group")
    return store.spreads[spread_id]


def members(store: Store, spread: Spread) -> list[str]:
    """Ids of a group's instances."""
    return [vm.id for vm in store.vms() if spread.id in vm.spreads]
