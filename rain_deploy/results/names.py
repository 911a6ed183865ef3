"""File names of somebody else, written so that they print safely and read back exactly."""

from __future__ import annotations

import urllib.parse


def encode_name(name: str) -> str:
    """``%XX`` for ``%``, for bytes that are not UTF-8 and for what does not print; the rest as it is."""
    return "".join(
        char
        if char.isprintable() and char != "%"
        else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))
        for char in name
    )


def decode_name(text: str) -> str:
    """The name that ``encode_name`` was given."""
    return urllib.parse.unquote_to_bytes(text).decode("utf-8", "surrogateescape")
