"""The flows, each imported when it is first called: ``--help`` and completion pay for none of them."""

# ruff: noqa: PLC0415 - late imports are the purpose of this module

from __future__ import annotations

from typing import TYPE_CHECKING

from rain_deploy.runs.finish import RunResult
from rain_deploy.verbs.catalog import TypesResult, ZonesResult
from rain_deploy.verbs.check import CheckResult
from rain_deploy.verbs.copy import CopyResult
from rain_deploy.verbs.down import DownResult
from rain_deploy.verbs.extend import ExtendResult
from rain_deploy.verbs.gc import GcResult
from rain_deploy.verbs.logs import LogsResult, PointsResult
from rain_deploy.verbs.nodes import ExecResult
from rain_deploy.verbs.plan import PlanResult
from rain_deploy.verbs.runs import CancelResult, PullResult, RunsResult
from rain_deploy.verbs.scale import ScaleResult
from rain_deploy.verbs.status import ListResult, StatusResult
from rain_deploy.verbs.sweep import SweepResult
from rain_deploy.verbs.tunnel import Tunnel
from rain_deploy.verbs.up import UpResult

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from rain_deploy.cluster.context import Context
    from rain_deploy.core.spec import ClusterSpec, RunSpec


class Flows:
    """One method for each flow, with the same arguments.  ``run`` None: the cluster's last run."""

    def up(self, ctx: Context, spec: ClusterSpec, *, dry_run: bool) -> UpResult | PlanResult:
        from rain_deploy.verbs.up import up

        return up(ctx, spec, dry_run=dry_run)

    def run(self, ctx: Context, cluster: str, spec: RunSpec) -> RunResult:
        from rain_deploy.verbs.run import run

        return run(ctx, cluster, spec)

    def down(self, ctx: Context, cluster: str, *, discard_results: bool, out: Path | None) -> DownResult:
        from rain_deploy.verbs.down import down

        return down(ctx, cluster, discard_results=discard_results, out=out)

    def sweep(self, ctx: Context, spec: ClusterSpec, run_spec: RunSpec) -> SweepResult:
        from rain_deploy.verbs.sweep import sweep

        return sweep(ctx, spec, run_spec)

    def status(self, ctx: Context, cluster: str, *, check: bool) -> StatusResult:
        from rain_deploy.verbs.status import status

        return status(ctx, cluster, check=check)

    def list_clusters(self, ctx: Context) -> ListResult:
        from rain_deploy.verbs.status import list_clusters

        return list_clusters(ctx)

    def runs(self, ctx: Context, cluster: str) -> RunsResult:
        from rain_deploy.verbs.runs import runs

        return runs(ctx, cluster)

    def attach(self, ctx: Context, cluster: str, run: str | None, *, out: Path | None) -> RunResult:
        from rain_deploy.verbs.runs import attach

        return attach(ctx, cluster, run, out=out)

    def logs(
        self,
        ctx: Context,
        cluster: str,
        run: str | None,
        *,
        node: int | None,
        boot: bool,
        install: bool,
        follow: bool,
    ) -> LogsResult:
        from rain_deploy.verbs.logs import logs

        return logs(ctx, cluster, run, node=node, boot=boot, install=install, follow=follow)

    def cancel(self, ctx: Context, cluster: str, run: str | None) -> CancelResult:
        from rain_deploy.verbs.runs import cancel

        return cancel(ctx, cluster, run)

    def points(self, ctx: Context, cluster: str, run: str | None, *, follow: bool) -> PointsResult:
        from rain_deploy.verbs.logs import points

        return points(ctx, cluster, run, follow=follow)

    def pull(
        self, ctx: Context, cluster: str, run: str | None, *, all_runs: bool, out: Path | None
    ) -> PullResult:
        from rain_deploy.verbs.runs import pull

        return pull(ctx, cluster, run, all_runs=all_runs, out=out)

    def ssh_argv(
        self, ctx: Context, cluster: str, node: int | None, command: tuple[str, ...]
    ) -> tuple[str, ...]:
        from rain_deploy.verbs.nodes import ssh_argv

        return ssh_argv(ctx, cluster, node, command)

    def check_reach(self, ctx: Context, cluster: str, node: int | None) -> None:
        from rain_deploy.verbs.nodes import check_reach

        check_reach(ctx, cluster, node)

    def exec_all(self, ctx: Context, cluster: str, node: int | None, command: tuple[str, ...]) -> ExecResult:
        from rain_deploy.verbs.nodes import exec_all

        return exec_all(ctx, cluster, node, command)

    def push(
        self, ctx: Context, cluster: str, source: Path, destination: str, *, node: int | None
    ) -> CopyResult:
        from rain_deploy.verbs.copy import push

        return push(ctx, cluster, source, destination, node=node)

    def fetch(
        self, ctx: Context, cluster: str, source: str, destination: Path, *, node: int | None
    ) -> CopyResult:
        from rain_deploy.verbs.copy import fetch

        return fetch(ctx, cluster, source, destination, node=node)

    def tunnel(self, ctx: Context, cluster: str, *, port: int) -> AbstractContextManager[Tunnel]:
        from rain_deploy.verbs.tunnel import tunnel

        return tunnel(ctx, cluster, port=port)

    def dashboard(self, ctx: Context, cluster: str, *, port: int) -> AbstractContextManager[Tunnel]:
        from rain_deploy.verbs.tunnel import dashboard

        return dashboard(ctx, cluster, port=port)

    def check(self, ctx: Context, spec: ClusterSpec) -> CheckResult:
        from rain_deploy.verbs.check import check

        return check(ctx, spec)

    def scale(self, ctx: Context, spec: ClusterSpec, nodes: int) -> ScaleResult:
        from rain_deploy.verbs.scale import scale

        return scale(ctx, spec, nodes)

    def extend(self, ctx: Context, cluster: str, duration_s: float | None) -> ExtendResult:
        from rain_deploy.verbs.extend import extend

        return extend(ctx, cluster, duration_s)

    def gc(self, ctx: Context, spec: ClusterSpec, cluster: str | None, *, delete: bool) -> GcResult:
        from rain_deploy.verbs.gc import gc

        return gc(ctx, spec, cluster, delete=delete)

    def zones(self, ctx: Context, spec: ClusterSpec) -> ZonesResult:
        from rain_deploy.verbs.catalog import zones

        return zones(ctx, spec)

    def types(self, ctx: Context, spec: ClusterSpec) -> TypesResult:
        from rain_deploy.verbs.catalog import types

        return types(ctx, spec)
