"""Which provider: flag or environment, config file, the living cluster, what is found; and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rain_deploy.errors import InputError, UsageError

if TYPE_CHECKING:
    from rain_deploy.options import Settings

CLOUD = "exoscale"
"""The provider whose machines cost money: the one that takes the flags about them."""


def choose_provider(
    flags: Settings,
    toml: Settings,
    *,
    living: str | None,
    credentials: Callable[[], str | None],
    must_be_named: bool,
) -> tuple[str, str]:
    """The provider and why.

    ``living``: that of the cluster of this name, which counts as named.  ``credentials``: where the cloud's
    are found.  UsageError when it ``must_be_named`` and is not; InputError for hosts given to another.
    """
    named = (
        (flags.provider, "named on the command line or in the environment"),
        (toml.provider, "named in the config file"),
        ("hosts" if flags.hosts or toml.hosts else None, "because hosts are listed"),
        (living, "as when this cluster was made"),
    )
    provider, reason = next((pair for pair in named if pair[0]), (None, ""))
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
            next_step=f"name it: --provider local, or --provider {CLOUD}",
        )
    if found := credentials():
        return CLOUD, f"no provider is named, and its credentials are found: {found}"
    return "local", "no provider is named and no cloud credentials are found"


def refuse_cloud_flags(provider: str, given: tuple[str, ...]) -> None:
    """InputError where flags about rented machines are ``given`` to a provider that rents none."""
    if given and provider != CLOUD:
        verb = "is for machines that rain-deploy rents" if len(given) == 1 else "are for rented machines"
        raise InputError(
            f"{', '.join(given)} {verb}; those of provider {provider} cost nothing here "
            "and are never powered off",
            next_step=f"leave {' and '.join(given)} out, or use --provider {CLOUD}",
        )
