"""Which provider: flag or environment, config file, the living cluster, what is found; and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain_deploy.errors import InputError, UsageError

if TYPE_CHECKING:
    from rain_deploy.config import Settings


def choose_provider(
    flags: Settings,
    toml: Settings,
    *,
    living: str | None,
    credentials: bool,
    must_be_named: bool,
) -> tuple[str, str]:
    """The provider and why.

    ``living``: that of the cluster of this name, which counts as named.  ``credentials``: Exoscale's
    are in the environment.  UsageError when it ``must_be_named`` and is not; InputError for one that
    this version has not, and for hosts given to another provider.
    """
    named = (
        (flags.provider, "named on the command line or in the environment"),
        (toml.provider, "named in the config file"),
        ("hosts" if flags.hosts or toml.hosts else None, "because hosts are listed"),
        (living, "as when this cluster was made"),
    )
    provider, reason = next((pair for pair in named if pair[0]), (None, ""))
    if provider == "exoscale":
        raise InputError(
            "provider exoscale is not in this version of rain-deploy; it has hosts and local",
            next_step="rain-deploy up --provider local",
        )
    if flags.hosts and provider != "hosts":
        raise InputError(
            f"hosts are listed, but the provider is {provider}",
            next_step="rain-deploy up --provider hosts --hosts …",
        )
    if provider:
        return provider, reason
    if must_be_named:
        raise UsageError(
            "no provider is named, and nobody is there to object to an assumed one",
            next_step="rain-deploy up --provider local",
        )
    if credentials:
        return "local", "Exoscale credentials are set, but this version has no provider for them"
    return "local", "no provider is named and no cloud credentials are set"
