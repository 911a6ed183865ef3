"""What an ``up`` would cost, need and open, with every reason to refuse it; reads only."""

from __future__ import annotations

from rain_deploy.core.bill import Quote
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.machine import Resource
from rain_deploy.core.owner import owner_tag
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import InputError, QuotaError
from rain_deploy.providers.exoscale.catalog import Catalog, Kind, Machine
from rain_deploy.providers.exoscale.prices import prices

GIB = 1 << 30


def quote(
    catalog: Catalog,
    machine: Machine,
    spec: ClusterSpec,
    cluster: Cluster,
    *,
    found: tuple[Resource, ...],
    opens: tuple[str, ...],
    more: int,
) -> Quote:
    """Of ``more`` machines for ``cluster``.

    ``found``: all of this tool in the account.  ``opens``: sentences, what opens to whom.  Raises InputError
    for what is not offered and for a name that is taken, QuotaError.
    """
    _refuse_taken(found, cluster)
    kind = catalog.kind(machine.instance_type, machine.zone)
    _check_template(catalog, kind, machine, spec)
    left = _quota_left(catalog, kind, machine, more)
    table = prices(spec)
    per_hour = table.machine(kind.name, machine.disk_size_gib)
    if per_hour is None:
        raise InputError(
            f"the price of {kind.name} or of its disk is not known in {table.currency}",
            next_step=f'give it in the config file: prices = {{ "{kind.name}" = 0.50, disk = 0.00014 }}',
        )
    return Quote(
        zone=machine.zone,
        instance_type=kind.name,
        template=machine.template,
        disk_size_gib=machine.disk_size_gib,
        cpus=kind.cpus,
        memory_bytes=kind.memory_bytes,
        gpus=kind.gpus,
        per_hour=per_hour,
        stopped_per_hour=table.disk(machine.disk_size_gib) or 0.0,
        currency=table.currency,
        source=table.source(kind.name),
        quota_left=left,
        opens=opens,
    )


def _refuse_taken(found: tuple[Resource, ...], cluster: Cluster) -> None:
    """A cluster's name is used once in an account: by whom it is used, and what to do."""
    mine = owner_tag(cluster.owner)
    for other in found:
        if other.cluster != cluster.name or (other.cluster_id == cluster.id and other.owner == mine):
            continue
        if other.owner != mine:
            raise InputError(
                f"cluster {cluster.name} exists in this account already, of owner {other.owner}",
                next_step="another name with -c",
            )
        raise InputError(
            f"cluster {cluster.name} exists in this account already, of yours, but not in this home "
            f"(id {other.cluster_id})",
            next_step=f"rain-deploy gc -c {cluster.name} shows it; or another name with -c",
        )


def _check_template(catalog: Catalog, kind: Kind, machine: Machine, spec: ClusterSpec) -> None:
    if kind.gpus and not spec.machines.template:
        raise InputError(
            f"{kind.name} has a GPU, and the default template has no driver for it",
            next_step="--template NAME of one with the NVIDIA driver",
        )
    template = catalog.template(machine.template, machine.zone)
    needed = -(-template.size_bytes // GIB)
    if machine.disk_size_gib < needed:
        raise InputError(
            f"template {template.name!r} needs a disk of {needed} GiB, not {machine.disk_size_gib}",
            next_step=f"--disk-size {needed}",
        )


def _quota_left(catalog: Catalog, kind: Kind, machine: Machine, more: int) -> int | None:
    """Instances that may still be made; of GPU types also as many as the GPU quota lets."""
    family = kind.name.partition(".")[0]
    left = catalog.quota_left("instance")
    gpus = catalog.quota_left(family) if kind.gpus else None
    if gpus is not None:
        left = min(gpus // kind.gpus, gpus if left is None else left)
    if left is not None and more > left:
        what = f"{kind.name} machines" if gpus is not None else "instances"
        other = catalog.elsewhere(kind.name, machine.zone)
        raise QuotaError(
            f"the quota of this account lets {left} more {what} be made, and {more} are asked for",
            next_step="; ".join(
                filter(None, ("ask for more in Exoscale's portal (Organization, Quotas)", other))
            ),
        )
    return left
