"""``up --dry-run``: what would run on which node, in order, without opening a socket."""

from __future__ import annotations

from dataclasses import replace

from rain_deploy.core.model import Cluster
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import InputError
from rain_deploy.flows.context import Context
from rain_deploy.flows.results import PlanResult


def plan(ctx: Context, spec: ClusterSpec) -> PlanResult:
    """Filled in next."""
    raise InputError(f"{ctx.home} {spec.name} {replace} {Cluster}")
