"""What is ours at Exoscale says so by labels or by its name, and is read back from them alone."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from rain_deploy.core.machine import Intent
from rain_deploy.core.text import owner_tag
from rain_deploy.providers.exoscale.labels import (
    GROUP,
    INSTANCE,
    KEY,
    SPREAD,
    Instance,
    expiry_label,
    instance_name,
    labels,
    shared_name,
    shared_resource,
)

CLUSTER_NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True)
CLUSTER_IDS = st.from_regex(r"[0-9a-f]{10}", fullmatch=True)
OWNERS = st.text(min_size=1, max_size=60)
LIMITS = st.none() | st.integers(0, 10**11)


def intent(kind: str, name: str, **fields: object) -> Intent:
    told = {"cluster_id": "ab12cd34ef", "cluster": "demo", "owner": "ada@example.org", **fields}
    return Intent(kind=kind, name=name, **told)  # type: ignore[arg-type]


@given(CLUSTER_NAMES, CLUSTER_IDS, OWNERS, LIMITS, st.integers(1, 1000))
def test_an_instance_is_read_back_as_it_was_meant(
    cluster: str, cluster_id: str, owner: str, limit_s: int | None, index: int
) -> None:
    meant = Intent(cluster_id, cluster, INSTANCE, f"node-{index}", owner, expires_s=limit_s)
    found = Instance.parse({"id": "u1", "labels": labels(meant), "state": "running"}, "ch-dk-2").ours
    assert found is not None
    assert (found.cluster_id, found.name) == (cluster_id, f"node-{index}")
    assert (found.ref, found.zone, found.state) == ("ch-dk-2/u1", "ch-dk-2", "running")
    assert (found.cluster, found.owner, found.expires_s) == (cluster, owner_tag(owner), limit_s)


@given(CLUSTER_NAMES, CLUSTER_IDS, OWNERS, st.integers(1, 125))
def test_keys_and_groups_are_read_back_from_their_names(
    cluster: str, cluster_id: str, owner: str, number: int
) -> None:
    for kind, name in ((KEY, "ssh"), (GROUP, "group"), (SPREAD, f"spread-{number}")):
        found = shared_resource(kind, shared_name(Intent(cluster_id, cluster, kind, name, owner)), "r")
        assert found is not None
        assert (found.cluster_id, found.kind, found.name) == (
            cluster_id,
            kind,
            name,
        )
        assert (found.cluster, found.owner, found.ref) == (cluster, owner_tag(owner), "r")


@given(CLUSTER_NAMES, CLUSTER_IDS, OWNERS, LIMITS, st.integers(1, 1000))
def test_labels_and_names_have_only_letters_that_exoscale_takes(
    cluster: str, cluster_id: str, owner: str, limit_s: int | None, index: int
) -> None:
    node = Intent(cluster_id, cluster, INSTANCE, f"node-{index}", owner, expires_s=limit_s)
    for value in labels(node).values():
        assert re.fullmatch(r"[A-Za-z*+!_?-][A-Za-z0-9*+!_?-]{0,127}", value)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", instance_name(node))
    key = shared_name(Intent(cluster_id, cluster, KEY, "ssh", owner))
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,254}", key)


def test_names_of_two_clusters_of_one_name_differ() -> None:
    one, other = intent(GROUP, "group"), intent(GROUP, "group", cluster_id="0000000000")
    assert shared_name(one) != shared_name(other)


def test_what_people_made_is_none_of_ours() -> None:
    for name in ("default", "rain-deploy", "rain-deploy_ada_demo_ab12cd34ef", "my-rain-deploy_o-a_b_c"):
        assert shared_resource(GROUP, name, "r") is None
    for told in ({}, {"rain-deploy": "v2"}, {"rain-deploy-owner": "o-me-12345678"}):
        assert Instance.parse({"id": "u1", "labels": told}, "ch-dk-2").ours is None
    assert Instance.parse({"id": "u1"}, "ch-dk-2").ours is None


def test_a_member_of_a_pool_is_the_pool_s() -> None:
    row = {"id": "u1", "labels": labels(intent(INSTANCE, "node-1")), "manager": {"id": "p"}}
    assert Instance.parse(row, "ch-dk-2").ours is None


def test_labels_that_somebody_damaged_make_nobody_s_instance_of_it() -> None:
    found = Instance.parse({"id": "u1", "labels": {"rain-deploy": "v1"}}, "ch-dk-2").ours
    assert found is not None
    assert (found.owner, found.cluster, found.cluster_id, found.expires_s) == ("", "", "", None)


def test_no_limit_is_told_too() -> None:
    assert expiry_label(None) == {"rain-deploy-expires": "never"}
    assert expiry_label(1795520815.9) == {"rain-deploy-expires": "t1795520815"}
