"""The directory in which a machine keeps what our user-data told it."""

from __future__ import annotations

MACHINE = "/var/lib/rain-deploy-machine"
"""RAIN_DEPLOY_MACHINE of the machine's environment where that is set.

Its file ``mark`` says that our user-data came to its end, so that the machine obeys its time limit.  Only
the one at this very path allows to power a machine off or to give it new host keys.
"""
HERE = f"M=${{RAIN_DEPLOY_MACHINE:-{MACHINE}}}"
"""Shell text that sets ``$M``."""
