"""Names of any bytes as text that prints, and back."""

import urllib.parse


def encode_name(name: str) -> str:
    """Return the name with ``%XX`` for ``%``, bytes that are not UTF-8, and characters that do not print."""
    return "".join(
        char
        if char.isprintable() and char != "%"
        else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))
        for char in name
    )


def decode_name(text: str) -> str:
    """Return the name that ``encode_name`` was given."""
    return urllib.parse.unquote_to_bytes(text).decode("utf-8", "surrogateescape")
