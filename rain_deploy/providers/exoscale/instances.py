"""Instances: made once, waited for together, started, deleted until they are observed to be gone."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rain_deploy.core.machine import Intent, Resource
from rain_deploy.core.owner import owner_tag
from rain_deploy.errors import ApiError, PartlyUp, QuotaError, RainDeployError
from rain_deploy.providers.exoscale.api import Api
from rain_deploy.providers.exoscale.catalog import Catalog
from rain_deploy.providers.exoscale.deleting import await_absence, delete
from rain_deploy.providers.exoscale.errors import Absent
from rain_deploy.providers.exoscale.listing import READ_S, Listings, made_once, rounds
from rain_deploy.providers.exoscale.names import expiry_label, found_instance, in_order, instance_name, labels
from rain_deploy.providers.keys import public_key

AT_ONCE = 16
"""Requests of one command that wait for answers at the same time."""
_GOING = frozenset({"destroying", "destroyed", "expunging"})
UserData = Callable[..., bytes]
Row = dict[str, Any]


class Instances:
    """Thread-safe.  ``user_data``: renders what a machine does at its first boot."""

    def __init__(
        self, home: Path, api: Api, listings: Listings, catalog: Catalog, user_data: UserData
    ) -> None:
        self._home = home
        self._api = api
        self._listings = listings
        self._catalog = catalog
        self._user_data = user_data
        self._operations: dict[str, Mapping[str, Any]] = {}
        """By reference: what was begun in this process and not seen to end."""

    def host_keys(self, cluster_id: str, node: str) -> tuple[str, ...]:
        """What the machine shows at its first boot; none where this home did not make it."""
        private = self._host_key(cluster_id, node)
        return (public_key(private),) if private.exists() else ()

    def _host_key(self, cluster_id: str, node: str) -> Path:
        return self._home / "clusters" / cluster_id / "host_keys" / node

    def create(
        self, intent: Intent, group: str, key: str, spread: str | None, *, unsettled_s: float | None
    ) -> str:
        """Its reference ``zone/uuid``, as soon as its id is known; what is there already is adopted."""
        machine = self._catalog.wanted(intent.machines)
        zone = machine.zone
        if unsettled_s is None and (ref := self._adopt(intent, zone, self._listings.rows)):
            return ref
        if unsettled_s is None:
            self._forget_host_key(intent)
        body = self._body(intent, group, key, spread)
        try:
            return made_once(
                self._api,
                find=lambda: self._adopt(intent, zone, self._listings.now),
                make=lambda: self._post(zone, body),
                what=f"{intent.name} ({body['name']})",
                unsettled_s=unsettled_s,
            )
        except QuotaError as error:
            error.next_step = self._catalog.elsewhere(machine.instance_type, zone) or error.next_step
            raise

    def revive(self, ref: str) -> bool:
        """Start it where it is stopped, without waiting; False where it is gone or going."""
        try:
            row = self._read(ref)
        except Absent:
            return False
        if row.get("state") == "stopped":
            made_once(
                self._api,
                lambda: self._read(ref).get("state") != "stopped" or None,
                lambda: self._begin(ref, "start-instance"),
                what=f"start of {row['name']}",
                settle_s=READ_S,
            )
        return row.get("state") not in _GOING

    def settle(self, resources: tuple[Resource, ...]) -> dict[str, RainDeployError]:
        """Wait until each runs; why not, by name, for those that do not."""
        errors: dict[str, RainDeployError] = {}
        waiting = {ref.name: ref for ref in resources}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in rounds(self._api, self._api.patience.operation_s):
                since = self._api.patience.clock()
                looks = [pool.submit(self._look, ref, since, errors) for ref in waiting.values()]
                for ref in [
                    ref for ref, look in zip([*waiting.values()], looks, strict=True) if look.result()
                ]:
                    del waiting[ref.name]
                if not waiting:
                    break
        for ref in waiting.values():
            errors[ref.name] = ApiError(
                f"{ref.name} does not run {self._api.patience.operation_s:.0f} s after it was asked for",
                node=ref.name,
                next_step="rain-deploy status; rain-deploy down removes it",
            )
        return errors

    def rows(self, refs: Collection[str], since: float) -> dict[str, Row]:
        """Those that exist, by reference: a zone in one call, and singly what a list does not show yet."""
        zones = sorted({ref.partition("/")[0] for ref in refs})
        listed = {
            f"{zone}/{row['id']}": row
            for zone in zones
            for row in self._listings.rows("list-instances", zone=zone, since=since)
        }
        found = {}
        for ref in refs:
            with contextlib.suppress(Absent):
                found[ref] = listed.get(ref) or self._read(ref)
        return found

    def start(self, ref: Resource) -> None:
        """Until it runs.  Raises PartlyUp, ApiError."""
        if not self.revive(ref.ref):
            raise gone(ref)
        for error in self.settle((ref,)).values():
            raise error

    def delete(self, ref: str, what: str) -> None:
        """Until it is observed to be gone.  Raises DownIncomplete."""
        zone, _, instance = ref.partition("/")
        self._operations.pop(ref, None)
        delete(self._api, "delete-instance", what, zone=zone, id=instance)
        await_absence(self._api, "get-instance", what, zone=zone, id=instance)

    def set_expiry(self, resources: tuple[Resource, ...], expires_s: float | None) -> None:
        """Labels are replaced as a whole, so they are read just before.  At last PartlyUp for a lost one."""
        rows = self.rows([ref.ref for ref in resources], self._api.patience.clock())
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(lambda ref: self._relabel(ref, rows[ref], expires_s), rows):
                pass
        for ref in resources:
            if ref.ref not in rows:
                raise gone(ref)

    def _relabel(self, ref: str, row: Row, expires_s: float | None) -> None:
        told = {**row.get("labels", {}), **expiry_label(expires_s)}
        if told == row.get("labels"):
            return
        what = f"labels of {row['name']}"

        def write() -> bool:
            zone, _, instance = ref.partition("/")
            operation = self._api.write("update-instance", zone=zone, id=instance, labels=told)
            self._api.wait(operation, what=what, zone=zone)
            return True

        made_once(
            self._api,
            lambda: self._read(ref).get("labels") == told or None,
            write,
            what=what,
            settle_s=READ_S,
        )

    def _read(self, ref: str) -> Row:
        zone, _, instance = ref.partition("/")
        row: Row = self._api.read("get-instance", zone=zone, id=instance)
        return row

    def _begin(self, ref: str, operation: str) -> bool:
        zone, _, instance = ref.partition("/")
        self._operations[ref] = self._api.write(operation, zone=zone, id=instance)
        return True

    def _look(self, ref: Resource, since: float, errors: dict[str, RainDeployError]) -> bool:
        """Whether nothing is left to wait for: it runs, or ``errors`` has why it never will."""
        try:
            return self._ended(ref.ref) and self._runs(ref, since)
        except RainDeployError as error:
            error.node = ref.name
            errors[ref.name] = error
            return True

    def _ended(self, ref: str) -> bool:
        """Whether what this process began there has ended; an operation that is forgotten has."""
        operation = self._operations.get(ref)
        if operation is None:
            return True
        try:
            if self._api.look(operation, zone=ref.partition("/")[0]) == "pending":
                return False
        except Absent:
            pass
        self._operations.pop(ref, None)
        return True

    def _runs(self, ref: Resource, since: float) -> bool:
        row = self.rows((ref.ref,), since).get(ref.ref)
        if row is None or row.get("state") in _GOING:
            raise gone(ref)
        state = row.get("state", "")
        if state == "error":
            raise PartlyUp(f"{ref.name} came up in Exoscale's state error", next_step="rain-deploy up again")
        return bool(state == "running")

    def _body(self, intent: Intent, group: str, key: str, spread: str | None) -> Row:
        host_key = self._host_key(intent.cluster_id, intent.name)
        host_key.parent.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        host_key.parent.mkdir(exist_ok=True, mode=0o700)
        public = public_key(host_key)
        user_data = self._user_data(
            host_key_private=host_key.read_text(encoding="ascii"),
            host_key_public=public,
            limit_s=intent.expires_s,
            idle_s=intent.machines.idle_s,
        )
        return {
            "name": instance_name(intent),
            **self._catalog.request(self._catalog.wanted(intent.machines)),
            "ssh_keys": [{"name": key}],
            "security_groups": [{"id": group}],
            "anti_affinity_groups": [{"id": spread}] if spread else [],
            "public_ip_assignment": "inet4",
            "user_data": base64.b64encode(user_data).decode(),
            "labels": labels(intent),
        }

    def _post(self, zone: str, body: Row) -> str:
        operation = self._api.write("create-instance", zone=zone, **body)
        ref = f"{zone}/{operation['reference']['id']}"
        self._operations[ref] = operation
        return ref

    def _adopt(self, intent: Intent, zone: str, listing: Callable[..., tuple[Row, ...]]) -> str | None:
        """The oldest of this intent by its labels, as ``listing`` tells; stopped ones are started."""
        mine = owner_tag(intent.owner), intent.cluster_id, intent.name
        same = [
            found
            for row in listing("list-instances", zone=zone)
            if (found := found_instance(row, zone, {}))
            and found.state not in _GOING
            and (found.owner, found.cluster_id, found.name) == mine
        ]
        refs = (found.ref for found in sorted(same, key=in_order))
        return next(filter(self.revive, refs), None)

    def _forget_host_key(self, intent: Intent) -> None:
        """A new machine has a new key: user-data of the old one told the old one's to whoever was on it."""
        private = self._host_key(intent.cluster_id, intent.name)
        for path in (private, private.with_name(f"{private.name}.pub")):
            path.unlink(missing_ok=True)


def gone(ref: Resource) -> PartlyUp:
    """The error for a machine that was recorded and is not there."""
    return PartlyUp(
        f"{ref.name} does not exist at Exoscale any more: somebody deleted it",
        node=ref.name,
        next_step="rain-deploy up makes it again",
    )
