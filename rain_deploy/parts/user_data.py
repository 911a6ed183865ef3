"""User-data: what a machine learns at its first boot (host key, time limit), and the wait for its end."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rain_deploy.core.cluster import Node
from rain_deploy.core.layout import MACHINE, SET_MACHINE
from rain_deploy.core.step import Stage, Step
from rain_deploy.parts.limit import TIMER, UNITS, limit_files, limit_text
from rain_deploy.parts.part import Part, facts_of
from rain_deploy.parts.shell import render as render_template

BOOT_DEADLINE_S = 600.0


def render(
    *, host_key_private: str, host_key_public: str, limit_s: float | None, idle_s: float | None
) -> bytes:
    """Return the user-data of one node, for cloud-init; under 24 KiB.

    Keys are OpenSSH texts.  ``limit_s``: epoch seconds; None: no limit.  ``idle_s``: None: it may idle.
    """
    files = (
        (f"{MACHINE}/one-time-host-key", "0644", f"{host_key_public}\n"),
        (f"{MACHINE}/limit", "0644", f"{limit_text(limit_s)}\n"),
        (f"{MACHINE}/idle", "0644", f"{limit_text(idle_s)}\n"),
        *limit_files(),
    )
    return render_template(
        "user-data.j2",
        host_key_private=host_key_private,
        host_key_public=host_key_public,
        files=files,
        here=SET_MACHINE,
        timer=TIMER,
        timer_file=f"{UNITS}/{TIMER}",
    ).encode("ascii")


@dataclass(frozen=True, slots=True)
class FirstBoot(Part):
    """The end of cloud-init on new machines, and the mark that our user-data writes then.

    A machine without the mark would not power itself off at its time limit, so it is not used.
    """

    new: frozenset[str]
    """Names of the nodes that are new."""
    stage_name = "boot"

    def lacks(self, node: Node) -> str | None:
        return "its first boot will be waited for" if node.name in self.new else None

    def stage(self, node: Node) -> Stage:
        del node
        step = Step("user-data", act=render_template("boot.sh.j2"))
        return Stage(self.stage_name, (step,), deadline_s=BOOT_DEADLINE_S)

    def done(self, node: Node) -> Node:
        return replace(node, facts=replace(facts_of(node), marked=True))
