"""The time limit of a machine: the program that keeps it there, and how it is moved over SSH."""

from __future__ import annotations

import math

from rain_deploy.core.layout import IDLE_PORT, ROOT_BASE, SET_MACHINE, USER_BASES
from rain_deploy.core.step import Stage, Step
from rain_deploy.parts.shell import render

LIMIT_PROGRAM = "/usr/local/sbin/rain-deploy-limit"
UNITS = "/etc/systemd/system"
TIMER = "rain-deploy-limit.timer"
BOOT_GRANT_S = 1800
"""How long a machine stays on that is started after its limit."""
LOST_LIMIT_S = 12 * 3600
"""How long after boot a machine with a damaged limit powers itself off."""
RUN_GRACE_S = 120
"""From the end of a run with --then-off to the power-off of the server's node; results are fetched then."""
SILENT_S = 300
"""After so long without an answer from a server, a governor's node takes such a run for ended."""
_SERVICE_UNIT = f"""\
[Unit]
Description=Powers this machine off at its time limit

[Service]
Type=oneshot
ExecStart={LIMIT_PROGRAM}
TimeoutStartSec=50
"""
# By the calendar: a check that failed does not end the checks.
_TIMER_UNIT = """\
[Unit]
Description=Checks every minute whether this machine's time is over

[Timer]
OnCalendar=minutely
AccuracySec=1s

[Install]
WantedBy=timers.target
"""
_SAME = f'{SET_MACHINE}; [ "$(cat "$M/limit")" = "$LIMIT" ]'
_MOVE = f"""\
{SET_MACHINE}
if [ ! -f "$M/limit" ]; then echo "this machine has no time limit of ours ($M)"; exit 1; fi
if [ -w "$M" ]; then SUDO=; fi
echo "$LIMIT" | $SUDO sh -c 'umask 022; cat >"$0" && sync "$0" && mv -fT "$0" "$1"' "$M/.limit" "$M/limit\""""


def limit_text(seconds: float | None) -> str:
    """Return what the machine's files ``limit`` (epoch) and ``idle`` hold: whole seconds, or ``none``."""
    return "none" if seconds is None or math.isinf(seconds) else str(math.floor(seconds))


def limit_stage(limit_s: float | None) -> Stage:
    """Return the stage that moves a machine's limit (epoch seconds; None: no limit) and reads it back.

    The same limit stays untouched: the machine takes a moved limit as the wish that it stays on.
    """
    step = Step("time limit", act=_MOVE, check=_SAME, verify=_SAME)
    return Stage("limit", (step,), variables=(("LIMIT", limit_text(limit_s)),), deadline_s=60.0)


def limit_files() -> tuple[tuple[str, str, str], ...]:
    """Return (path, mode, content) of what keeps the limit on a machine: the program and its timer."""
    service = TIMER.replace(".timer", ".service")
    return (
        (LIMIT_PROGRAM, "0755", limit_program()),
        (f"{UNITS}/{service}", "0644", _SERVICE_UNIT),
        (f"{UNITS}/{TIMER}", "0644", _TIMER_UNIT),
    )


def limit_program() -> str:
    """Return the script that a timer starts on each machine, once a minute."""
    return render(
        "limit.sh.j2",
        root_base=ROOT_BASE,
        user_bases=USER_BASES,
        idle_port=IDLE_PORT,
        boot_grant_s=BOOT_GRANT_S,
        lost_limit_s=LOST_LIMIT_S,
        run_grace_s=RUN_GRACE_S,
        silent_s=SILENT_S,
    )
