"""Parts of machines that we created: user-data, a first boot, a time limit, a second host key.

If the change of the host key is interrupted at any moment, the machine answers with one of two keys, and
running the same two stages again continues from there.
"""

import math
from dataclasses import dataclass, replace

from rain_deploy.core.cluster import Node
from rain_deploy.core.layout import IDLE_PORT, MACHINE, ROOT_BASE, SET_MACHINE, USER_BASES
from rain_deploy.core.step import Stage, Step
from rain_deploy.parts.part import Part, facts_of
from rain_deploy.parts.shell import render, step

BOOT_GRANT_S = 1800  # how long a machine stays on that is started after its limit
RUN_GRACE_S = 120
"""From the end of a run with --then-off to the power-off of the server's node; results are fetched then."""
SILENT_S = 300  # after so long without an answer from a server, another node takes such a run for ended
THEN_OFF_S = RUN_GRACE_S + SILENT_S + 180  # until all are off: each looks once a minute
LIMIT_PROGRAM = "/usr/local/sbin/rain-deploy-limit"
TIMER = "rain-deploy-limit.timer"
NEW_KEY = "host_key"  # name under which a machine reports its new host key, ``ssh-ed25519 base64``
SWITCH_S = 30  # how long the SSH server may take to answer with the new key


def user_data(
    *, host_key_private: str, host_key_public: str, limit_s: float | None, idle_s: float | None
) -> bytes:
    """Return the user-data of one node, for cloud-init; under 24 KiB.

    Keys are OpenSSH texts.  ``limit_s``: epoch seconds; None: no limit.  ``idle_s``: None: it may idle.
    """
    timer = f"/etc/systemd/system/{TIMER}"
    files = (
        (f"{MACHINE}/one-time-host-key", "0644", f"{host_key_public}\n"),
        (f"{MACHINE}/limit", "0644", f"{_limit_text(limit_s)}\n"),
        (f"{MACHINE}/idle", "0644", f"{_limit_text(idle_s)}\n"),
        (LIMIT_PROGRAM, "0755", limit_program()),
        (timer.replace(".timer", ".service"), "0644", render("limit.service.j2", program=LIMIT_PROGRAM)),
        (timer, "0644", render("limit.timer.j2")),
    )
    keys = {"host_key_private": host_key_private, "host_key_public": host_key_public}
    text = render("user-data.j2", **keys, files=files, here=SET_MACHINE, timer=TIMER, timer_file=timer)
    return text.encode("ascii")


def limit_program() -> str:
    """Return the script that a timer starts on each machine, once a minute."""
    waits = {"run_grace_s": RUN_GRACE_S, "silent_s": SILENT_S}
    bases = {"root_base": ROOT_BASE, "user_bases": USER_BASES}
    return render("limit.sh.j2", **bases, idle_port=IDLE_PORT, boot_grant_s=BOOT_GRANT_S, **waits)


def _limit_text(seconds: float | None) -> str:
    """Return what the machine's files ``limit`` (epoch) and ``idle`` hold: whole seconds, or ``none``."""
    return "none" if seconds is None or math.isinf(seconds) else str(math.floor(seconds))


def limit_stage(limit_s: float | None) -> Stage:
    """Return the stage that moves a machine's limit (epoch seconds; None: no limit) and reads it back."""
    steps = (step("time limit", "limit-move.sh.j2", here=SET_MACHINE),)
    return Stage("limit", steps, variables=(("LIMIT", _limit_text(limit_s)),), deadline_s=60.0)


@dataclass(frozen=True, slots=True)
class FirstBoot(Part):
    """The end of cloud-init.  A machine without our mark would ignore its time limit, so it is not used."""

    new: frozenset[str]  # names of the nodes that are new
    stage_name = "boot"

    def lacks(self, node: Node) -> str | None:
        return "its first boot will be waited for" if node.name in self.new else None

    def stage(self, node: Node) -> Stage:
        return Stage(self.stage_name, (step("user-data", "boot.sh.j2"),), deadline_s=600.0)

    def done(self, node: Node) -> Node:
        return replace(node, facts=replace(facts_of(node), marked=True))


@dataclass(frozen=True, slots=True)
class HostKey(Part):
    """The machine's own host key: ``stage`` makes it; ``switch`` puts it in use once it is on record."""

    directory: str = "/etc/ssh"  # the SSH server's configuration
    stage_name = "new host key"

    def lacks(self, node: Node) -> str | None:
        """Return the need of a new key: the first is still in use, or a switch was interrupted."""
        facts = facts_of(node)
        first = facts.one_time_host_key or len(node.host.host_keys) > 1
        due = first and facts.marked and facts.root and facts.systemd
        return "it will get a host key of its own" if due else None

    def stage(self, node: Node) -> Stage:
        """Make a key beside the one in use, or find the one that was made; report its public part."""
        steps = (step("new host key", "host-keys-new.sh.j2", here=SET_MACHINE),)
        return Stage(self.stage_name, steps, variables=(("D", self.directory),), deadline_s=60.0)

    def switch(self, key: str) -> Stage:
        """Put the new key, whose public part is ``key``, in the place of the old; done once SSH offers it."""
        switch = step("switch host key", "host-keys-switch.sh.j2", deadline_s=SWITCH_S)
        forget = Step("forget the first host key", act=f'{SET_MACHINE}\n$SUDO rm -f "$M/one-time-host-key"')
        variables = (("D", self.directory), ("K", key))
        return Stage("switch host key", (switch, forget), variables=variables, deadline_s=SWITCH_S + 60.0)

    def done(self, node: Node) -> Node:
        return replace(node, facts=replace(facts_of(node), one_time_host_key=False))
