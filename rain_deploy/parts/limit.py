"""The time limit of a machine, as the machine itself keeps it: moved over SSH."""

from __future__ import annotations

import math

from rain_deploy.core.step import Stage, Step
from rain_deploy.parts.machine import HERE

_SAME = f'{HERE}; [ "$(cat "$M/limit")" = "$LIMIT" ]'
_MOVE = f"""\
{HERE}
if [ ! -f "$M/limit" ]; then echo "this machine has no time limit of ours ($M)"; exit 1; fi
if [ -w "$M" ]; then SUDO=; fi
echo "$LIMIT" | $SUDO sh -c 'umask 022; cat >"$0" && sync "$0" && mv -fT "$0" "$1"' "$M/.limit" "$M/limit\""""


def limit_text(seconds: float | None) -> str:
    """Content of the machine's files ``limit`` (epoch) and ``idle``: whole seconds, or ``none``."""
    return "none" if seconds is None or math.isinf(seconds) else str(math.floor(seconds))


def limit_stage(limit_s: float | None) -> Stage:
    """Move a machine's limit (epoch seconds; None: no limit), by rename, and read it back.

    One that is the same stays untouched: the machine takes a moved limit for a wish that it stays on.
    """
    step = Step("time limit", act=_MOVE, check=_SAME, verify=_SAME)
    return Stage("limit", (step,), variables=(("LIMIT", limit_text(limit_s)),), deadline_s=60.0)
