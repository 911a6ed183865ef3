"""Operations on instances and snapshots."""

from __future__ import annotations

import base64
import binascii
import re
import time
from functools import partial
from typing import Any

from tests.lab import catalogue, groups
from tests.lab import store as world
from tests.lab.calls import Call, handles
from tests.lab.machines import Instance
from tests.lab.store import Change, RefusedError, Snapshot, Vm

HOSTNAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9.-]{0,253}[a-zA-Z0-9])?")
LABEL = re.compile(r"[a-zA-Z0-9*+!_?-]{0,128}")  # of the documentation; a digit in front was accepted


def known(call: Call) -> Vm:
    """Return the instance of the path, which is of this zone; 404 else."""
    if call.id not in call.zone.instances:
        raise world.absent("Instance")
    return call.zone.instances[call.id]


@handles("list-instances")
def list_instances(call: Call) -> Any:
    filters = call.request.arguments
    if "labels" in filters:
        raise RefusedError(501, "list-instances: the labels filter is not documented and not modelled")
    if filters.keys() & {"manager-id", "manager-type"}:
        return {"instances": []}
    views = (vm.thin() for vm in call.listed(call.zone.instances.values()))
    address = filters.get("ip-address")
    return {"instances": [each for each in views if address in {None, each.get("public-ip")}]}


@handles("get-instance")
def get_instance(call: Call) -> Any:
    vm = known(call)
    return vm.view([each.id for each in call.zone.snapshots.values() if each.instance == vm.id])


# ---- create


@handles("create-instance")
def create_instance(call: Call) -> Any:
    body = call.body
    decoded = checked_user_data(body.get("user-data"))
    checked_labels(body.get("labels") or {})
    vm = Vm(
        zone=call.zone.name,
        name=checked_name(body.get("name") or f"instance-{world.new_id()[:8]}"),
        type_id=_type(call),
        template_id=_template(call),
        disk_gib=body["disk-size"],
        labels=dict(body.get("labels") or {}),
        user_data=body.get("user-data") or "",
        keys=_keys(call),
        groups=_groups(call),
        spreads=_spreads(call),
        assignment=body.get("public-ip-assignment") or "inet4",
    )
    family = call.store.types[vm.type_id]["family"]
    call.store.claim("instance")
    if family in catalogue.GPU_FAMILIES:
        call.store.claim(family)
    call.zone.instances[vm.id] = vm
    texts = tuple(call.store.keys[name].public_key for name in vm.keys)
    instance = Instance(vm.id, vm.name, decoded, texts)
    return Change(
        "get-instance",
        vm.id,
        effect=lambda: _boot(call, vm, instance, start=body.get("auto-start") is not False),
        undo=lambda: _forget(call, vm),
        wreck=partial(_set_state, vm, "error"),
    )


def _boot(call: Call, vm: Vm, instance: Instance, *, start: bool) -> None:
    with vm.machine:
        if vm.gone:
            return
        vm.address = call.machines.create(instance)
        vm.address_from_s = time.time() + call.faults.late_address_s
        if not start:
            call.machines.stop(vm.id)
        vm.state = "running" if start else "stopped"


def _type(call: Call) -> str:
    found = call.store.types.get(call.body["instance-type"].get("id", ""))
    if found is None:
        raise world.absent("Instance type")
    if not found["authorized"] or call.zone.name not in found["zones"]:
        raise RefusedError(400, f"Instance type {found['family']}.{found['size']} is not available here")
    return str(found["id"])


def _template(call: Call) -> str:
    found = call.zone.templates.get(call.body["template"].get("id", ""))
    if found is None:
        raise world.absent("Template")
    if call.body["disk-size"] * catalogue.GIB < found.size_bytes:
        raise RefusedError(400, "Invalid value in disk-size - smaller than the template")
    return found.id


def _keys(call: Call) -> list[str]:
    single = [call.body["ssh-key"]] if call.body.get("ssh-key") else []  # exo sends {} for none
    names = [each["name"] for each in [*single, *call.body.get("ssh-keys", ())] if each]
    return [groups.known_key(call.store, name).name for name in names]


def _groups(call: Call) -> list[str]:
    asked = [groups.known_group(call.store, each["id"]).id for each in call.body.get("security-groups", ())]
    return asked or [each.id for each in call.store.groups.values() if each.name == "default"]


def _spreads(call: Call) -> list[str]:
    asked = call.body.get("anti-affinity-groups", ())
    found = [groups.known_spread(call.store, each["id"]) for each in asked]
    if any(len(groups.members(call.store, each)) >= groups.SPREAD_LIMIT for each in found):
        raise RefusedError(409, f"Anti-affinity Group is full: {groups.SPREAD_LIMIT} instances")
    return [each.id for each in found]


def checked_name(name: str) -> str:
    """Return it; 400 for what is no host name, in the words of the real API."""
    if not HOSTNAME.fullmatch(name):
        raise RefusedError(400, "bad request")
    return name


