"""The cluster that up, sweep, check and scale are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain_deploy.options.table import CLOUD

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.core.spec import ClusterSpec
    from rain_deploy.options.spec import Settings


def cluster_spec(
    session: Session, given: Settings | None = None, *, must_be_named: bool = False
) -> ClusterSpec:
    """Return the spec of flags, environment and TOML; ``given`` stands for more flags.

    ``must_be_named``: no provider is assumed where nobody can object.  UsageError, InputError.
    """
    from rain_deploy.options import spec  # noqa: PLC0415 - not for --help
    from rain_deploy.options.provider import choose_provider  # noqa: PLC0415

    flags, toml = {**session.flags, **(given or {})}, session.toml
    living = session.ctx.store.cluster(session.cluster)
    provider = choose_provider(
        flags,
        toml,
        living=living.provider if living else None,
        credentials=session.app.credentials,
        must_be_named=must_be_named and (session.options.yes or not session.app.interactive),
    )
    return spec.cluster_spec(session.cluster, provider, spec.merged(flags, toml))


def announced(session: Session, spec: ClusterSpec) -> ClusterSpec:
    """Return ``spec``; say first which provider and why, and, in red, whether everybody may try SSH."""
    session.say(f"provider {spec.provider}: {spec.provider_reason}")
    everybody = [net for net in spec.allow_ip if net.endswith("/0")]
    if everybody and spec.provider == CLOUD:
        session.say(f"SSH will be open to EVERY ADDRESS: {' and '.join(everybody)}", warning=True)
    return spec
