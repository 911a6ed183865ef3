"""Mutations of instances and snapshots."""

from __future__ import annotations

import base64
import re
import time
from functools import partial

from tests.lab import catalogue
from tests.lab.groups import Groups
from tests.lab.machines import Instance
from tests.lab.store import Change, RefusedError, Snapshot, Vm, new_id, rfc3339

HOSTNAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9.-]{0,253}[a-zA-Z0-9])?")
LABEL = re.compile(r"[a-zA-Z0-9*+!_?-]{0,128}")  # of the documentation; a digit in front was accepted
SPREAD_LIMIT = 8  # instances per anti-affinity group


class Operations(Groups):
    """All that is modelled; methods are named as the operations they answer."""

    def create_instance(self) -> Change:
        body, decoded = self.body, self._checked()
        vm = Vm(
            zone=self.zone.name,
            name=body.get("name") or f"instance-{new_id()[:8]}",
            type_id=self._type(),
            template_id=self._template(),
            disk_gib=body["disk-size"],
            labels=body.get("labels") or {},
            user_data=body.get("user-data") or "",
            keys=self._named("ssh-key", "name"),
            groups=self._named("security-group") or [self.store.default.id],
            spreads=self._named("anti-affinity-group"),
            assignment=body.get("public-ip-assignment") or "inet4",
        )
        self._spread(vm)
        self.make(vm)
        texts = tuple(self.store.keys[name].public_key for name in vm.keys)
        instance = Instance(vm.id, vm.name, decoded, texts)
        return Change(vm, partial(self._boot, vm, instance), partial(self._forget, vm))

    def _checked(self) -> bytes:
        """Refuse names, labels and user-data as the real API does; returns the user-data, decoded."""
        body = self.body
        if body.get("name") and not HOSTNAME.fullmatch(body["name"]):
            raise RefusedError(400, "bad request")
        for name, value in (body.get("labels") or {}).items():
            if not LABEL.fullmatch(value):
                raise RefusedError(400, f"Invalid value in labels.{name}")
        try:
            return base64.b64decode(body.get("user-data") or "", validate=True)
        except ValueError:
            raise RefusedError(400, "Invalid value in user-data - should be base64") from None

    def _type(self) -> str:
        found = self.find("instance-type", self.body["instance-type"].get("id", "none"))
        if not found.authorized or self.zone.name not in found.zones:
            raise RefusedError(400, f"Instance type {found.family}.{found.size} is not available here")
        self.store.claim("instance")
        self.store.claim(found.family)
        return str(found.id)

    def _template(self) -> str:
        found = self.find("template", self.body["template"].get("id", "none"))
        if self.body["disk-size"] * catalogue.GIB < found.size:
            raise RefusedError(400, "Invalid value in disk-size - smaller than the template")
        return str(found.id)

    def _named(self, kind: str, key: str = "id") -> list[str]:
        """Ids of what the body names in a list; exo sends a key of {} for none."""
        asked = (self.body.get(kind), *self.body.get(f"{kind}s", ()))
        return [self.find(kind, each[key]).id for each in asked if each]

    def _spread(self, vm: Vm) -> None:
        spreads = [self.store.spreads[each] for each in vm.spreads]
        if any(len(each.instances) >= SPREAD_LIMIT for each in spreads):
            raise RefusedError(409, f"Anti-affinity Group is full: {SPREAD_LIMIT} instances")
        for each in spreads:
            each.instances.append({"id": vm.id})

    def _boot(self, vm: Vm, instance: Instance) -> None:
        with vm.machine:
            if vm.gone:
                return
            vm.address = self.machines.create(instance)
            vm.address_from_s = time.time() + self.faults.late_address_s
            vm.state = "running"
            if self.body.get("auto-start") is False:
                self.machines.stop(vm.id)
                vm.state = "stopped"

    def _forget(self, vm: Vm) -> None:
        with self.store.lock:
            vm.gone = True
            self.zone.instances.pop(vm.id, None)
            for group in self.store.groups.values():
                group.last_left_s = time.time() if group.id in vm.groups else group.last_left_s
            for spread in self.store.spreads.values():
                spread.instances[:] = [each for each in spread.instances if each["id"] != vm.id]

    def update_instance(self) -> Change:
        """Labels are replaced as a whole; what is changed is seen before the operation's end."""
        vm, body = self.find("instance"), self.body
        self._checked()
        before = {"name": vm.name, "labels": vm.labels, "user_data": vm.user_data}
        vm.name, vm.user_data = body.get("name", vm.name), body.get("user-data", vm.user_data)
        vm.labels = body.get("labels", vm.labels) or {}
        return Change(vm, undo=partial(vars(vm).update, before))

    def delete_instance(self) -> Change:
        if self.find("instance").protected:
            raise RefusedError(409, "The instance is protected: remove the protection first")
        return self._become("destroying", "destroyed")

    def start_instance(self) -> Change:
        return self._become("starting", "running")

    reboot_instance = start_instance

    def stop_instance(self) -> Change:
        return self._become("stopping", "stopped")

    def _become(self, during: str, after: str) -> Change:
        vm = self.find("instance")
        before, vm.state = vm.state, during
        return Change(vm, partial(self._act, vm, after), partial(setattr, vm, "state", before))

    def _act(self, vm: Vm, after: str) -> None:
        with vm.machine:
            if vm.gone:
                return
            if after == "stopped" or self.request.operation == "reboot-instance":
                self.machines.stop(vm.id)
            if after == "running":
                self.machines.start(vm.id)
            if after == "destroyed":
                self.machines.delete(vm.id)
                self._forget(vm)
            vm.state = after

    def add_instance_protection(self) -> Change:
        vm = self.find("instance")
        vm.protected = self.request.operation.startswith("add")
        return Change(vm)

    remove_instance_protection = add_instance_protection

    def create_snapshot(self) -> Change:
        vm, now = self.find("instance"), rfc3339(time.time())
        self.store.claim("snapshot")
        snapshot = Snapshot(name=f"{vm.name}_{now}", zone=vm.zone, instance={"id": vm.id}, size=vm.disk_gib)
        snapshot.created_at = now
        return Change(snapshot, partial(setattr, snapshot, "state", "exported"), self.make(snapshot).undo)

    def delete_snapshot(self) -> Change:
        return self.remove(self.find("snapshot"))
