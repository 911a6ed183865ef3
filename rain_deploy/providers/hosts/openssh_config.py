"""Finds out how the user's OpenSSH reaches a machine, by asking ``ssh -G`` and ``ssh-keygen -F``.

They read Include, Match, tokens, and hashed and revoked keys exactly as the user's ``ssh`` does.  Nothing
here opens a connection.
"""

import itertools
import os
import pwd
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rain_deploy.core.text import is_address
from rain_deploy.errors import InputError

ASK_DEADLINE_S = 20.0
"""Deadline of ssh or ssh-keygen, including a ``Match exec`` in the user's configuration."""
MAX_HOPS = 8
SSH_PORT = 22

_USER = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_ENTRY = re.compile(
    rf"(?:(?P<user>{_USER})@)?(?:\[(?P<ip>[0-9A-Fa-f:.]+)\]|(?P<name>{_NAME}))(?::(?P<port>[0-9]{{1,5}}))?"
)
_PUBLIC_KEY = re.compile(r"((?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+\s+AAAA[A-Za-z0-9+/=]+)(?:\s.*)?")


class Destination(NamedTuple):
    """A machine as the user's OpenSSH would reach it."""

    command: str
    address: str
    port: int
    user: str
    key_names: tuple[str, ...]  # names to look for in known_hosts; the first that has keys decides
    known_hosts: tuple[Path, ...]
    identity_files: tuple[Path, ...]
    certificate_files: tuple[Path, ...]
    use_agent: bool
    identities_only: bool
    jumps: tuple["Destination", ...] = ()
    asks_for_keys: bool = False  # KnownHostsCommand is set


def look_up(entry: str, home: Path, *, via: str = "", depth: int = 0) -> Destination:
    """Return the machine that ``entry`` (``[user@]name[:port]``) leads to; ``via`` is the jump before it.

    Raises InputError, which names the entry, for an invalid name, ProxyCommand, an agent other than the
    session's, a configuration that ssh refuses, and if ssh is not installed here.
    """
    what = f"host entry {entry!r}"
    if depth > MAX_HOPS:
        raise InputError(f"{what}: more than {MAX_HOPS} jumps, or ProxyJump leads in a circle")
    options, name = _arguments(entry)
    jump = ("-J", via) if via else ()
    config = home / ".ssh" / "config"
    moved = home != Path(pwd.getpwuid(os.getuid()).pw_dir)  # ssh takes the home of the user database
    own = ("-F", str(config)) if moved and config.is_file() else ()
    answer = _ask(("ssh", "-G", *own, *options, *jump, "--", name), what)
    if answer.returncode:
        raise InputError(f"{what}: ssh refuses its configuration", details=answer.stderr)
    settings: dict[str, list[str]] = {}
    for key, _, value in (line.partition(" ") for line in answer.stdout.splitlines()):
        settings.setdefault(key, []).append(value)
    jumps: list[Destination] = []
    before = ""
    # As in OpenSSH, only the first hop's own ProxyJump counts.
    hops = "none" if via else settings.get("proxyjump", ["none"])[0]
    for hop in hops.split(",") if hops not in {"", "none"} else ():
        reached = look_up(hop, home, via=before, depth=depth + 1)
        jumps += [*reached.jumps, reached]
        before = hop
    command = shlex.join(("ssh", *options, name))
    return _Settings(entry, settings, home).destination(command=command, name=name, jumps=tuple(jumps))


def known_keys(destination: Destination, files: Sequence[Path]) -> tuple[str, ...]:
    """Return its keys (``keytype base64``) in known_hosts ``files``, without revoked ones.

    As in OpenSSH, the name with the port decides, and the bare name only if that has no key.  Raises
    InputError if a file cannot be read.
    """
    found = _rows(destination, files)
    revoked = {key for rows in found.values() for mark, key in rows if mark == "@revoked"}
    plain = ([key for mark, key in rows if not mark] for rows in found.values())
    keys = next(filter(None, plain), [])
    return tuple(key for key in dict.fromkeys(keys) if key not in revoked)


