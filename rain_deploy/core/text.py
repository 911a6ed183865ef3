"""Values as users read and write them: money, hours, addresses, owners."""

import hashlib
import ipaddress
import re
import time
from collections.abc import Sequence

DAY_S = 86400
HOUR_S = 3600
MINUTE_S = 60
KILO = 1000
_SHORT_S = 9.95  # below, tenths of a second say something
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def money(amount: float, currency: str) -> str:
    """Return ``0.18 CHF``; small amounts keep two significant digits."""
    digits = 2 if amount == 0 or abs(amount) >= 0.1 else 4  # noqa: PLR2004  cents, else hundredths of them
    return f"{amount:.{digits}f} {currency}"


def clock(at_s: float, now_s: float) -> str:
    """Return ``23:40`` in local time, with its date if that is not today."""
    at = time.localtime(at_s)
    same_day = time.localtime(now_s)[:3] == at[:3]
    return time.strftime("%H:%M" if same_day else "%Y-%m-%d %H:%M", at)


def hour(at_s: float, now_s: float) -> str:
    """Return ``23:40 (in 11 h 50 min)`` in local time, with its date if that is not today."""
    shown = clock(at_s, now_s)
    return f"{shown} (in {span(at_s - now_s)})" if at_s > now_s else f"{shown} ({span(now_s - at_s)} ago)"


def span(seconds: float) -> str:
    """Return ``2 d 3 h``, ``11 h 50 min``, ``4 min`` or ``12 s``."""
    left = round(seconds)
    if left >= DAY_S:
        return f"{left // DAY_S} d {left % DAY_S // HOUR_S} h"
    if left >= HOUR_S:
        return f"{left // HOUR_S} h {left % HOUR_S // MINUTE_S} min"
    return f"{left // MINUTE_S} min" if left >= MINUTE_S else f"{left} s"


def duration(seconds: float) -> str:
    """Return ``4.2 s``, ``42 s``, ``3 min 05 s`` or ``2 h 07 min``; what takes ten days or more as a span."""
    if seconds < _SHORT_S:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < MINUTE_S or whole >= 10 * DAY_S:
        return span(whole)
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min {whole % MINUTE_S:02} s"
    return f"{whole // HOUR_S} h {whole % HOUR_S // MINUTE_S:02} min"


def size(value: float) -> str:
    """Return bytes in powers of 1000: ``12.3 GB``."""
    for unit in ("B", "kB", "MB"):
        if value < KILO:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= KILO
    return f"{value:.1f} GB"


def count(number: int, noun: str) -> str:
    """Return ``1 point`` or ``2 points``."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def some(names: Sequence[str], most: int = 5) -> str:
    """Return ``a, b, c and 2 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def cluster_flag(cluster: str) -> str:
    """Return what a command needs to act on ``cluster``: nothing for the default one."""
    return "" if cluster == "default" else f" -c {cluster}"


def parse_network(text: str) -> Network:
    """Return the network of a CIDR; an address alone is a network of one."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f'a network such as "10.0.0.0/24" ({error})') from error


def parse_address(text: str) -> Address:
    """Return the IP address."""
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise ValueError(f"an IP address, not {text!r}") from error


def parse_peer_address(text: str) -> Address:
    """Return the IP address at which other machines are to reach one."""
    address = parse_address(text)
    local = address.is_link_local and address.version == 6  # noqa: PLR2004 - IPv6 needs an interface with it
    if address.is_unspecified or address.is_multicast or local:
        raise ValueError(f"an address that other machines can use, not {text}")
    return address


def is_address(text: str) -> bool:
    """True for an IP address without an interface."""
    try:
        return "%" not in str(parse_address(text))
    except ValueError:
        return False


def owner_tag(owner: str) -> str:
    """Return ``owner`` in the letters of labels and names: lower case, digits and dashes, a letter first.

    Two owners never share a tag: what the letters lose, the digest at its end keeps.
    """
    readable = re.sub(r"[^a-z0-9]+", "-", owner.lower()).strip("-")[:24].strip("-")
    return f"o-{readable}-{hashlib.sha256(owner.encode()).hexdigest()[:8]}"
