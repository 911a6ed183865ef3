"""Whose Exoscale account it is: key, secret, zone and endpoint as the ``exo`` command finds them.

Its order, read from its source (1.97): the environment's pair of key and secret before the account of
exoscale.toml; EXOSCALE_ZONE and EXOSCALE_API_ENDPOINT before what that account says.  A config file that
is found must be right, also where the environment has a pair.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rain_deploy.errors import CredentialsError, InputError

SECRET_COMMAND_S = 120.0
"""A person may have to type a passphrase."""
_KEYS = ("EXOSCALE_API_KEY", "EXOSCALE_KEY", "CLOUDSTACK_KEY", "CLOUDSTACK_API_KEY")
_SECRETS = (
    "EXOSCALE_API_SECRET",
    "EXOSCALE_SECRET",
    "EXOSCALE_SECRET_KEY",
    "CLOUDSTACK_SECRET",
    "CLOUDSTACK_SECRET_KEY",
)


@dataclass(frozen=True, slots=True)
class Account:
    """What signs requests, and where they go."""

    name: str
    key: str
    secret: str = field(repr=False)
    zone: str | None
    """None: neither the environment nor the account names one."""
    endpoint: str | None
    """With /v2 and without a slash at its end; None: Exoscale's own."""
    source: str
    """Which variables or which account of which file the key came from."""


@dataclass(frozen=True, slots=True)
class _Profile:
    """An account of a config file; all texts, empty where it says nothing."""

    name: str
    where: str
    values: Mapping[str, Any] = field(repr=False)

    def text(self, key: str) -> str:
        """Of the key, whose spelling's case does not matter."""
        value = self.values.get(key.lower(), "")
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value)
        raise InputError(f"{key} is no text in {self.where}")


def find_account(
    environ: Mapping[str, str],
    *,
    home: Path,
    here: Path | None = None,
    secret_command_s: float = SECRET_COMMAND_S,
) -> Account | None:
    """The account that ``exo`` would use; None where nothing names one.

    ``home``: the user's home directory; ``here``: the working directory.  Runs the account's
    secretCommand, at most so long.  InputError for a config file that cannot be read or is wrong;
    CredentialsError for an account without key or secret, and for a secretCommand that fails.
    """
    pair, profile = _pair(environ), _profile(environ, home, here or Path.cwd())
    if pair:
        source, key, secret = _names(environ), *pair
    elif profile:
        source, key, secret = profile.where, profile.text("key"), _secret(profile, secret_command_s)
    else:
        return None
    return Account(
        name=profile.name if profile else "environment",
        key=_usable(key, "key", source),
        secret=_usable(secret, "secret", source),
        zone=environ.get("EXOSCALE_ZONE") or (profile.text("defaultZone") if profile else "") or None,
        endpoint=_endpoint(environ, profile),
        source=source,
    )


def credentials_found(environ: Mapping[str, str], home: Path, *, here: Path | None = None) -> str | None:
    """Where ``find_account`` would take the key from; runs nothing.  InputError as there."""
    profile = _profile(environ, home, here or Path.cwd())
    if _pair(environ):
        return _names(environ)
    return profile.where if profile else None


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """The first name that is set, be it to nothing: the later ones do not count then."""
    return next((name for name in names if name in environ), None)


def _pair(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Key and secret, where both are set: one alone does not count."""
    key, secret = _first(environ, _KEYS), _first(environ, _SECRETS)
    if key and secret and environ[key] and environ[secret]:
        return environ[key], environ[secret]
    return None


def _names(environ: Mapping[str, str]) -> str:
    return f"{_first(environ, _KEYS)} and {_first(environ, _SECRETS)} in the environment"


def _endpoint(environ: Mapping[str, str], profile: _Profile | None) -> str | None:
    named = environ.get("EXOSCALE_API_ENDPOINT") or (profile.text("endpoint") if profile else "")
    return named.rstrip("/") or None


def _profile(environ: Mapping[str, str], home: Path, here: Path) -> _Profile | None:
    """The chosen account of the config file; None without a file."""
    path = _config_file(environ, home, here)
    if path is None:
        return None
    config = _lower(_parsed(path))
    accounts = config.get("accounts", [])
    if not isinstance(accounts, list) or not all(isinstance(account, dict) for account in accounts):
        raise InputError(f"accounts is no list of tables in {path}")
    name = environ.get("EXOSCALE_ACCOUNT") or str(config.get("defaultaccount", ""))
    names = [str(account.get("name", "")) for account in accounts]
    if name not in names:
        wrong = f"no account {name!r}" if name else "no defaultaccount"
        raise InputError(
            f"{path} has {wrong}; its accounts: {', '.join(names) or 'none'}",
            next_step="set EXOSCALE_ACCOUNT to one of them, or: exo config",
        )
    return _Profile(name, f"account {name!r} of {path}", accounts[names.index(name)])


def _config_file(environ: Mapping[str, str], home: Path, here: Path) -> Path | None:
    """EXOSCALE_CONFIG, else the first that exists of those places where ``exo`` looks, in its order."""
    if named := environ.get("EXOSCALE_CONFIG"):
        return here / named
    config = home / ("Library/Application Support" if sys.platform == "darwin" else ".config")
    if sys.platform != "darwin" and environ.get("XDG_CONFIG_HOME"):
        config = Path(environ["XDG_CONFIG_HOME"])
    places = (config / "exoscale", home / ".exoscale", home, here)
    paths = (place / name for place in places for name in ("exoscale.toml", "exoscale"))
    return next((path for path in paths if path.is_file()), None)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"Exoscale's config file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"Exoscale's config file {path} is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"Exoscale's config file {path} is no TOML: {error}") from None


def _lower(value: Any) -> Any:
    """The same with all keys in lower case: their case does not matter."""
    if isinstance(value, dict):
        return {key.lower(): _lower(one) for key, one in value.items()}
    return [_lower(one) for one in value] if isinstance(value, list) else value


def _secret(profile: _Profile, limit_s: float) -> str:
    command = profile.values.get("secretcommand", [])
    if isinstance(command, str):
        command = command.split(",")
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        raise InputError(f"secretCommand is no list of texts in {profile.where}")
    return _printed(command, profile.where, limit_s) if command else profile.text("secret")


def _printed(command: list[str], where: str, limit_s: float) -> str:
    """What the command prints, without line ends.  It may ask: it has this terminal."""
    failed = f"the secretCommand of {where}, {command[0]!r},"
    next_step = "run it by hand: it must print the API secret"
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=limit_s, check=False)
        if done.returncode != 0:
            raise CredentialsError(f"{failed} ended with exit code {done.returncode}", next_step=next_step)
        return done.stdout.decode().rstrip("\n")
    except OSError as error:
        raise CredentialsError(f"{failed} cannot be run: {error.strerror}", next_step=next_step) from None
    except subprocess.TimeoutExpired:
        waited = f"did not end within {limit_s:.0f} s"
        raise CredentialsError(f"{failed} {waited}", next_step=next_step) from None
    except UnicodeDecodeError:
        raise CredentialsError(f"{failed} printed something else than text", next_step=next_step) from None


def _usable(value: str, what: str, source: str) -> str:
    """A key goes into a header: nothing but visible characters."""
    if not value:
        raise CredentialsError(f"there is no API {what} in {source}", next_step="exo config")
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise CredentialsError(
            f"the API {what} from {source} has characters that no {what} has (a line end?)"
        )
    return value
