"""Completion of values: providers, clusters, runs, zones and types.  It answers nothing rather than fail."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rain_deploy.options.table import CLOUD, OPTIONS

if TYPE_CHECKING:
    import click

    from rain_deploy.cluster.context import Context


def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the values of an option or of the argument RUN that begin with ``incomplete``."""
    option = OPTIONS.get(str(parameter.name))
    if option and option.kind.choices:
        found: list[str] = list(option.kind.choices)
    else:
        found = []
        with contextlib.suppress(Exception), _context(ctx) as context:
            found = _SOURCES[option.kind.completes if option else "runs"](context, ctx)
    return [value for value in found if value.startswith(incomplete)]


@contextlib.contextmanager
def _context(ctx: click.Context) -> Iterator[Context]:
    from rain_deploy.wiring import home

    app = ctx.obj
    with app.make_context(home(app.environ), lambda _event: None, lambda _question: False) as context:
        yield context


def _clusters(context: Context, _ctx: click.Context) -> list[str]:
    return [cluster.name for cluster in context.store.clusters()]


def _runs(context: Context, ctx: click.Context) -> list[str]:
    from rain_deploy.verbs.runs import runs

    return [
        line.run for line in ctx.obj.call_verb(runs, context, ctx.params.get("cluster") or "default").runs
    ]


def _zones(context: Context, ctx: click.Context) -> list[str]:
    from rain_deploy.options.spec import cluster_spec
    from rain_deploy.verbs.catalog import zones

    spec = cluster_spec("default", (CLOUD, ""), {})
    return [zone.name for zone in ctx.obj.call_verb(zones, context, spec).zones]


def _types(context: Context, ctx: click.Context) -> list[str]:
    from rain_deploy.options.spec import cluster_spec
    from rain_deploy.verbs.catalog import types

    zone = ctx.params.get("zone")
    spec = cluster_spec("default", (CLOUD, ""), {"zone": zone} if zone else {})
    return [kind.name for kind in ctx.obj.call_verb(types, context, spec).types]


_SOURCES: dict[str, Callable[[Context, click.Context], list[str]]] = {
    "clusters": _clusters,
    "runs": _runs,
    "zones": _zones,
    "types": _types,
}
