"""Unpacks what a task left: its output, figures and files, which its process sent as a tar."""

import io
import shutil
import tarfile
from pathlib import Path, PurePosixPath


def unpack(data: bytes, directory: Path) -> None:
    """Unpack the plain files of a tar into a directory, which is replaced.  Raises OSError.

    The tar comes from a process that runs the user's code, so nothing else of it is trusted.
    """
    part = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                place = PurePosixPath(member.name)
                plain = member.type == tarfile.REGTYPE and not member.sparse and member.size <= len(data)
                if not plain or not place.parts or place.is_absolute() or ".." in place.parts:
                    continue
                content = tar.extractfile(member)
                target = part / place
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read() if content else b"")
        shutil.rmtree(directory, ignore_errors=True)
        part.rename(directory)
    except OSError:
        raise
    except Exception as error:  # tarfile raises many kinds for a damaged header
        raise OSError(f"what a task left cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
