"""What docs/exoscale.md says is what the code does: the role of the key, prices, ports, names, labels."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exoscale.api.v2 import Client

from rain_deploy.core.machine import Intent
from rain_deploy.core.text import owner_tag
from rain_deploy.providers.exoscale import catalog as exoscale_catalog
from rain_deploy.providers.exoscale import labels as exoscale_labels
from rain_deploy.providers.exoscale import rules as exoscale_rules

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/exoscale.md").read_text("utf-8")
MODULES = sorted((ROOT / "rain_deploy/providers/exoscale").glob("*.py"))
KNOWN: frozenset[str] = frozenset(Client._by_operation)  # noqa: SLF001 - the only place that has them
"""All operations of the API's description that the SDK ships."""


def documented() -> list[str]:
    """Operations of the role in docs/exoscale.md, in its order."""
    (block,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    policy: dict[str, Any] = json.loads(block)
    (rule,) = policy["services"]["compute"]["rules"]
    listed = re.fullmatch(r"operation in \[(.*)\]", rule["expression"])
    assert listed is not None
    assert (policy["default-service-strategy"], rule["action"]) == ("deny", "allow")
    return re.findall(r"'([^']*)'", listed[1])


def texts(tree: ast.AST) -> Iterator[str]:
    """Texts of a module; one that is put together, once with each kind of resource in its gaps."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for kind in exoscale_labels.KINDS:
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else kind for part in node.values
                )
        elif isinstance(node, ast.Constant):
            yield str(node.value)


def called() -> frozenset[str]:
    """Operations that the provider's modules name."""
    found = {text for module in MODULES for text in texts(ast.parse(module.read_text("utf-8")))}
    return frozenset(found & KNOWN)


def test_the_documented_role_allows_what_the_code_calls_and_nothing_else() -> None:
    operations = documented()
    assert sorted(operations) == sorted(called())


@pytest.mark.parametrize("operation", ["create-instance", "list-ssh-keys", "list-events", "get-operation"])
def test_calls_are_found_however_they_are_spelled(operation: str) -> None:
    assert operation in called()


def test_the_date_of_the_price_table_is_reported() -> None:
    (date,) = re.findall(r"\d{4}-\d\d-\d\d", exoscale_catalog.TABLE_SOURCE)
    assert f"**{date}**" in PAGE


def test_the_ports_that_open_are_reported() -> None:
    ports = exoscale_rules.RAIN_PORTS
    told = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in ports)
    assert f"| tcp {told} |" in PAGE


def test_the_names_and_labels_of_what_is_made_are_reported() -> None:
    intent = Intent("ID", "CLUSTER", exoscale_labels.INSTANCE, "node-7", "someone")
    told = {label.removeprefix("rain-deploy") for label in exoscale_labels.labels(intent)}
    assert not {label for label in told if f"`{label}`" not in PAGE and f"`rain-deploy{label}" not in PAGE}
    assert f"`{exoscale_labels.instance_name(intent).replace('-7', '-N')}`" in PAGE
    owner = owner_tag("someone")
    assert f"`{exoscale_labels.shared_name(intent).replace(owner, 'OWNER')}`" in PAGE
