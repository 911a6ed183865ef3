"""The end of a machine's first boot: our user-data has done its work before anything is installed."""

from __future__ import annotations

from rain_deploy.core.step import Stage, Step
from rain_deploy.parts.templates import render

BOOT_DEADLINE_S = 600.0


def boot_stage() -> Stage:
    """Wait for cloud-init, then look for the mark that our user-data writes.

    Without it the machine would not power itself off at its time limit, so it is not used.
    """
    return Stage("boot", (Step("user-data", act=render("boot.sh.j2")),), deadline_s=BOOT_DEADLINE_S)
