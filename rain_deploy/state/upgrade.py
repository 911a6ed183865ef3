"""Read rows that an earlier version wrote: a cluster is never lost because its record has an older shape."""

from __future__ import annotations

import json
from typing import Any

_BILL = ("quote", "account", "meters", "max_cost", "ttl_limit_s", "limit_s")


def cluster_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a cluster's row in today's shape.

    Before, the settings of its machines were JSON text, and the fields of its bill stood alone.
    """
    if "spec_json" not in row:
        return row
    had = json.loads(row.pop("spec_json"))
    machines = {
        **{name: value for name, value in had.get("cloud", {}).items() if value is not None},
        "hosts": had.get("hosts", ()),
        "host_addresses": had.get("addresses", ()),
        "trust_networks": had.get("trust", ()),
        "ssh_port": had.get("ssh_port", 22),
    }
    bill = {name: row[name] for name in _BILL if name in row} if row.get("quote") else None
    return {**row, "machines": machines, "bill": bill}
