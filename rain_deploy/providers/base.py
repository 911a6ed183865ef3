"""The protocol of a provider: it yields hosts reachable by SSH; all after that is the same code."""

from __future__ import annotations

from typing import Protocol

from rain_deploy.core.model import Cluster, Host, Intent, ResourceRef, Traits
from rain_deploy.core.spec import ClusterSpec


class Provider(Protocol):
    """Makes, finds and deletes machines.  Blocking; every wait inside has a deadline."""

    @property
    def traits(self) -> Traits: ...

    def preflight(self, spec: ClusterSpec) -> tuple[str, ...]:
        """Refuse what cannot work (InputError, StateError …) before anything is made.

        Returns sentences for the user (what opens to whom …).  Changes nothing.
        """

    def intents(self, spec: ClusterSpec, cluster: Cluster, nodes: int) -> tuple[Intent, ...]:
        """What ``create`` must be called with so that ``nodes`` nodes exist; pure; stable names."""

    def create(self, intent: Intent) -> ResourceRef:
        """Make it, or adopt what an earlier call with the same intent made.  Idempotent."""

    def hosts(self, cluster: Cluster, resources: tuple[ResourceRef, ...]) -> tuple[Host, ...]:
        """The machines of the cluster in order, server first; waits until each has an address."""

    def preview(self, intents: tuple[Intent, ...]) -> tuple[Host, ...]:
        """The machines as far as they are known before they are made; for dry runs; opens no socket."""

    def list(self, owner: str) -> tuple[ResourceRef, ...]:
        """Everything that exists of ``owner``, from the world itself, not from state."""

    def start(self, ref: ResourceRef) -> None:
        """Start a machine that exists but does not run.  A running one is success."""

    def delete(self, ref: ResourceRef) -> None:
        """Delete it; absent is success.  Returns once it is observed to be gone."""
