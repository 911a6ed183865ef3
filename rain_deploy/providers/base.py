"""The protocol of a provider: it yields hosts reachable by SSH; all after that is the same code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from rain_deploy.core.bill import Quote
from rain_deploy.core.cluster import Cluster, Traits
from rain_deploy.core.machine import Host, InstanceType, Intent, Resource, Zone
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import RainDeployError


class Cloud(Protocol):
    """What only a provider of priced machines can do.  Raises CredentialsError, QuotaError, ApiError."""

    @property
    def account(self) -> str:
        """Name of the key with which it is asked, no secret: two keys may be of one account."""

    def quote(self, spec: ClusterSpec, cluster: Cluster, more: int) -> Quote:
        """Price of ``more`` machines on top of the living ones; reads only.

        Raises InputError for an unknown zone, type or template (naming valid ones) and for a cluster name
        that is taken, QuotaError where there is no room.
        """

    def zones(self) -> tuple[Zone, ...]:
        """The account's default first."""

    def types(self, zone: str | None, spec: ClusterSpec) -> tuple[InstanceType, ...]:
        """Of a zone (None: the account's default), cheapest first."""

    def survey(self) -> tuple[Resource, ...]:
        """Everything of this tool in the account, of every owner, in every zone."""

    def set_expiry(self, resources: tuple[Resource, ...], expires_s: float | None) -> None:
        """Write the time limit into the labels of what can carry them."""


class Provider(Protocol):
    """Makes, finds and deletes machines.  Blocking; every wait inside has a deadline."""

    @property
    def traits(self) -> Traits: ...

    @property
    def cloud(self) -> Cloud | None:
        """Not None exactly where machines are priced."""

    def preflight(self, spec: ClusterSpec) -> tuple[str, ...]:
        """Refuse what cannot work (InputError, StateError …) before anything is made.

        Returns sentences for the user (what opens to whom …).  Changes nothing.
        """

    def intents(self, spec: ClusterSpec, cluster: Cluster, nodes: int) -> tuple[Intent, ...]:
        """What ``create`` must be called with so that ``nodes`` nodes exist; pure; stable names.

        Those of one kind stand together and may be made at the same time, after those before them.
        """

    def create(self, intent: Intent, ref: str = "", *, unsettled_s: float | None = None) -> Resource:
        """Make it, or adopt what an earlier call with the same intent made; returns once its id is known.

        ``ref``: the id that was recorded.  ``unsettled_s``: when an earlier command recorded the intent and
        did not learn what came of it.  Thread-safe.  Raises PartlyUp, QuotaError, ApiError …
        """

    def settle(self, cluster: Cluster, resources: tuple[Resource, ...]) -> Mapping[str, RainDeployError]:
        """Wait until each machine runs; why not, by the resource's name, for those that do not."""

    def hosts(self, cluster: Cluster, resources: tuple[Resource, ...]) -> tuple[Host, ...]:
        """The machines of the cluster in order, server first; waits until each has an address."""

    def preview(self, intents: tuple[Intent, ...]) -> tuple[Host, ...]:
        """The machines as far as they are known before they are made; for dry runs; opens no socket."""

    def list(self, owner: str) -> tuple[Resource, ...]:
        """Everything that exists of ``owner``, from the world itself, not from state."""

    def start(self, ref: Resource) -> None:
        """Start a machine that exists but does not run.  A running one is success."""

    def delete(self, ref: Resource) -> None:
        """Delete it; absent is success.  Returns once it is observed to be gone."""
