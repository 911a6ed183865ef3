"""A key of the role that docs/exoscale.md shows does all that a cluster's life needs."""

from __future__ import annotations

import dataclasses
import time
from http import HTTPStatus
from pathlib import Path

from rain_deploy.core.cluster import Cluster
from rain_deploy.core.machine import Resource
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.parts.machine import user_data
from rain_deploy.providers.exoscale.account import Account
from rain_deploy.providers.exoscale.api import Api
from rain_deploy.providers.exoscale.patience import Patience
from rain_deploy.providers.exoscale.provider import ExoscaleProvider
from tests.lab.lab import Lab
from tests.lab.machines import NoMachines
from tests.support.values import billed, cluster_spec
from tests.unit.test_docs_cloud import documented

OWNER = "ada"
CLUSTER = billed(Cluster("ab12cd34ef", "demo", "exoscale", 0.0, owner=OWNER), limit_s=1_900_000_000.0)
SPEC = cluster_spec(anti_affinity=True, template="mine")


def provider(lab: Lab, home: Path) -> ExoscaleProvider:
    """As a new process of the documented role has it."""
    key, secret = lab.add_key(allowed=frozenset(documented()))
    patience = Patience(pause=lambda seconds: time.sleep(min(seconds, 0.02)), settle_s=0.2, source_ip_s=2.0)
    account = Account(key, secret, lab.zone, lab.url, "the test")
    return ExoscaleProvider(home, Api(account, patience=patience), user_data, owner=OWNER)


def up(lab: Lab, home: Path, spec: ClusterSpec, before: tuple[Resource, ...] = ()) -> tuple[Resource, ...]:
    """Of a cluster that has ``before``."""
    known = {ref.name: ref.ref for ref in before}
    one = provider(lab, home)
    one.cloud.quote(spec, CLUSTER, 2)
    made = tuple(one.create(intent, known.get(intent.name, "")) for intent in one.intents(spec, CLUSTER, 2))
    assert one.settle(CLUSTER, made) == {}
    return made


def test_the_documented_role_suffices_from_the_first_plan_to_the_certificate(
    tmp_path: Path,
) -> None:
    with Lab(NoMachines("127.9"), host="127.9.1.1", latency_s=0.01) as lab:
        lab.seed_template("mine", visibility="private")
        one = provider(lab, tmp_path)
        assert one.cloud.zones()
        assert one.cloud.types(None, SPEC)
        made = up(lab, tmp_path, SPEC)
        moved = dataclasses.replace(SPEC, allow_ip=("203.0.113.7",))
        assert up(lab, tmp_path, moved, made) == made
        one = provider(lab, tmp_path)
        one.cloud.set_expiry(made, 1_900_003_600.0)
        vm, *_ = lab.instances()
        vm.state = "stopped"
        one.start(next(ref for ref in made if ref.ref.endswith(vm.id)))
        assert len(one.hosts(CLUSTER, made)) == 2
        for ref in reversed(made):
            one.delete(ref)
        assert one.cloud.survey() == ()
        assert lab.left() == ()
        assert {request.operation for request in lab.log} == set(documented())
        assert not [str(request) for request in lab.log if request.status == HTTPStatus.FORBIDDEN]