def why_unknown(destination: Destination) -> tuple[str, str]:
    """Return why its key is not known although ``ssh`` may connect, and what to type."""
    step = f"run `{destination.command}` once, and check the key it shows"
    marks = {mark for rows in _rows(destination, destination.known_hosts).values() for mark, _ in rows}
    if "@cert-authority" in marks:
        copied = f"{destination.command} cat /etc/ssh/ssh_host_ed25519_key.pub"
        why = "its host key is known through @cert-authority alone, which rain-deploy cannot check"
        return (
            why,
            f'printf "%s\\n" "{destination.key_names[0]} $({copied} | head -n 1)" >>~/.ssh/known_hosts',
        )
    setting = (
        "KnownHostsCommand" if destination.asks_for_keys else "UserKnownHostsFile and StrictHostKeyChecking"
    )
    without = f"take {setting} for it out of your OpenSSH configuration, then {step}"
    if destination.asks_for_keys:
        return "its KnownHostsCommand is not supported", without
    if Path("/dev/null") in destination.known_hosts:
        return "its UserKnownHostsFile is /dev/null, so ssh keeps no host keys", without
    return "its host key is not in your known_hosts, or is revoked there", step


def _rows(destination: Destination, files: Sequence[Path]) -> dict[str, list[tuple[str, str]]]:
    """Return (mark, key) of the lines for each name of the machine; a mark is empty or like ``@revoked``."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, file in itertools.product(destination.key_names, files):
        rows = found.setdefault(name, [])
        if not os.path.isfile(file):  # noqa: PTH113 - False also if a parent cannot be entered
            continue
        answer = _ask(("ssh-keygen", "-F", name, "-f", str(file)), f"known hosts of {name}")
        if answer.returncode not in {0, 1}:
            raise InputError(f"{file} cannot be read as a known_hosts file", details=answer.stderr)
        for line in (line for line in answer.stdout.splitlines() if not line.startswith("#")):
            fields = line.split()
            mark = fields.pop(0) if line.startswith("@") else ""  # @revoked or @cert-authority
            if len(fields) > 2:  # noqa: PLR2004 - hosts, type, key
                rows.append((mark, f"{fields[1]} {fields[2]}"))
    return found


def bare_keys(file: Path) -> tuple[str, ...]:
    """Return the keys of the lines that name no host, as in a ``.pub`` file.  Raises InputError."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the host key file {file} cannot be read: {error}") from error
    return tuple(
        " ".join(match[1].split()) for line in lines if (match := _PUBLIC_KEY.fullmatch(line.strip()))
    )


def _arguments(entry: str) -> tuple[tuple[str, ...], str]:
    """Return options and name for ssh.  Only valid names pass: others can be attacks (CVE-2023-51385)."""
    if is_address(entry):
        return (), entry
    match = _ENTRY.fullmatch(entry)
    if match is None or (match["ip"] and not is_address(match["ip"])):
        raise InputError(
            f"host entry {entry!r} is not valid: expected user@host, user@host:port, [IPv6]:port or a name "
            "in your OpenSSH configuration"
        )
    if match["port"] and not 0 < int(match["port"]) < 1 << 16:
        raise InputError(f"host entry {entry!r}: port {match['port']} is not between 1 and 65535")
    port = ("-p", match["port"]) if match["port"] else ()
    user = ("-l", match["user"]) if match["user"] else ()
    return (*port, *user), match["ip"] or match["name"]


def _ask(argv: tuple[str, ...], what: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=ASK_DEADLINE_S,
        )
    except FileNotFoundError as error:
        message = f"{what}: {argv[0]} is not installed here; it is needed to read your OpenSSH configuration"
        raise InputError(message, next_step="sudo apt-get install openssh-client") from error
    except subprocess.TimeoutExpired as error:
        message = f"{what}: {argv[0]} gave no answer within {ASK_DEADLINE_S:.0f} s (a Match exec that hangs?)"
        raise InputError(message) from error


