"""The figures that the script drew, as data in the page: a picture never runs a script of theirs."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.results.manifest import Manifest
from rain_deploy.results.names import decode_name

MOST_FIGURES = 60
MOST_BYTES = 24_000_000  # of all figures in the page
_SHARP_BYTES = 1_000_000  # a larger drawing is shown as its PNG
_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure; without a ``uri`` it stays a file beside the page."""

    name: str
    uri: str


def data_uri(content: bytes, kind: str) -> str:
    """Return the content as an address that needs no file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def pictures(directory: Path, manifest: Manifest) -> list[Picture]:
    """Return the figures in order; each is in the page once, as SVG unless that is large."""
    found: dict[str, dict[str, tuple[Path, int]]] = {}
    for path, size in _listed(manifest):
        inside = Path(path)
        if inside.parts[:1] == ("figures",) and inside.suffix in _TYPES and ".." not in inside.parts:
            found.setdefault(str(inside.with_suffix("")), {})[inside.suffix] = directory / inside, size
    shown, left_bytes = [], MOST_BYTES
    for number, (stem, forms) in enumerate(sorted(found.items())):
        suffix = _best(forms)
        file, size = forms[suffix]
        uri = ""
        if size <= left_bytes and number < MOST_FIGURES and file.is_file() and not file.is_symlink():
            uri, left_bytes = data_uri(file.read_bytes(), _TYPES[suffix]), left_bytes - size
        shown.append(Picture(f"{stem}{suffix}", uri))
    return shown


def _listed(manifest: Manifest) -> Iterable[tuple[str, int]]:
    for entry in manifest.get("files") or []:
        yield decode_name(str(entry.get("path", ""))), int(entry.get("size_bytes", 0))


def _best(forms: dict[str, tuple[Path, int]]) -> str:
    drawing = forms.get(".svg")
    return ".svg" if drawing and (drawing[1] <= _SHARP_BYTES or ".png" not in forms) else ".png"