def checked_labels(labels: dict[str, str]) -> None:
    """Refuse values outside of the documented characters."""
    for name, value in labels.items():
        if not LABEL.fullmatch(value):
            raise RefusedError(400, f"Invalid value in labels.{name}")


def checked_user_data(text: str | None) -> bytes:
    """Decode it; 400 for what is not base64 (its length is the specification's to check)."""
    try:
        return base64.b64decode(text or "", validate=True)
    except binascii.Error:
        raise RefusedError(400, "Invalid value in user-data - should be base64") from None


# ---- change and delete


@handles("update-instance")
def update_instance(call: Call) -> Any:
    """Replace name, labels (as a whole) and user-data at once, as the answer of the operation comes later."""
    vm, body = known(call), call.body
    checked_labels(body.get("labels") or {})
    checked_user_data(body.get("user-data"))
    before = (vm.name, vm.labels, vm.user_data)
    vm.name = checked_name(body.get("name") or vm.name)
    vm.labels = dict(body["labels"] or {}) if "labels" in body else vm.labels
    vm.user_data = body.get("user-data") or vm.user_data
    return Change("get-instance", vm.id, undo=lambda: _restore(vm, *before))


def _restore(vm: Vm, name: str, labels: dict[str, str], user_data: str) -> None:
    vm.name, vm.labels, vm.user_data = name, labels, user_data


@handles("delete-instance")
def delete_instance(call: Call) -> Any:
    vm = known(call)
    if vm.protected:
        raise RefusedError(409, "The instance is protected: remove the protection first")
    before = vm.state
    vm.state = "destroying"
    return Change(
        "get-instance",
        vm.id,
        effect=lambda: _destroy(call, vm),
        undo=partial(_set_state, vm, before),
        wreck=partial(_set_state, vm, "error"),
    )


def _destroy(call: Call, vm: Vm) -> None:
    with vm.machine:
        if not vm.gone:
            call.machines.delete(vm.id)
            _forget(call, vm)


def _forget(call: Call, vm: Vm) -> None:
    with call.store.lock:
        vm.gone = True
        call.zone.instances.pop(vm.id, None)
        for group_id in vm.groups:
            if group_id in call.store.groups:
                call.store.groups[group_id].last_left_s = time.time()


def _set_state(vm: Vm, state: str) -> None:
    vm.state = state


@handles("start-instance")
def start_instance(call: Call) -> Any:
    return _power(call, "starting", "running")


@handles("stop-instance")
def stop_instance(call: Call) -> Any:
    return _power(call, "stopping", "stopped")


@handles("reboot-instance")
def reboot_instance(call: Call) -> Any:
    return _power(call, "starting", "running", reboot=True)


def _power(call: Call, during: str, after: str, *, reboot: bool = False) -> Change:
    vm = known(call)
    before, vm.state = vm.state, during

    def effect() -> None:
        with vm.machine:
            if vm.gone:
                return
            if reboot or after == "stopped":
                call.machines.stop(vm.id)
            if after == "running":
                call.machines.start(vm.id)
            vm.state = after

    undo, wreck = partial(_set_state, vm, before), partial(_set_state, vm, "error")
    return Change("get-instance", vm.id, effect, undo, wreck, resource=not reboot)


@handles("add-instance-protection")
def add_protection(call: Call) -> Any:
    return _protect(call, protected=True)


@handles("remove-instance-protection")
def remove_protection(call: Call) -> Any:
    return _protect(call, protected=False)


def _protect(call: Call, *, protected: bool) -> Change:
    vm = known(call)
    vm.protected = protected
    return Change("get-instance", vm.id)


# ---- snapshots


@handles("create-snapshot")
def create_snapshot(call: Call) -> Any:
    vm = known(call)
    call.store.claim("snapshot")
    snapshot = Snapshot(name=f"{vm.name}_{world.rfc3339(time.time())}", instance=vm.id, size_gib=vm.disk_gib)
    call.zone.snapshots[snapshot.id] = snapshot

    def effect() -> None:
        snapshot.state = "exported"

    def undo() -> None:
        groups.discard(call.zone.snapshots, snapshot.id)

    return Change("get-snapshot", snapshot.id, effect, undo)


@handles("list-snapshots")
def list_snapshots(call: Call) -> Any:
    return {"snapshots": [each.view() for each in call.listed(call.zone.snapshots.values())]}


@handles("get-snapshot")
def get_snapshot(call: Call) -> Any:
    return _snapshot(call).view()


@handles("delete-snapshot")
def delete_snapshot(call: Call) -> Any:
    snapshot = _snapshot(call)
    return Change(
        "get-snapshot", snapshot.id, effect=lambda: groups.discard(call.zone.snapshots, snapshot.id)
    )


def _snapshot(call: Call) -> Snapshot:
    if call.id not in call.zone.snapshots:
        raise world.absent("Snapshot")
    return call.zone.snapshots[call.id]
