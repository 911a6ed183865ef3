"""Everything of this tool in an account: in every zone, of every owner, by labels and names alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from rain_deploy.core.machine import Resource
from rain_deploy.errors import ApiError
from rain_deploy.providers.exoscale.catalog import Catalog
from rain_deploy.providers.exoscale.listing import Listings
from rain_deploy.providers.exoscale.names import INSTANCE, KINDS, found_instance, found_shared, in_order

AT_ONCE = 16


class Survey:
    """Thread-safe.  Raises ApiError, CredentialsError where any part of the account cannot be seen."""

    def __init__(self, listings: Listings, catalog: Catalog) -> None:
        self._listings = listings
        self._catalog = catalog

    def all(self, since: float) -> tuple[Resource, ...]:
        """As it was at ``since`` (the API's clock) or later, in the order of making."""
        return self._of_kinds(KINDS, since)

    def of(self, resource: Resource, since: float) -> tuple[Resource, ...]:
        """What has the cluster id, kind and name of ``resource``."""
        same = (resource.cluster_id, resource.kind, resource.name)
        told = ((found, found) for found in self._of_kinds((resource.kind,), since))
        return tuple(found for found, r in told if (r.cluster_id, r.kind, r.name) == same)

    def _of_kinds(self, kinds: tuple[str, ...], since: float) -> tuple[Resource, ...]:
        asks = [
            (kind, zone) for kind in kinds for zone in (self._catalog.zones() if kind == INSTANCE else ("",))
        ]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            parts = pool.map(lambda ask: self._part(ask[0], ask[1], since), asks)
            return tuple(sorted(chain.from_iterable(parts), key=in_order))

    def _part(self, kind: str, zone: str, since: float) -> tuple[Resource, ...]:
        try:
            return self._told(kind, zone, since)
        except ApiError as error:
            where = f"zone {zone}" if zone else f"the {kind}s of the account"
            raise ApiError(f"{where} cannot be seen: {error.message}", next_step=error.next_step) from error

    def _told(self, kind: str, zone: str, since: float) -> tuple[Resource, ...]:
        if kind == INSTANCE:
            rows = self._listings.rows("list-instances", zone=zone, since=since)
            names = {kind.id: kind.name for kind in self._catalog.kinds(None)} if rows else {}
            told = (found_instance(row, zone, names) for row in rows)
        else:
            rows = self._listings.rows(f"list-{kind}s", since=since)
            told = (found_shared(kind, row["name"], str(row.get("id", row["name"]))) for row in rows)
        return tuple(found for found in told if found)
