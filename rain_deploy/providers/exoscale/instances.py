"""Instances: made once, waited for together, started, deleted until they are gone."""

import base64
import contextlib
import threading
from collections.abc import Callable, Collection
from pathlib import Path

from rain_deploy import workers
from rain_deploy.core.machine import GOING, Intent, Resource
from rain_deploy.core.text import owner_tag
from rain_deploy.errors import ApiError, DownIncomplete, PartlyUp, QuotaError, RainDeployError
from rain_deploy.providers.exoscale.answers import Absent, Operation
from rain_deploy.providers.exoscale.api import AT_ONCE, Api
from rain_deploy.providers.exoscale.catalog import Catalog
from rain_deploy.providers.exoscale.labels import Instance, expiry_label, in_order, instance_name, labels
from rain_deploy.providers.keys import public_key

UserData = Callable[..., bytes]


class Instances:
    """Thread-safe.  ``user_data`` renders what a machine does at its first boot."""

    def __init__(self, home: Path, api: Api, catalog: Catalog, user_data: UserData) -> None:
        self._home = home
        self._api = api
        self._catalog = catalog
        self._user_data = user_data
        self._operations: dict[str, Operation] = {}
        """By reference: begun by this process and not known to have ended."""

    def host_key(self, cluster_id: str, node: str) -> Path:
        """Return the file of a machine's first private host key; missing if another home made it."""
        return self._home / "clusters" / cluster_id / "host_keys" / node

    def create(
        self, intent: Intent, group: str, key: str, spread: str | None, *, unsettled_s: float | None
    ) -> str:
        """Return its reference ``zone/uuid`` as soon as its id is known; adopt an instance that exists."""
        machine = self._catalog.wanted(intent.machines)
        zone = machine.zone
        if unsettled_s is None and (ref := self._adopt(intent, zone)):
            return ref
        user_data = self._first_boot(intent, new_key=unsettled_s is None)
        body = {
            "name": instance_name(intent),
            "disk_size": machine.disk_size_gib,
            "instance_type": {"id": self._catalog.kind(machine.instance_type, zone).id},
            "template": {"id": self._catalog.template(machine.template, zone)["id"]},
            "ssh_keys": [{"name": key}],
            "security_groups": [{"id": group}],
            "anti_affinity_groups": [{"id": spread}] if spread else [],
            "public_ip_assignment": "inet4",
            "user_data": base64.b64encode(user_data).decode(),
            "labels": labels(intent),
        }

        def make() -> str:
            operation = self._api.write("create-instance", zone=zone, **body)
            ref = f"{zone}/{operation.made}"
            self._operations[ref] = operation
            return ref

        def find() -> str | None:
            return self._adopt(intent, zone, since_s=self._api.now_s)

        what = f"{intent.name} ({body['name']})"
        try:
            return self._api.made_once(find, make, what=what, unsettled_s=unsettled_s)
        except QuotaError as error:
            raise self._catalog.no_room(error, intent.machines) from error

    def _first_boot(self, intent: Intent, *, new_key: bool) -> bytes:
        """Return what the machine does at its first boot; make its host key."""
        host_key = self.host_key(intent.cluster_id, intent.name)
        for path in (host_key, host_key.with_name(f"{host_key.name}.pub")) if new_key else ():
            path.unlink(missing_ok=True)  # whoever was on an earlier machine may have read that key
        public = public_key(host_key)
        return self._user_data(
            host_key_private=host_key.read_text(encoding="ascii"),
            host_key_public=public,
            limit_s=intent.expires_s,
            idle_s=intent.machines.idle_s,
        )

    def revive(self, ref: str) -> bool:
        """Start it where it is stopped, without waiting.  Return False where it is gone or going."""

        def start() -> None:
            self._operations[ref] = self._api.write("start-instance", **_place(ref))

        try:
            found = self._read(ref)
        except Absent:
            return False
        if found.resource.state == "stopped":
            what = f"start of {found.name}"
            self._api.done_once(lambda: self._read(ref).resource.state != "stopped", start, what=what)
        return found.resource.state not in GOING

    def settle(
        self, resources: tuple[Resource, ...], broken: threading.Event | None = None
    ) -> dict[str, RainDeployError]:
        """Wait until all run, or ``broken`` is set.  Return by name the error of each that does not run."""
        errors: dict[str, RainDeployError] = {}
        waiting = resources
        what = f"{', '.join(each.name for each in resources)} to run at Exoscale"
        for _ in self._api.patience.rounds(self._api.patience.operation_s, what):
            since_s = self._api.now_s
            settled = workers.results(
                lambda each: self._is_settled(each, since_s, errors),  # noqa: B023
                *(waiting, AT_ONCE),
            )
            waiting = tuple(each for each, done in zip(waiting, settled, strict=True) if not done)
            if not waiting or (broken and broken.is_set()):
                break
        late = f"does not run {self._api.patience.operation_s:.0f} s after it was asked for"
        next_step = "rain-deploy status; rain-deploy down deletes it"
        for name in (each.name for each in waiting):
            errors[name] = ApiError(f"{name} {late}", node=name, next_step=next_step)
        return errors

    def existing(self, refs: Collection[str], since_s: float) -> dict[str, Instance]:
        """Return those that exist, by reference; one that its zone's list does not show is read singly."""
        zones = sorted({ref.partition("/")[0] for ref in refs})
        listed = {found.resource.ref: found for zone in zones for found in self._listed(zone, since_s)}
        existing = {}
        for ref in refs:
            with contextlib.suppress(Absent):
                existing[ref] = listed.get(ref) or self._read(ref)
        return existing

    def start(self, resource: Resource) -> None:
        """Start it and wait until it runs.  Raises PartlyUp, ApiError."""
        if not self.revive(resource.ref):
            raise gone(resource)
        for error in self.settle((resource,)).values():
            raise error

    def delete(self, ref: str, what: str) -> None:
        """Delete it and wait until a read answers 404: accepted is not gone.  Raises DownIncomplete."""
        self._operations.pop(ref, None)
        self._api.delete("delete-instance", what, **_place(ref))
        with contextlib.suppress(Absent):
            for _ in self._api.patience.rounds(self._api.patience.settle_s, f"{what} to be gone"):
                self._read(ref)
            message = f"{what}: its delete was accepted, but it is still there"
            raise DownIncomplete(message, next_step="the same command again, later")

    def set_expiry(self, resources: tuple[Resource, ...], expires_s: float | None) -> None:
        """Write the time limit into the labels.  Raises PartlyUp for one that is gone, after all others."""
        existing = self.existing([each.ref for each in resources], self._api.now_s)

        def relabel(found: Instance) -> None:
            """Replace the labels, which Exoscale takes only as a whole; ``found`` was read just before."""
            what, ref = f"labels of {found.name}", found.resource.ref
            wanted = {**found.labels, **expiry_label(expires_s)}
            if wanted != found.labels:
                self._api.done_once(
                    lambda: self._read(ref).labels == wanted,
                    lambda: self._api.change("update-instance", what=what, labels=wanted, **_place(ref)),
                    what=what,
                )

        workers.results(relabel, existing.values(), AT_ONCE)
        for each in resources:
            if each.ref not in existing:
                raise gone(each)

    def _listed(self, zone: str, since_s: float) -> tuple[Instance, ...]:
        rows = self._api.rows("list-instances", zone=zone, since_s=since_s)
        return tuple(Instance.parse(row, zone) for row in rows)

    def _read(self, ref: str) -> Instance:
        return Instance.parse(self._api.read("get-instance", **_place(ref)), ref.partition("/")[0])

    def _is_settled(self, resource: Resource, since_s: float, errors: dict[str, RainDeployError]) -> bool:
        """Return True if it runs, or if it never will: then ``errors`` says why."""
        try:
            operation = self._operations.get(resource.ref)
            if operation and not self._api.is_done(operation):
                return False
            self._operations.pop(resource.ref, None)
            found = self.existing((resource.ref,), since_s).get(resource.ref)
            if found is None or found.resource.state in GOING:
                raise gone(resource)
            if found.resource.state == "error":
                broken = f"{resource.name} came up in Exoscale's state error"
                raise PartlyUp(broken, next_step="rain-deploy up again")
        except RainDeployError as error:
            error.node = resource.name
            errors[resource.name] = error
            return True
        return found.resource.state == "running"

    def _adopt(self, intent: Intent, zone: str, *, since_s: float = 0.0) -> str | None:
        """Return the oldest instance that the labels give to this intent; start it if it is stopped."""
        wanted = owner_tag(intent.owner), intent.cluster_id, intent.name
        ours = [
            each.ours for each in self._listed(zone, since_s) if each.ours and each.ours.state not in GOING
        ]
        same = [each for each in ours if (each.owner, each.cluster_id, each.name) == wanted]
        return next(filter(self.revive, (each.ref for each in sorted(same, key=in_order))), None)


def _place(ref: str) -> dict[str, str]:
    zone, _, instance = ref.partition("/")
    return {"zone": zone, "id": instance}


def gone(resource: Resource) -> PartlyUp:
    """Return the error for a machine that is recorded and does not exist."""
    message = f"{resource.name} does not exist at Exoscale any more: somebody deleted it"
    return PartlyUp(message, node=resource.name, next_step="rain-deploy up makes it again")
