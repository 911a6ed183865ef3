"""The account behind the machines: what it offers, what an ``up`` costs, what exists, until when it lives."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from rain_deploy.core.bill import Quote
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.machine import InstanceType, Resource, Zone
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.text import owner_tag
from rain_deploy.errors import ApiError, InputError
from rain_deploy.providers.exoscale.api import AT_ONCE, Api
from rain_deploy.providers.exoscale.catalog import Catalog
from rain_deploy.providers.exoscale.instances import Instances
from rain_deploy.providers.exoscale.labels import GROUP, INSTANCE, KINDS, Instance, in_order, shared_resource
from rain_deploy.providers.exoscale.network import is_open, will_open


class ExoscaleCloud:
    """Implements ``providers.base.Cloud``.  Thread-safe."""

    def __init__(self, api: Api, catalog: Catalog, instances: Instances, *, owner: str) -> None:
        self._api = api
        self._catalog = catalog
        self._instances = instances
        self._owner = owner

    @property
    def account(self) -> str:
        return self._api.account.key

    def zones(self) -> tuple[Zone, ...]:
        return tuple(map(Zone, sorted(self._api.zones(), key=lambda name: name != self._api.zone)))

    def types(self, zone: str | None, spec: ClusterSpec) -> tuple[InstanceType, ...]:
        return self._catalog.types(zone or self._api.zone, spec)

    def quote(self, spec: ClusterSpec, cluster: Cluster, more: int) -> Quote:
        found = self.survey()
        _refuse_taken(found, cluster, owner_tag(cluster.owner or spec.owner or self._owner))
        groups = (each.ref for each in found if each.kind == GROUP and each.cluster_id == cluster.id)
        group, port = next(groups, None), spec.machines.ssh_port
        if group is None or spec.allow_ip:
            opens = will_open(port, spec.allow_ip)
        else:
            opens = is_open(self._api, group, port)
        return self._catalog.quote(spec, more, opens)

    def survey(self, kinds: tuple[str, ...] = KINDS) -> tuple[Resource, ...]:
        """Return what exists, in the order of creation, read in every zone by labels and names alone."""
        since_s = self._api.now_s
        lists = [
            (kind, zone) for kind in kinds for zone in (self._api.zones() if kind == INSTANCE else ("",))
        ]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            parts = pool.map(lambda each: self._part(each[0], each[1], since_s), lists)
            return tuple(sorted(chain.from_iterable(parts), key=in_order))

    def set_expiry(self, resources: tuple[Resource, ...], expires_s: float | None) -> None:
        self._instances.set_expiry(tuple(each for each in resources if each.is_machine), expires_s)

    def _part(self, kind: str, zone: str, since_s: float) -> tuple[Resource, ...]:
        try:
            rows = self._api.rows(f"list-{kind}s", zone=zone or None, since_s=since_s)
            types = {each.id: each.name for each in self._catalog.kinds(None)} if zone and rows else {}
        except ApiError as error:
            where = f"zone {zone}" if zone else f"the {kind}s of the account"
            raise ApiError(f"{where} cannot be read: {error.message}", next_step=error.next_step) from error
        if zone:
            found = [Instance.parse(row, zone).resource(types) for row in rows]
        else:
            found = [shared_resource(kind, row["name"], str(row.get("id", row["name"]))) for row in rows]
        return tuple(filter(None, found))


def _refuse_taken(found: tuple[Resource, ...], cluster: Cluster, owner: str) -> None:
    """Raise InputError where another cluster has this name: names are unique in an account."""
    for other in found:
        if other.cluster != cluster.name or (other.cluster_id == cluster.id and other.owner == owner):
            continue
        if other.owner != owner:
            raise InputError(
                f"cluster {cluster.name} exists in this account already; its owner is {other.owner}",
                next_step="another name with -c",
            )
        raise InputError(
            f"you have a cluster {cluster.name} in this account already, made from another home"
            f" (id {other.cluster_id})",
            next_step=f"rain-deploy gc -c {cluster.name} shows it; or another name with -c",
        )
