"""What the machines of a cluster share: its SSH key, its security group, its anti-affinity groups.

They have no labels, so their names say whose they are; each is found again by its name.
"""

from __future__ import annotations

import base64
import hashlib

from rain_deploy.core.machine import Intent
from rain_deploy.errors import InputError
from rain_deploy.providers.exoscale.api import Api
from rain_deploy.providers.exoscale.deleting import delete
from rain_deploy.providers.exoscale.errors import Absent
from rain_deploy.providers.exoscale.group import Group
from rain_deploy.providers.exoscale.listing import READ_S, Listings, made_once
from rain_deploy.providers.exoscale.names import description, shared_name

_MOST_KEYS = 9
"""Names that are tried for a key before it is given up."""


class Shared:
    """Organization-wide, so no zone is named.  Thread-safe."""

    def __init__(self, api: Api, listings: Listings) -> None:
        self._api = api
        self._listings = listings

    def key(self, intent: Intent, public: str) -> str:
        """The name under which Exoscale has ``public``; registered where it has not.

        A key of our name with another fingerprint is of a home that was lost; it stays, ours gets a suffix.
        """
        name = shared_name(intent)
        for suffix in ("", *(f"_{number}" for number in range(2, _MOST_KEYS + 1))):
            found = self._fingerprint(name + suffix)
            if found == fingerprint(public):
                return name + suffix
            if found is None:
                return self._register(intent, name + suffix, public)
        raise InputError(f"the SSH key {name} exists at Exoscale {_MOST_KEYS} times, and none is ours")

    def group(self, intent: Intent, ref: str, *, unsettled: bool) -> str:
        """The id of the cluster's security group, its rules as they shall be.

        ``unsettled``: an earlier command may have made it, from another address than this one.
        """
        known = self._existing("get-security-group", ref) or self.find(intent, fresh=ref != "")
        made = known or self._named(intent, "create-security-group")
        fresh = known is None and not unsettled
        try:
            Group(self._api, made, intent).ensure(fresh=fresh)
        except InputError:  # says that nothing was made
            if fresh:
                delete(self._api, "delete-security-group", shared_name(intent), id=made)
            raise
        return made

    def spread(self, intent: Intent, ref: str) -> str:
        """The id of an anti-affinity group."""
        known = self._existing("get-anti-affinity-group", ref) or self.find(intent, fresh=ref != "")
        return known or self._named(intent, "create-anti-affinity-group")

    def find(self, intent: Intent, *, fresh: bool) -> str | None:
        """The id by the name; a key's id is its name.  ``fresh``: as it is now, not as first seen."""
        operation = f"list-{intent.kind}s"
        rows = self._listings.now(operation) if fresh else self._listings.rows(operation)
        name = shared_name(intent)
        return next((str(row.get("id", name)) for row in rows if row["name"] == name), None)

    def _named(self, intent: Intent, operation: str) -> str:
        """A name is taken once, so there cannot be two."""
        name = shared_name(intent)

        def make() -> str:
            begun = self._api.write(operation, name=name, description=description(intent))
            self._api.wait(begun, what=name)
            return str(begun["reference"]["id"])

        return made_once(self._api, lambda: self.find(intent, fresh=True), make, what=name, settle_s=READ_S)

    def _register(self, intent: Intent, name: str, public: str) -> str:
        def make() -> str:
            self._api.wait(self._api.write("register-ssh-key", name=name, public_key=public), what=name)
            return name

        def find() -> str | None:
            return name if self._fingerprint(name) == fingerprint(public) else None

        return made_once(self._api, find, make, what=f"{intent.name} ({name})", settle_s=READ_S)

    def _fingerprint(self, name: str) -> str | None:
        try:
            return str(self._api.read("get-ssh-key", name=name)["fingerprint"])
        except Absent:
            return None

    def _existing(self, operation: str, ref: str) -> str | None:
        try:
            return str(self._api.read(operation, id=ref)["id"]) if ref else None
        except Absent:
            return None


def fingerprint(public: str) -> str:
    """As Exoscale shows it: MD5 in hexadecimal, with colons."""
    digest = hashlib.md5(base64.b64decode(public.split()[1]), usedforsecurity=False).hexdigest()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))
