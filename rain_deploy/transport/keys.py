"""Logs in with the keys of a host as OpenSSH would: files, certificates, and the agent's keys."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import paramiko
from paramiko.pkey import PublicBlob

from rain_deploy.core.machine import Host

_BAD_KEY = (OSError, ValueError, TypeError, paramiko.SSHException, paramiko.pkey.UnknownKeyType)
"""Errors of paramiko and of the library below it for a key file that cannot be used, such as a locked one."""


_KINDS = (paramiko.RSAKey, paramiko.ECDSAKey, paramiko.Ed25519Key)


class Keys:
    """Is paramiko's ``auth_strategy`` for one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def authenticate(self, transport: paramiko.Transport) -> None:
        """Try one key after the other.  Raises paramiko's exception of the last one."""
        with contextlib.ExitStack() as opened:
            agent: tuple[paramiko.PKey, ...] = ()
            if self._host.use_agent:
                agent = opened.enter_context(contextlib.closing(paramiko.Agent())).get_keys()
            self._try(transport, {key.asbytes(): key for key in agent})

    def _try(self, transport: paramiko.Transport, agent: dict[bytes, paramiko.PKey]) -> None:
        problem: Exception = paramiko.SSHException("none of them can be used")
        for number, key in enumerate(self._keys(agent), start=1):
            try:
                if not transport.auth_publickey(self._host.user, key):
                    return
                problem = paramiko.SSHException("it asks for more than a key")
            except paramiko.SSHException as error:
                problem = error
            if not transport.is_active():  # MaxAuthTries of the server
                raise paramiko.SSHException(
                    f"it ended the connection after {number} keys; IdentitiesOnly limits which are tried"
                ) from problem
        raise problem

    def _keys(self, agent: dict[bytes, paramiko.PKey]) -> Iterator[paramiko.PKey]:
        """Yield the keys in order: those of the identity files, then others of the agent."""
        host = self._host
        for path in host.identity_files:
            public = _public(path)
            key = agent.pop(public, None) or _private(path)
            if key is not None:
                yield from _certified(key, (*host.certificate_files, Path(f"{path}-cert.pub")))
        if not host.identities_only:
            yield from agent.values()


def _public(path: Path) -> bytes:
    """Return the public key of an identity file, empty if it is not known: the file may hold only that."""
    for file in (Path(f"{path}.pub"), path):
        with contextlib.suppress(*_BAD_KEY):
            return bytes(PublicBlob.from_file(str(file)).key_blob)
    return b""


def _private(path: Path) -> paramiko.PKey | None:
    """Return the key of an identity file; None for one that is locked, unreadable or no private key."""
    with contextlib.suppress(*_BAD_KEY):
        key: paramiko.PKey = paramiko.PKey.from_path(path)
        key.public_blob = None  # a certificate beside it; ``_certified`` offers both
        return key
    return None


def _certified(key: paramiko.PKey, certificates: tuple[Path, ...]) -> Iterator[paramiko.PKey]:
    """Yield the key with each certificate that is for it, and at last without."""
    for path, kind in itertools.product(filter(os.path.isfile, certificates), _KINDS):
        with contextlib.suppress(*_BAD_KEY):
            blob = PublicBlob.from_file(str(path))
            if kind(data=blob.key_blob).asbytes() == key.asbytes():
                key.public_blob = blob
                yield key
                key.public_blob = None
    yield key
