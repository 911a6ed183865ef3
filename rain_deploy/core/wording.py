"""Money and hours in words: one form for the command line and for sentences of flows."""

from __future__ import annotations

import time

DAY_S = 86400
HOUR_S = 3600
MINUTE_S = 60


def money(amount: float, currency: str) -> str:
    """``0.18 CHF``; small amounts keep two significant digits."""
    digits = 2 if amount == 0 or abs(amount) >= 0.1 else 4  # noqa: PLR2004  cents, else hundredths of them
    return f"{amount:.{digits}f} {currency}"


def hour(at_s: float, now_s: float) -> str:
    """``23:40 (in 11 h 50 min)`` in local time; with its date where that is not today."""
    at = time.localtime(at_s)
    same_day = time.localtime(now_s)[:3] == at[:3]
    shown = time.strftime("%H:%M" if same_day else "%Y-%m-%d %H:%M", at)
    return f"{shown} (in {span(at_s - now_s)})" if at_s > now_s else f"{shown} ({span(now_s - at_s)} ago)"


def span(seconds: float) -> str:
    """``2 d 3 h``, ``11 h 50 min``, ``4 min`` or ``12 s``."""
    left = round(seconds)
    if left >= DAY_S:
        return f"{left // DAY_S} d {left % DAY_S // HOUR_S} h"
    if left >= HOUR_S:
        return f"{left // HOUR_S} h {left % HOUR_S // MINUTE_S} min"
    return f"{left // MINUTE_S} min" if left >= MINUTE_S else f"{left} s"
