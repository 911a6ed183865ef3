"""Ed25519 key pairs in OpenSSH's format; a private key is never readable by others, not even for a moment."""

import contextlib
import os
from pathlib import Path


def cluster_key(home: Path, cluster_id: str) -> Path:
    """Return the private key file (0600) for the cluster's nodes; create it if it is missing."""
    path = home / "clusters" / cluster_id / "id_ed25519"
    public_key(path)
    return path


def public_key(private: Path) -> str:
    """Return ``ssh-ed25519 base64`` of the key at ``private``; create it, its .pub and its directory."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - heavy
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - heavy

    if not private.exists():
        private.parent.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        private.parent.mkdir(exist_ok=True, mode=0o700)
        made = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        write_once(private, made, 0o600)
    key = serialization.load_ssh_private_key(private.read_bytes(), None)
    text = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    write_once(private.with_name(f"{private.name}.pub"), text + b"\n", 0o644)
    return text.decode()


def write_once(path: Path, data: bytes, mode: int) -> None:
    """Write ``path`` whole or not at all; an existing file stays, even if another writer has just made it."""
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()
