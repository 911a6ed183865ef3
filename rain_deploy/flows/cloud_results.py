"""What the flows about priced machines return; as in ``flows.results``."""

from __future__ import annotations

from dataclasses import dataclass

from rain_deploy.core.model import InstanceType
from rain_deploy.errors import DownIncomplete, RainDeployError
from rain_deploy.flows.results import NodeLine, Result


@dataclass(frozen=True, slots=True)
class ExtendResult(Result):
    """``extend``: the hour at which the machines power themselves off now."""

    cluster: str
    limit_s: float | None
    """None: never."""
    nodes: tuple[str, ...]
    """Those that were told; of the others only the labels were moved."""
    per_hour: float
    """Of all machines of the cluster while they run."""
    currency: str


@dataclass(frozen=True, slots=True)
class ScaleResult(Result):
    """``scale``: ``added`` and ``removed`` empty mean that the cluster had this size."""

    cluster: str
    before: int
    after: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    nodes: tuple[NodeLine, ...]
    seconds: float
    per_hour: float | None = None
    """Of all machines of the cluster while they run; None where nothing is priced."""
    currency: str = ""
    limit_s: float | None = None
    """When they power themselves off; None: never."""


@dataclass(frozen=True, slots=True)
class GcLine:
    """All that the account has of one cluster."""

    cluster: str
    id: str
    owner: str
    state: str
    """``living``, ``left``, ``expired`` or ``foreign``."""
    resources: tuple[str, ...]
    action: str
    """``kept``, ``to delete``, ``deleted`` or ``not deleted``."""
    reason: str
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class GcResult(Result):
    """``gc``: ``deleting`` false is the dry run."""

    lines: tuple[GcLine, ...]
    deleting: bool
    cluster: str | None = None
    """The one that was named; None: all were looked at."""

    @property
    def delete_command(self) -> str:
        """What deletes all that may go of what was looked at."""
        return "rain-deploy gc --delete" + (f" -c {self.cluster}" if self.cluster else "")

    @property
    def problem(self) -> RainDeployError | None:
        left = [line for line in self.lines if line.action == "not deleted"]
        if not left:
            return None
        what = "; ".join(f"cluster {line.cluster} ({line.id}): {line.reason}" for line in left)
        return DownIncomplete(
            f"not everything could be deleted: {what}",
            still_running=", ".join(name for line in left for name in line.resources),
            next_step=self.delete_command,
        )


@dataclass(frozen=True, slots=True)
class ZoneLine:
    """A place where the cloud makes machines."""

    name: str
    default: bool
    """The account's own: ``up`` takes it where ``--zone`` names none."""


@dataclass(frozen=True, slots=True)
class ZonesResult(Result):
    """``zones``."""

    zones: tuple[ZoneLine, ...]


@dataclass(frozen=True, slots=True)
class TypesResult(Result):
    """``types``: cheapest first."""

    zone: str
    types: tuple[InstanceType, ...]
    source: str
    """Of the prices, with the date of their table."""
