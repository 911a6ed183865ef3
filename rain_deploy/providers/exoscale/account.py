"""The Exoscale account: key, secret, zone and endpoint as the ``exo`` command finds them.

Its order, read from its source (1.97): the environment's pair of key and secret before the account of
exoscale.toml; EXOSCALE_ZONE and EXOSCALE_API_ENDPOINT before that account's own.  A config file that is found
must be right, even if the environment has a pair.
"""

import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rain_deploy.errors import CredentialsError, InputError

SECRET_COMMAND_S = 120.0  # A person may have to type a passphrase
_KEYS = ("EXOSCALE_API_KEY", "EXOSCALE_KEY", "CLOUDSTACK_KEY", "CLOUDSTACK_API_KEY")
_SECRETS = (
    *("EXOSCALE_API_SECRET", "EXOSCALE_SECRET", "EXOSCALE_SECRET_KEY"),
    *("CLOUDSTACK_SECRET", "CLOUDSTACK_SECRET_KEY"),
)


@dataclass(frozen=True, slots=True)
class Account:
    """A key that signs requests, and where they go."""

    key: str
    secret: str = field(repr=False)
    zone: str | None  # None: neither the environment nor the config file names one
    endpoint: str | None  # with /v2 and without a slash at its end; None: Exoscale's own
    source: str  # which variables or which account of which file the key came from


@dataclass(frozen=True, slots=True)
class _Profile:
    where: str
    values: Mapping[str, Any] = field(repr=False)

    def text(self, key: str) -> str:
        """Return the value of a key, whose case does not matter; empty where it is missing."""
        value = self.values.get(key.lower(), "")
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value)
        raise InputError(f"{key} is not a text in {self.where}")


def find_account(
    environ: Mapping[str, str],
    *,
    home: Path,
    here: Path | None = None,
    secret_command_s: float = SECRET_COMMAND_S,
) -> Account | None:
    """Return the account that ``exo`` would use; None where nothing names one.

    ``home``: the user's home directory; ``here``: the working directory.  May run the account's
    secretCommand.  Raises InputError for a config file that cannot be read or is wrong; CredentialsError for
    an account without key or secret, and for a secretCommand that fails.
    """
    profile = _profile(environ, home, here or Path.cwd())
    if pair := _pair(environ):
        source, key, secret = pair
    elif profile:
        source, key, secret = profile.where, profile.text("key"), _secret(profile, secret_command_s)
    else:
        return None
    for what, value in (("key", key), ("secret", secret)):
        if not value:
            raise CredentialsError(f"there is no API {what} in {source}", next_step="exo config")
        if not (value.isascii() and value.isprintable()) or " " in value:  # no part of a header
            raise CredentialsError(f"the API {what} from {source} has invalid characters (a line end?)")
    zone, endpoint = (profile.text("defaultZone"), profile.text("endpoint")) if profile else ("", "")
    zone, endpoint = environ.get("EXOSCALE_ZONE") or zone, environ.get("EXOSCALE_API_ENDPOINT") or endpoint
    return Account(key, secret, zone or None, endpoint.rstrip("/") or None, source)


def credentials_found(environ: Mapping[str, str], home: Path, *, here: Path | None = None) -> str | None:
    """Return where ``find_account`` would take the key from, without running anything.  Raises InputError."""
    profile, pair = _profile(environ, home, here or Path.cwd()), _pair(environ)
    if pair:
        return pair[0]
    return profile.where if profile else None


def _pair(environ: Mapping[str, str]) -> tuple[str, str, str] | None:
    """Return where key and secret come from, and both.  The first name that is set counts, even if empty."""
    names = [next((name for name in group if name in environ), "") for group in (_KEYS, _SECRETS)]
    key, secret = (environ.get(name, "") for name in names)
    return (f"{' and '.join(names)} in the environment", key, secret) if key and secret else None


def _profile(environ: Mapping[str, str], home: Path, here: Path) -> _Profile | None:
    """Return the chosen account of the config file; None without a file."""
    if named := environ.get("EXOSCALE_CONFIG"):
        path: Path | None = here / named
    else:  # the first file in the places where ``exo`` looks, in its order
        config_home = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
        if sys.platform == "darwin":
            config_home = home / "Library/Application Support"
        places = (config_home / "exoscale", home / ".exoscale", home, here)
        paths = (place / name for place in places for name in ("exoscale.toml", "exoscale"))
        path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None
    try:
        config = _lower(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"Exoscale's config file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"Exoscale's config file {path} is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"Exoscale's config file {path} is not TOML: {error}") from None
    accounts = config.get("accounts", [])
    if not isinstance(accounts, list) or not all(isinstance(account, dict) for account in accounts):
        raise InputError(f"accounts is not a list of tables in {path}")
    name = environ.get("EXOSCALE_ACCOUNT") or str(config.get("defaultaccount", ""))
    names = [str(account.get("name", "")) for account in accounts]
    if name not in names:
        wrong = f"no account {name!r}" if name else "no defaultaccount"
        message = f"{path} has {wrong}; its accounts: {', '.join(names) or 'none'}"
        raise InputError(message, next_step="set EXOSCALE_ACCOUNT to one of them, or: exo config")
    return _Profile(f"account {name!r} of {path}", accounts[names.index(name)])


def _lower(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.lower(): _lower(one) for key, one in value.items()}
    return [_lower(one) for one in value] if isinstance(value, list) else value


def _secret(profile: _Profile, limit_s: float) -> str:
    """Return the secret, or what the secretCommand prints.  It may ask: it has this terminal."""
    command = profile.values.get("secretcommand") or []
    if isinstance(command, str):
        command = command.split(",")
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        raise InputError(f"secretCommand is not a list of texts in {profile.where}")
    if not command:
        return profile.text("secret")
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=limit_s, check=False)
        if done.returncode == 0:
            return done.stdout.decode().rstrip("\n")
        why = f"ended with exit code {done.returncode}"
    except OSError as error:
        why = f"cannot be run: {error.strerror}"
    except subprocess.TimeoutExpired:
        why = f"did not end within {limit_s:.0f} s"
    except UnicodeDecodeError:
        why = "printed something else than text"
    message = f"the secretCommand of {profile.where}, {command[0]!r}, {why}"
    raise CredentialsError(message, next_step="run it by hand: it must print the API secret")
