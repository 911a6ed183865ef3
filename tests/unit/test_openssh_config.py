"""What OpenSSH's own files say of a name, read by OpenSSH's own programs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rain_deploy.errors import InputError
from rain_deploy.providers.hosts.openssh_config import bare_keys, known_keys, look_up, why_unknown

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH client here")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """Three public keys, ``keytype base64``."""
    directory = tmp_path_factory.mktemp("keys")
    for name in "abc":
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{directory}/{name}"]
        subprocess.run(command, check=True)
    a, b, c = (" ".join((directory / f"{name}.pub").read_text().split()[:2]) for name in "abc")
    return a, b, c


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".ssh").mkdir()
    write_config(tmp_path, "")
    return tmp_path


def write_config(home: Path, text: str) -> None:
    (home / ".ssh" / "config").write_text(text, encoding="utf-8")


def known(home: Path, name: str, text: str, *, hashed: bool = False) -> tuple[str, ...]:
    file = home / ".ssh" / "known_hosts"
    file.write_text(text, encoding="utf-8")
    if hashed:
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", file], check=True, capture_output=True)
        assert name.partition(":")[0] not in file.read_text(encoding="utf-8")
    return known_keys(look_up(name, home), (file,))


def test_entries_are_read_as_ssh_reads_its_arguments(home: Path) -> None:
    for entry, expected in {
        "deb@192.0.2.7": ("deb", "192.0.2.7", 22),
        "deb@192.0.2.7:2201": ("deb", "192.0.2.7", 2201),
        "deb@[fd00::1]:2201": ("deb", "fd00::1", 2201),
        "deb@Box.example": ("deb", "box.example", 22),
    }.items():
        found = look_up(entry, home)
        assert (found.user, found.address, found.port) == expected
    assert look_up("fd00::1", home).address == "fd00::1"


def test_a_name_is_what_the_configuration_says(home: Path) -> None:
    key = home / "key 1"
    key.touch()
    (home / "more").write_text(f'Host gpu\n  Port 2201\n  IdentityFile "{key}"\n', encoding="utf-8")
    write_config(
        home,
        f"Include {home}/more\nHost gpu\n  HostName %h.example.com\n  User zed\n  IdentityFile ~/absent\n"
        "Match host gpu.example.com exec true\n  IdentitiesOnly yes\n",
    )
    found = look_up("gpu", home)
    assert (found.address, found.port, found.user) == ("gpu.example.com", 2201, "zed")
    assert found.identity_files == (key,)
    assert look_up("ann@gpu:22", home).user == "ann"
    assert look_up("ann@gpu:22", home).port == 22


def test_jumps_come_with_their_own_settings_first_hop_first(home: Path) -> None:
    write_config(
        home,
        "Host gpu\n  ProxyJump a@one:2201,two\nHost one\n  HostName 192.0.2.1\n  ProxyJump zero\n"
        # ssh gives every later hop its way, so what the configuration says of that is not asked
        "Host two\n  User bee\n  ProxyCommand nc %h %p\n",
    )
    jumps = look_up("gpu", home).jumps
    assert [(hop.user, hop.address, hop.port) for hop in jumps[1:]] == [
        ("a", "192.0.2.1", 2201),
        ("bee", "two", 22),
    ]
    assert jumps[0].address == "zero"


def test_a_circle_of_jumps_ends(home: Path) -> None:
    write_config(home, "Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")
    with pytest.raises(InputError, match="circle"):
        look_up("a", home)


def test_proxy_command_is_refused_and_the_entry_named(home: Path) -> None:
    write_config(home, "Host gpu\n  ProxyCommand nc %h %p\nHost behind\n  ProxyJump gpu\n")
    for entry in ("deb@gpu", "behind"):
        with pytest.raises(InputError, match=r"gpu.*ProxyCommand"):
            look_up(entry, home)


def test_the_agent_is_used_unless_the_configuration_says_none(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(home, f"Host no\n  IdentityAgent none\nHost other\n  IdentityAgent {home}/agent\n")
    assert look_up("plain", home).use_agent
    assert not look_up("no", home).use_agent
    with pytest.raises(InputError) as caught:
        look_up("other", home)
    assert caught.value.next_step == f"export SSH_AUTH_SOCK={home}/agent"
    monkeypatch.setenv("SSH_AUTH_SOCK", f"{home}/agent")
    assert look_up("other", home).use_agent


def test_a_configuration_that_ssh_refuses_is_reported_in_its_words(home: Path) -> None:
    write_config(home, "Hots gpu\n")
    with pytest.raises(InputError) as caught:
        look_up("gpu", home)
    assert "hots" in (caught.value.details or "")


@pytest.mark.parametrize(
    "entry",
    [
        *(
            "-oProxyCommand=id",
            "a@-oX=y",
            "-l@a",
            "a;id",
            "$(id)",
            "`id`",
            "a b",
            "a\nb",
            "",
            "@a",
            "a@",
            "a@b@c",
        ),
        *(
            "a:",
            "a:0",
            "a:65536",
            "a:x",
            "[a]",
            "[::1",
            "[::1]22",
            "fe80::1%eth0",
            "u'@a",
            "a|b",
            "böx",
            "a/b",
        ),
    ],
)
def test_what_is_no_entry_never_reaches_a_command(home: Path, entry: str) -> None:
    with pytest.raises(InputError, match="host entry"):
        look_up(entry, home)


@given(st.text(max_size=12).map(lambda tail: f"a{tail}"))
def test_of_any_text_only_names_pass(entry: str) -> None:
    try:
        found = look_up(entry, Path("/nonexistent"))
    except InputError:
        return
    assert set(entry) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+@:[]")
    assert not found.address.startswith("-")


@pytest.mark.parametrize("hashed", [False, True])
def test_keys_of_a_name_hashed_or_not(home: Path, keys: tuple[str, str, str], hashed: bool) -> None:
    a, b, c = keys
    text = f"box,192.0.2.7 {a}\nbox {b} comment\nother {c}\n"
    assert known(home, "box", text, hashed=hashed) == (a, b)
    assert known(home, "u@192.0.2.7", text, hashed=hashed) == (a,)
    assert known(home, "unknown", text, hashed=hashed) == ()


def test_the_port_belongs_to_the_name(home: Path, keys: tuple[str, str, str]) -> None:
    a, b, _ = keys
    assert known(home, "box:2201", f"[box]:2201 {a}\nbox {b}\n", hashed=True) == (a,)
    assert known(home, "box", f"[box]:2201 {a}\n") == ()
    # As OpenSSH does, or "run ssh once" would be no way out: ssh would not ask either.
    assert known(home, "box:2201", f"box {b}\n") == (b,)


def test_a_revoked_key_is_none_wherever_it_stands(home: Path, keys: tuple[str, str, str]) -> None:
    a, b, c = keys
    assert known(home, "box", f"box {a}\nbox {b}\n@revoked * {a}\n") == (b,)
    assert known(home, "box:2201", f"[box]:2201 {a}\nbox {c}\n@revoked box {a}\n") == ()


def test_a_certificate_authority_is_no_host_key(home: Path, keys: tuple[str, str, str]) -> None:
    assert known(home, "box", f"@cert-authority * {keys[0]}\n") == ()


@pytest.mark.parametrize("more", ["\n* {evil}", "\\n* {evil}", "\n@cert-authority * {evil}\n", ""])
@pytest.mark.parametrize("shell", ["sh", "bash", "zsh"])
def test_the_command_that_adds_a_key_adds_one_line_whatever_the_node_says(
    home: Path, keys: tuple[str, str, str], more: str, shell: str
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    mine = home / ".ssh/known_hosts"
    mine.write_text(f"@cert-authority * {keys[1]}\n")
    command = why_unknown(look_up("box", home))[1]
    fake = home / "bin/ssh"
    fake.parent.mkdir()
    (home / "said").write_text(keys[0] + more.format(evil=keys[2]) + "\n")
    fake.write_text(f"#!/bin/sh\ncat {home}/said\n")
    fake.chmod(0o755)
    environ = {"HOME": str(home), "PATH": f"{fake.parent}:/usr/bin:/bin"}
    subprocess.run([shell, "-c", command], env=environ, check=True)
    added = mine.read_text().splitlines()[1:]
    assert len(added) == 1
    assert added[0].startswith(f"box {keys[0]}")
    assert known_keys(look_up("other", home), (mine,)) == ()


def test_patterns_and_what_they_exclude(home: Path, keys: tuple[str, str, str]) -> None:
    text = f"*.lab,!bad.lab {keys[0]}\n"
    assert known(home, "good.lab", text) == (keys[0],)
    assert known(home, "bad.lab", text) == ()


def test_host_key_alias_replaces_the_name(home: Path, keys: tuple[str, str, str]) -> None:
    a, b, _ = keys
    write_config(home, "Host box\n  HostKeyAlias pinned\n  Port 2201\n")
    assert known(home, "box", f"[box]:2201 {a}\nbox {a}\npinned {b}\n", hashed=True) == (b,)


def test_the_known_hosts_files_are_those_of_the_configuration(home: Path) -> None:
    write_config(home, f"Host box\n  UserKnownHostsFile {home}/mine\n  GlobalKnownHostsFile none\n")
    assert look_up("box", home).known_hosts == (home / "mine", home / ".ssh" / "known_hosts")


def test_a_file_of_public_keys_names_no_host(tmp_path: Path, keys: tuple[str, str, str]) -> None:
    file = tmp_path / "host.pub"
    file.write_text(f"{keys[0]} root@box\n# {keys[1]}\nssh-gw {keys[2]}\n", encoding="utf-8")
    assert bare_keys(file) == (keys[0],)
    with pytest.raises(InputError, match="absent"):
        bare_keys(tmp_path / "absent")
