"""The account is the one that the ``exo`` command uses, and its secret is shown nowhere."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from rain_deploy.errors import CredentialsError, InputError
from rain_deploy.providers.exoscale.account import Account, credentials_found, find_account

PAIR = {"EXOSCALE_API_KEY": "EXOenv", "EXOSCALE_API_SECRET": "env-canary"}
FILE = """
defaultaccount = "alice"
[[accounts]]
name = "alice"
key = "EXOalice"
secret = "alice-canary"
defaultZone = "de-fra-1"
endpoint = "https://alice.example/v2/"
[[accounts]]
name = "bob"
key = "EXObob"
secret = "bob-canary"
"""

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="the paths are those of Linux")


def write(path: Path, text: str = FILE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def find(home: Path, **environ: str) -> Account:
    account = find_account(environ, home=home, here=home / "here")
    assert account is not None
    return account


def test_nothing_anywhere_is_no_account(tmp_path: Path) -> None:
    assert find_account({}, home=tmp_path, here=tmp_path) is None
    assert credentials_found({}, tmp_path, here=tmp_path) is None


def test_the_environment_alone_suffices(tmp_path: Path) -> None:
    account = find(tmp_path, **PAIR, EXOSCALE_ZONE="ch-gva-2", EXOSCALE_API_ENDPOINT="http://127.3.0.1:1/v2/")
    assert (account.key, account.secret) == ("EXOenv", "env-canary")
    assert (account.zone, account.endpoint) == ("ch-gva-2", "http://127.3.0.1:1/v2")
    assert account.source == "EXOSCALE_API_KEY and EXOSCALE_API_SECRET in the environment"


def test_without_a_zone_none_is_named(tmp_path: Path) -> None:
    account = find(tmp_path, **PAIR, EXOSCALE_ZONE="", EXOSCALE_API_ENDPOINT="")
    assert (account.zone, account.endpoint) == (None, None)


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        ("EXOSCALE_KEY", "EXOSCALE_SECRET"),
        ("CLOUDSTACK_KEY", "EXOSCALE_SECRET_KEY"),
        ("CLOUDSTACK_API_KEY", "CLOUDSTACK_SECRET_KEY"),
    ],
)
def test_the_older_names_of_the_pair_count_too(tmp_path: Path, key: str, secret: str) -> None:
    account = find(tmp_path, **{key: "EXOold", secret: "old"})
    assert (account.key, account.secret) == ("EXOold", "old")
    assert key in account.source


def test_a_name_that_is_set_to_nothing_hides_the_older_ones(tmp_path: Path) -> None:
    environ = {"EXOSCALE_API_KEY": "", "EXOSCALE_KEY": "EXOold", "EXOSCALE_SECRET": "old"}
    assert find_account(environ, home=tmp_path, here=tmp_path) is None


def test_half_a_pair_in_the_environment_does_not_count(tmp_path: Path) -> None:
    write(tmp_path / ".config/exoscale/exoscale.toml")
    assert find(tmp_path, EXOSCALE_API_KEY="EXOenv").key == "EXOalice"


def test_the_file_gives_the_default_account_with_its_zone_and_endpoint(tmp_path: Path) -> None:
    path = write(tmp_path / ".config/exoscale/exoscale.toml")
    assert find(tmp_path) == Account(
        key="EXOalice",
        secret="alice-canary",
        zone="de-fra-1",
        endpoint="https://alice.example/v2",
        source=f"account 'alice' of {path}",
    )


def test_the_environments_pair_keeps_the_files_zone_and_endpoint(tmp_path: Path) -> None:
    write(tmp_path / ".config/exoscale/exoscale.toml")
    account = find(tmp_path, **PAIR)
    assert (account.key, account.zone, account.endpoint) == ("EXOenv", "de-fra-1", "https://alice.example/v2")


def test_zone_and_endpoint_of_the_environment_come_before_the_files(tmp_path: Path) -> None:
    write(tmp_path / ".config/exoscale/exoscale.toml")
    account = find(tmp_path, EXOSCALE_ZONE="at-vie-1", EXOSCALE_API_ENDPOINT="http://127.3.0.1:1/v2")
    assert (account.key, account.zone, account.endpoint) == ("EXOalice", "at-vie-1", "http://127.3.0.1:1/v2")


def test_exoscale_account_chooses_another_one(tmp_path: Path) -> None:
    write(tmp_path / ".config/exoscale/exoscale.toml")
    account = find(tmp_path, EXOSCALE_ACCOUNT="bob")
    assert (account.key, account.zone, account.endpoint) == ("EXObob", None, None)


def test_the_case_of_keys_does_not_matter(tmp_path: Path) -> None:
    text = (
        'DefaultAccount = "A"\n[[ACCOUNTS]]\nName = "A"\nKEY = "EXOa"\nSecret = "s"\ndefaultzone = "ch-gva-2"'
    )
    write(tmp_path / ".exoscale/exoscale.toml", text)
    assert (find(tmp_path).key, find(tmp_path).zone) == ("EXOa", "ch-gva-2")


def test_files_are_looked_for_where_exo_looks_in_its_order(tmp_path: Path) -> None:
    places = ("here", ".", ".exoscale", ".config/exoscale", "xdg/exoscale")
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    for place in places:
        write(tmp_path / place / "exoscale.toml", FILE.replace("EXOalice", f"EXO{len(place)}"))
        if place != ".config/exoscale":
            assert find(tmp_path, **environ).key == f"EXO{len(place)}"
    assert find(tmp_path).key == "EXO16"


def test_exoscale_config_names_the_one_file(tmp_path: Path) -> None:
    write(tmp_path / ".config/exoscale/exoscale.toml")
    write(tmp_path / "here/mine.toml", FILE.replace("EXOalice", "EXOmine"))
    assert find(tmp_path, EXOSCALE_CONFIG=str(tmp_path / "here/mine.toml")).key == "EXOmine"
    assert find(tmp_path, EXOSCALE_CONFIG="mine.toml").key == "EXOmine"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (None, "cannot be read"),
        ("defaultaccount = ", "not TOML"),
        ("", "no defaultaccount"),
        (
            'defaultaccount = "eve"\n' + FILE.partition("\n[[")[2].join(("[[", "")),
            "no account 'eve'; .*alice, bob",
        ),
        ('accounts = ["alice"]', "not a list of tables"),
        ('defaultaccount = "a"\n[[accounts]]\nname = "a"\nkey = ["k"]', "key is not a text"),
    ],
)
def test_a_wrong_file_is_reported_with_its_name(tmp_path: Path, text: str | None, match: str) -> None:
    path = tmp_path / "exoscale.toml"
    if text is not None:
        write(path, text)
    with pytest.raises(InputError, match=match) as caught:
        find(tmp_path, EXOSCALE_CONFIG=str(path))
    assert str(path) in caught.value.message


def test_a_wrong_file_is_an_error_beside_a_pair_too_as_with_exo(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        find(tmp_path, **PAIR, EXOSCALE_CONFIG=str(tmp_path / "absent.toml"))


def test_an_account_without_key_or_secret_names_its_file(tmp_path: Path) -> None:
    path = write(tmp_path / "exoscale.toml", 'defaultaccount = "a"\n[[accounts]]\nname = "a"\nkey = "EXOa"\n')
    with pytest.raises(CredentialsError, match=f"no API secret in account 'a' of {path}"):
        find(tmp_path)


def test_a_line_end_in_a_key_is_reported_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="characters") as caught:
        find(tmp_path, EXOSCALE_API_KEY="EXOenv", EXOSCALE_API_SECRET="canary\n")
    assert "canary" not in str(caught.value)


def with_command(home: Path, command: str, body: str = "") -> Path:
    script = write(home / "secret", f"#!/bin/sh\n{body}\n")
    script.chmod(stat.S_IRWXU)
    text = f'defaultaccount = "a"\n[[accounts]]\nname = "a"\nkey = "EXOa"\nsecretCommand = {command}\n'
    return write(home / "exoscale.toml", text.replace("SCRIPT", str(script)))


def test_secret_command_gives_the_secret_without_line_ends(tmp_path: Path) -> None:
    with_command(tmp_path, '["SCRIPT", "one"]', 'echo "canary-$1"; echo')
    assert find(tmp_path).secret == "canary-one"


def test_secret_command_as_one_text_is_split_at_commas_as_by_exo(tmp_path: Path) -> None:
    with_command(tmp_path, '"SCRIPT,one"', 'echo "canary-$1"')
    assert find(tmp_path).secret == "canary-one"


def test_a_pair_in_the_environment_runs_no_secret_command(tmp_path: Path) -> None:
    with_command(tmp_path, '["SCRIPT"]', f"touch {tmp_path}/ran; echo secret")
    assert find(tmp_path, **PAIR).secret == "env-canary"
    assert credentials_found({}, tmp_path, here=tmp_path) == f"account 'a' of {tmp_path / 'exoscale.toml'}"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("command", "body", "match"),
    [
        ('["SCRIPT"]', "echo canary; exit 3", "exit code 3"),
        ('["SCRIPT-absent"]', "", "cannot be run"),
        ('["SCRIPT"]', r"printf '\377canary'", "something else than text"),
        ('["SCRIPT"]', "exit 0", "no API secret"),
    ],
)
def test_a_secret_command_that_fails_is_reported_without_its_output(
    tmp_path: Path, command: str, body: str, match: str
) -> None:
    path = with_command(tmp_path, command, body)
    with pytest.raises(CredentialsError, match=match) as caught:
        find(tmp_path)
    assert str(path) in caught.value.message
    assert "canary" not in f"{caught.value}{caught.value.next_step}{caught.value.__cause__!r}"


def test_a_secret_command_that_does_not_end_is_ended(tmp_path: Path) -> None:
    with_command(tmp_path, '["SCRIPT"]', "sleep 30")
    with pytest.raises(CredentialsError, match="did not end"):
        find_account({}, home=tmp_path, here=tmp_path, secret_command_s=0.2)


def test_a_secret_is_in_no_repr(tmp_path: Path) -> None:
    write(tmp_path / "exoscale.toml")
    assert "canary" not in repr(find(tmp_path)) + repr(find(tmp_path, **PAIR))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_reported(tmp_path: Path) -> None:
    write(tmp_path / "exoscale.toml").chmod(0)
    with pytest.raises(InputError, match="cannot be read"):
        find(tmp_path)
