"""A machine's second host key: made there, reported, and put in the place of the one from user-data.

If this is interrupted at any moment, the machine answers with one of two keys, and running the same two
stages again goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rain_deploy.core.cluster import Node
from rain_deploy.core.layout import SET_MACHINE
from rain_deploy.core.step import Stage, Step
from rain_deploy.parts.part import Part, facts_of
from rain_deploy.parts.shell import render

NEW_KEY = "host_key"
"""Name under which the first stage reports ``ssh-ed25519 base64``."""
SWITCH_S = 30
"""How long the SSH server may take to answer with the new key."""


@dataclass(frozen=True, slots=True)
class HostKey(Part):
    """A host key of the machine's own, for machines that we made: the one from user-data is used only once.

    ``stage`` makes the key; ``switch`` puts it in use once it is on record.
    """

    directory: str = "/etc/ssh"
    """The SSH server's configuration."""
    stage_name = "new host key"

    def lacks(self, node: Node) -> str | None:
        """Due for a machine with our mark that has its first key, or where a switch was interrupted."""
        facts = facts_of(node)
        due = facts.one_time_host_key or len(node.host.host_keys) > 1
        if not (due and facts.marked and facts.root and facts.systemd):
            return None
        return "it will get a host key of its own"

    def stage(self, node: Node) -> Stage:
        """Make a key beside the one in use, or find the one that was made; report its public part."""
        del node
        step = Step("new host key", act=render("host-keys-new.sh.j2", here=SET_MACHINE))
        return Stage(self.stage_name, (step,), variables=(("D", self.directory),), deadline_s=60.0)

    def switch(self, key: str) -> Stage:
        """Put the new key, whose public part is ``key``, in the place of the old; done once SSH offers it."""
        offered = render("host-keys-offered.sh.j2", deadline_s=SWITCH_S)
        switch = Step("switch host key", act=render("host-keys-switch.sh.j2"), verify=offered)
        forget = Step("forget the first host key", act=f'{SET_MACHINE}\n$SUDO rm -f "$M/one-time-host-key"')
        variables = (("D", self.directory), ("K", key))
        return Stage("switch host key", (switch, forget), variables=variables, deadline_s=SWITCH_S + 60.0)

    def done(self, node: Node) -> Node:
        return replace(node, facts=replace(facts_of(node), one_time_host_key=False))
