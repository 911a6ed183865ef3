"""Choose the provider: flag or environment, config file, the living cluster's, what is found; and say why."""

from __future__ import annotations

from collections.abc import Callable

from rain_deploy.errors import InputError, UsageError
from rain_deploy.options.spec import Settings
from rain_deploy.options.table import CLOUD, OPTIONS, Group


def choose_provider(
    flags: Settings,
    toml: Settings,
    *,
    living: str | None,
    credentials: Callable[[], str | None],
    must_be_named: bool,
) -> tuple[str, str]:
    """Return the provider, and why this one.

    ``living`` is that of the cluster of this name, which counts as named; ``credentials`` says where those of
    the cloud are.  UsageError when it ``must_be_named`` and is not; InputError for hosts given to another and
    for flags about rented machines given to a provider that rents none.
    """
    named = (
        (flags.get("provider"), "named on the command line or in the environment"),
        (toml.get("provider"), "named in the config file"),
        ("hosts" if flags.get("hosts") or toml.get("hosts") else None, "because hosts are listed"),
        (living, "as when this cluster was made"),
    )
    provider, reason = next((pair for pair in named if pair[0]), (None, ""))
    if flags.get("hosts") and provider != "hosts":
        raise InputError(
            f"hosts are listed, but the provider is {provider}",
            next_step="rain-deploy up --provider hosts --hosts …",
        )
    if provider is None:
        if must_be_named:
            raise UsageError(
                "no provider given; pass --provider when not interactive",
                next_step=f"add --provider local, or --provider {CLOUD}",
            )
        found = credentials()
        provider, reason = (
            (CLOUD, f"no provider given, and its credentials were found: {found}")
            if found
            else ("local", "no provider given, and no cloud credentials were found")
        )
    refuse_rented(provider, flags)
    return provider, reason


def refuse_rented(provider: str, flags: Settings) -> None:
    """Raise InputError if ``flags`` about rented machines are given to a provider that rents none."""
    rented = [OPTIONS[name] for name, value in flags.items() if value and name in OPTIONS]
    given = [o.flags[-1] for o in rented if o.group is Group.RENTED or o.name == "then_off"]
    if given and provider != CLOUD:
        raise InputError(
            f"{', '.join(given)}: only for machines that rain-deploy rents; those of provider {provider} "
            "cost nothing here and are never powered off",
            next_step=f"leave out {' and '.join(given)}, or use --provider {CLOUD}",
        )
