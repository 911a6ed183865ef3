"""Builds ``offline_mnist-1.0-py3-none-any.whl`` with nothing but zipfile: no build tools."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

NAME = "offline_mnist-1.0"
SOURCE = Path(__file__).parent / "offline_mnist" / "offline_mnist.py"


def build_offline_mnist(directory: Path) -> Path:
    """Write the wheel into ``directory`` and return its path.  The same bytes every time."""
    files = {
        "offline_mnist.py": SOURCE.read_text(),
        "offline_mnist.pth": "import offline_mnist\n",
        f"{NAME}.dist-info/METADATA": "Metadata-Version: 2.1\nName: offline-mnist\nVersion: 1.0\n",
        f"{NAME}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{NAME}.dist-info/RECORD"
    lines = [f"{name},{_hash(text)},{len(text.encode())}\n" for name, text in files.items()]
    files[record] = "".join([*lines, f"{record},,\n"])
    wheel = directory / f"{NAME}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), text)
    return wheel


def _hash(text: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
    return f"sha256={digest.rstrip(b'=').decode()}"
