"""What a machine is told at its first boot: its host key, its mark, and when to power itself off."""

from __future__ import annotations

from rain_deploy.core.layout import IDLE_PORT
from rain_deploy.parts.facts import ROOT_BASE, USER_BASES
from rain_deploy.parts.limit import limit_text
from rain_deploy.parts.machine import HERE, MACHINE
from rain_deploy.parts.templates import render as render_template

LIMIT_PROGRAM = "/usr/local/sbin/rain-deploy-limit"
TIMER = "rain-deploy-limit.timer"
BOOT_GRANT_S = 1800
"""A machine that is started after its limit stays on for so long."""
LOST_LIMIT_S = 12 * 3600
"""From boot to the power-off of a machine whose limit is no limit (a disk that lost it)."""
RUN_GRACE_S = 120
"""From the end of a run with --then-off to the power-off of the server's node; results are fetched then."""
SILENT_S = 300
"""So long no server answers before a governor's node takes such a run for ended."""
_UNITS = "/etc/systemd/system"
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
Description=Looks every minute whether this machine's time is over

[Timer]
OnCalendar=minutely
AccuracySec=1s

[Install]
WantedBy=timers.target
"""


def render(
    *, host_key_private: str, host_key_public: str, limit_s: float | None, idle_s: float | None
) -> bytes:
    """user-data of one node, for cloud-init; under 24 KiB.

    Keys are OpenSSH texts.  ``limit_s``: epoch seconds; None: no limit.  ``idle_s``: None: it may idle.
    """
    files = (
        (f"{MACHINE}/one-time-host-key", "0644", f"{host_key_public}\n"),
        (f"{MACHINE}/limit", "0644", f"{limit_text(limit_s)}\n"),
        (f"{MACHINE}/idle", "0644", f"{limit_text(idle_s)}\n"),
        (LIMIT_PROGRAM, "0755", limit_program()),
        (f"{_UNITS}/{TIMER.replace('.timer', '.service')}", "0644", _SERVICE_UNIT),
        (f"{_UNITS}/{TIMER}", "0644", _TIMER_UNIT),
    )
    return render_template(
        "user-data.j2",
        host_key_private=host_key_private,
        host_key_public=host_key_public,
        files=files,
        here=HERE,
        timer=TIMER,
        timer_file=f"{_UNITS}/{TIMER}",
    ).encode("ascii")


def limit_program() -> str:
    """The script that a timer starts on each machine, once a minute."""
    return render_template(
        "limit.sh.j2",
        root_base=ROOT_BASE,
        user_bases=USER_BASES,
        idle_port=IDLE_PORT,
        boot_grant_s=BOOT_GRANT_S,
        lost_limit_s=LOST_LIMIT_S,
        run_grace_s=RUN_GRACE_S,
        silent_s=SILENT_S,
    )
