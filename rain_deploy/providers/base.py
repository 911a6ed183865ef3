"""The protocol of a provider: it yields hosts reachable by SSH, and the rest is the same for all."""

import contextlib
from collections.abc import Mapping
from typing import Protocol

from rain_deploy.core.cluster import Cluster, Quote, Traits
from rain_deploy.core.machine import Host, InstanceType, Intent, Reach, Resource
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import RainDeployError


class Cloud(Protocol):
    """A provider whose machines cost money.  Raises CredentialsError, QuotaError, ApiError."""

    @property
    def account(self) -> str:
        """Return the name of the API key, which is no secret; two keys may belong to one account."""

    def within(self, seconds: float) -> contextlib.AbstractContextManager[None]:
        """Give up all questions inside once the account has not answered for ``seconds``."""

    def quote(self, spec: ClusterSpec, cluster: Cluster, more: int) -> Quote:
        """Return the price of ``more`` machines on top of the existing ones; changes nothing.

        Raises InputError for a cluster name that is taken and for an unknown zone, type or template (with
        the valid ones), and QuotaError if there is no room.
        """

    def reach(self, cluster: Cluster, found: tuple[Resource, ...], allow_ip: tuple[str, ...] = ()) -> Reach:
        """Compare who reaches the cluster's machines with who should; changes nothing.

        ``found``: what the account shows of it.  ``allow_ip``: networks that are asked for.
        """

    def zones(self) -> tuple[str, ...]:
        """Return the names of all zones, the account's default first."""

    def types(self, zone: str | None, spec: ClusterSpec) -> tuple[InstanceType, ...]:
        """Return the types of a zone (None: the account's default), cheapest first."""

    def survey(self) -> tuple[Resource, ...]:
        """Return everything of this tool in the account: every owner, every zone."""

    def set_expiry(self, resources: tuple[Resource, ...], expires_s: float | None) -> None:
        """Write the time limit into the labels of the resources that have labels."""


class Provider(Protocol):
    """Makes, finds and deletes machines.  Calls block, and every wait has a deadline."""

    @property
    def traits(self) -> Traits: ...

    @property
    def cloud(self) -> Cloud | None:
        """Return the cloud; None if machines cost nothing."""

    def preflight(self, spec: ClusterSpec) -> tuple[str, ...]:
        """Refuse what cannot work before anything is made, else return sentences for the user: what opens."""

    def intents(self, spec: ClusterSpec, cluster: Cluster, nodes: int) -> tuple[Intent, ...]:
        """Return one per resource, always with the same names.

        Intents of one kind follow each other and may be made in parallel, after all those before them.
        """

    def create(self, intent: Intent, ref: str = "", *, unsettled_s: float | None = None) -> Resource:
        """Make the resource, or adopt what an earlier call made; return once its id is known.

        ``ref`` is the recorded id.  ``unsettled_s`` is the time at which an earlier command recorded the
        intent without learning the outcome.  Thread-safe.  Raises PartlyUp, QuotaError, ApiError …
        """

    def settle(self, cluster: Cluster, resources: tuple[Resource, ...]) -> Mapping[str, RainDeployError]:
        """Wait until the machines run, and those who shall reach them do.

        Returns the errors of machines that do not run, by resource name.
        """

    def hosts(self, cluster: Cluster, resources: tuple[Resource, ...]) -> tuple[Host, ...]:
        """Return the cluster's machines in order, server first, once each has an address."""

    def preview(self, intents: tuple[Intent, ...]) -> tuple[Host, ...]:
        """Return the machines as far as they are known before they are made.  Opens no socket."""

    def list(self, owner: str) -> tuple[Resource, ...]:
        """Return everything of ``owner`` that exists, without asking the state file."""

    def ended(self, cluster: Cluster, name: str) -> bool:
        """Return True if a look from here proves that nothing of a node runs."""

    def start(self, ref: Resource) -> None:
        """Start a stopped machine; a running one is success."""

    def delete(self, ref: Resource) -> None:
        """Delete it and return once it is gone; a missing one is success."""
