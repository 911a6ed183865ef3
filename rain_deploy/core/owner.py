"""Who owns what this tool makes in an account that several people use."""

from __future__ import annotations

import hashlib
import re


def owner_tag(owner: str) -> str:
    """``owner`` in the letters that labels and names may have: lower case, digits, dashes; a letter first.

    Two owners never share a tag: what the letters lose, the digest at its end keeps.
    """
    readable = re.sub(r"[^a-z0-9]+", "-", owner.lower()).strip("-")[:24].strip("-")
    return f"o-{readable}-{hashlib.sha256(owner.encode()).hexdigest()[:8]}"
