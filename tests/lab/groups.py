"""Mutations of the organisation's own: SSH keys, security groups with their rules, anti-affinity groups."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ipaddress
import time
from functools import partial
from typing import Any

from tests.lab.reads import Reads
from tests.lab.store import Change, Group, Key, RefusedError, Resource, Spread, new_id

RULE_KEYS = ("description", "flow-direction", "protocol", "icmp", "start-port", "end-port")
IN_USE = "Cannot delete group when it's in use by"


def key_of(name: str, public_key: str, *, seeded: bool = False) -> Key:
    """Build a key; RefusedError for a text that is no OpenSSH public key."""
    words, blob = public_key.split(), b""
    with contextlib.suppress(ValueError, IndexError):
        blob = base64.b64decode(words[1], validate=True)
    if not blob or not blob[4:].startswith(words[0].encode()):
        raise RefusedError(409, "Public key is invalid")
    fingerprint = hashlib.md5(blob, usedforsecurity=False).digest().hex(":")
    return Key(id=name, name=name, fingerprint=fingerprint, public_key=public_key.strip(), seeded=seeded)


class Groups(Reads):
    """Methods are named as the operations they answer."""

    def make(self, resource: Resource) -> Change:
        """Put it among its kind until its operation fails."""
        place = self.zone.kinds[resource.kind]
        place[resource.id] = resource
        return Change(resource, undo=partial(place.pop, resource.id, None))

    def remove(self, resource: Resource) -> Change:
        """Remove it once its operation succeeds."""
        return Change(resource, effect=partial(self.zone.kinds[resource.kind].pop, resource.id, None))

    def _free_name(self, kind: str, words: str) -> str:
        name: str = self.body["name"]
        if any(each.name == name for each in self.zone.kinds[kind].values()):
            raise RefusedError(409, f"{words} name is already in use")
        return name

    def register_ssh_key(self) -> Change:
        return self.make(key_of(self._free_name("ssh-key", "SSH key"), self.body["public-key"]))

    def delete_ssh_key(self) -> Change:
        return self.remove(self.find("ssh-key"))

    def create_security_group(self) -> Change:
        name = self._free_name("security-group", "Security Group")
        return self.make(Group(name=name, description=self.body.get("description")))

    def delete_security_group(self) -> Change:
        group: Group = self.find("security-group")
        freed_s = group.last_left_s + self.faults.group_in_use_s
        if time.time() < freed_s or any(group.id in vm.groups for vm in self.store.vms()):
            raise RefusedError(self.faults.group_in_use_status, f"{IN_USE} virtual machines")
        rules = (rule for each in self.store.groups.values() if each is not group for rule in each.rules)
        if any(rule.get("security-group", {}).get("id") == group.id for rule in rules):
            raise RefusedError(self.faults.group_in_use_status, f"{IN_USE} other security groups")
        return self.remove(group)

    def add_rule_to_security_group(self) -> Change:
        group: Group = self.find("security-group")
        rule = {"id": new_id(), **self._rule(self.body)}
        group.rules.append(rule)
        return Change(group, undo=partial(group.rules.remove, rule))

    def _rule(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return it as it is kept; 400 for what cannot be one."""
        rule = {name: body[name] for name in RULE_KEYS if body.get(name) is not None}
        if ("network" in body) == ("security-group" in body):
            raise RefusedError(400, "one of network and security-group is needed")
        first, last = body.get("start-port", 0), body.get("end-port", 0)
        if body["protocol"] in {"tcp", "udp"} and not 1 <= first <= last:
            raise RefusedError(400, "Invalid value in start-port, end-port")
        if "security-group" in body:
            group = self.find("security-group", body["security-group"].get("id", "none"))
            return rule | {"security-group": {"id": group.id, "name": group.name}}
        try:
            return rule | {"network": str(ipaddress.ip_network(body["network"]))}
        except ValueError as error:
            raise RefusedError(400, f"Invalid value in network - {error}") from None

    def delete_rule_from_security_group(self) -> Change:
        group: Group = self.find("security-group", self.request.parameters["id"])
        rule = next((each for each in group.rules if each["id"] == self.request.parameters["rule-id"]), None)
        if rule is None:
            raise RefusedError(404, "rule not found")
        return Change(group, effect=partial(group.rules.remove, rule))

    def attach_instance_to_security_group(self) -> Change:
        group, groups = self._membership()
        return Change(group, bool if group.id in groups else partial(groups.append, group.id))

    def detach_instance_from_security_group(self) -> Change:
        group, groups = self._membership()
        if group.id not in groups:
            raise RefusedError(400, "The instance is not in this security group")
        return Change(group, partial(groups.remove, group.id))

    def _membership(self) -> tuple[Group, list[str]]:
        vm = self.find("instance", self.body["instance"].get("id", "none"))
        return self.find("security-group"), vm.groups

    def create_anti_affinity_group(self) -> Change:
        name = self._free_name("anti-affinity-group", "Anti-affinity Group")
        return self.make(Spread(name=name, description=self.body.get("description") or ""))

    def delete_anti_affinity_group(self) -> Change:
        spread: Spread = self.find("anti-affinity-group")
        if spread.instances:
            raise RefusedError(409, f"{IN_USE} virtual machines")
        return self.remove(spread)