class _Settings:
    def __init__(self, entry: str, values: dict[str, list[str]], home: Path) -> None:
        self._what, self._values, self._home = f"host entry {entry!r}", values, home

    def one(self, key: str) -> str:
        return self._values.get(key, [""])[0]

    def destination(self, *, command: str, name: str, jumps: tuple[Destination, ...]) -> Destination:
        address, user, port = self.one("hostname").lower(), self.one("user"), int(self.one("port"))
        if not (is_address(address) or re.fullmatch(_NAME, address)) or not re.fullmatch(_USER, user):
            raise InputError(f"{self._what} leads to {user!r} at {address!r}, which are not valid names")
        if self.one("proxycommand") not in {"", "none"}:
            raise InputError(
                f"{self._what}: its ProxyCommand is not supported, only ProxyJump is",
                next_step=f"write ProxyJump instead of ProxyCommand for {name} in {self._home}/.ssh/config",
            )
        numbered = (address,) if port == SSH_PORT else (f"[{address}]:{port}", address)
        tokens = {"h": address, "n": name, "p": str(port), "r": user}
        known = [*self._files("userknownhostsfile"), *self._files("globalknownhostsfile")]
        certificates = [self._path(file, tokens) for file in self._values.get("certificatefile", ())]
        identities = [self._path(file, tokens) for file in self._values.get("identityfile", ())]
        if (revoked := self.one("revokedhostkeys")) not in {"", "none"}:
            raise InputError(f"{self._what}: its RevokedHostKeys {revoked} is not supported")
        return Destination(
            command=command,
            address=address,
            port=port,
            user=user,
            key_names=(alias,) if (alias := self.one("hostkeyalias")) else numbered,
            known_hosts=tuple(dict.fromkeys([*known, self._home / ".ssh" / "known_hosts"])),
            # Of a key that only the agent has, there may be nothing but the public half.
            identity_files=tuple(p for p in identities if p.is_file() or Path(f"{p}.pub").is_file()),
            certificate_files=tuple(filter(os.path.isfile, certificates)),
            use_agent=self._use_agent(),
            identities_only=self.one("identitiesonly") == "yes",
            asks_for_keys=self.one("knownhostscommand") not in {"", "none"},
            jumps=jumps,
        )

    def _path(self, text: str, tokens: dict[str, str]) -> Path:
        """Return the path that ``text`` means; ``ssh -G`` leaves ``~`` and tokens in it."""
        known = {"%": "%", "d": str(self._home), "u": pwd.getpwuid(os.getuid()).pw_name, **tokens}
        text = re.sub("%(.)", lambda match: known.get(match[1], match[0]), text)
        return self._home / text[2:] if text.startswith("~/") else Path(text)

    def _files(self, key: str) -> list[Path]:
        """Return a list of files; ``ssh -G`` puts a space between them, and leaves out quotes."""
        files, words = [], self.one(key).split(" ")
        while words:
            joined = (" ".join(words[:count]) for count in range(len(words), 1, -1))
            file = next((text for text in joined if os.access(self._path(text, {}), os.F_OK)), words[0])
            words = words[file.count(" ") + 1 :]
            files += [self._path(file, {})] if file not in {"", "none"} else []
        return files

    def _use_agent(self) -> bool:
        """Return whether the session's agent may log in; an agent elsewhere is refused and not ignored."""
        wanted, session = self.one("identityagent"), os.environ.get("SSH_AUTH_SOCK", "")
        if wanted == "none":
            return False
        path = os.path.expandvars(wanted) if wanted.startswith("$") else str(self._path(wanted, {}))
        if wanted in {"", "SSH_AUTH_SOCK"} or path == session:
            return True
        message = f"{self._what}: its IdentityAgent {path} is not the agent of this session"
        raise InputError(message, next_step=f"export SSH_AUTH_SOCK={shlex.quote(path)}")
