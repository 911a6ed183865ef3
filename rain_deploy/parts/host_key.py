"""A machine's second host key: made on the machine, told, and put in the place of the one from user-data.

Whatever moment these are broken off at, the machine answers with one of two keys, and the same two stages,
given again, go on.
"""

from __future__ import annotations

from rain_deploy.core.layout import SET_MACHINE
from rain_deploy.core.step import Stage, Step
from rain_deploy.parts.shell import render

SSH_DIRECTORY = "/etc/ssh"
NEW_KEY = "host_key"
"""Under this name the first stage reports ``ssh-ed25519 base64``."""
SWITCH_S = 30
"""For the SSH server to answer with the new key."""


def new_host_key_stage(directory: str = SSH_DIRECTORY) -> Stage:
    """Make a key beside the one in use, or find the one that was made; report its public part."""
    act = render("host-keys-new.sh.j2", here=SET_MACHINE)
    steps = (Step("new host key", act=act),)
    return Stage("new host key", steps, variables=(("D", directory),), deadline_s=60.0)


def switch_host_key_stage(key: str, directory: str = SSH_DIRECTORY) -> Stage:
    """Put the new key, whose public part is ``key``, in the place of the old; done once SSH offers it."""
    switch = render("host-keys-switch.sh.j2")
    offered = render("host-keys-offered.sh.j2", deadline_s=SWITCH_S)
    forget = f'{SET_MACHINE}\n$SUDO rm -f "$M/one-time-host-key"'
    return Stage(
        "switch host key",
        (Step("switch host key", act=switch, verify=offered), Step("forget the first host key", act=forget)),
        variables=(("D", directory), ("K", key)),
        deadline_s=SWITCH_S + 60.0,
    )
