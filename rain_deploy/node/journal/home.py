"""Unpacks what a task printed and wrote."""

import io
import tarfile
from pathlib import Path, PurePosixPath


def unpack(data: bytes, directory: Path) -> None:
    """Write the plain files of a tar below a directory.  Raises OSError."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            parts = PurePosixPath(member.name).parts
            content = archive.extractfile(member) if member.isreg() else None
            if content is None or ".." in parts or PurePosixPath(member.name).is_absolute():
                continue
            path = directory.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())
