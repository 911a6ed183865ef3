"""How long a run may take: ``--timeout``, ``--max-cost``, and the time limit of the machine."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from ..run import Run
from ..wire import Outcome

_MACHINE = "/var/lib/rain-deploy-machine"  # core/layout.py has it too, which is not sent to nodes
_LOOK_EVERY_S = 2.0
PULLED_S = 120.0
"""So long before the machine powers itself off, its run is ended: who follows it then gets its results."""


@dataclass
class Limits:
    """What may end a run early.  ``extend`` moves the machine's limit while the run goes on."""

    run: Run
    machine: Path = Path(os.environ.get("RAIN_DEPLOY_MACHINE", _MACHINE))
    looked_s: float | None = None
    _off_s: float | None = None

    def reached(self) -> tuple[Outcome, str] | None:
        """Return how the run ends if a limit is reached."""
        about, now_s = self.run.about, time.clock_gettime(time.CLOCK_BOOTTIME)
        ran_s = now_s - (self.run.lives.begun_s or now_s)
        if about.timeout_s is not None and ran_s > about.timeout_s:
            return Outcome.TIMEOUT, f"the script did not end within {about.timeout_s:g} s"
        if about.cap and ran_s > about.cap.seconds:
            return Outcome.LIMIT, f"{about.cap.words} is reached"
        if self.looked_s is None or now_s - self.looked_s > _LOOK_EVERY_S:
            self.looked_s, self._off_s = now_s, self._read_off_s()
        if self._off_s is not None and time.time() > self._off_s - PULLED_S:
            return Outcome.LIMIT, "the machines power themselves off in two minutes, at their time limit"
        return None

    def _read_off_s(self) -> float | None:
        """Return when the machine powers itself off; None if it does not, or was started after that."""
        try:
            limit_s = float((self.machine / "limit").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
        booted_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return limit_s if limit_s > booted_s else None
