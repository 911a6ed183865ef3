"""Ansible reaches rented machines by the inventory of rain-deploy."""

from __future__ import annotations

import pytest

from tests.lab.conftest import FIRST_UP_S
from tests.lab.lab import Lab
from tests.local.ansible import ANSIBLE, INVENTORY, play
from tests.local.command_line import CommandLine


@pytest.mark.slow
def test_ansible_reaches_every_machine_and_a_play_changes_nothing(light_lab: Lab, user: CommandLine) -> None:
    user.well("up", "--nodes", "2", "--yes", timeout_s=FIRST_UP_S)
    asked = len(light_lab.log)
    pinged = play(user, "ansible", "all", "-m", "ping", inventory=INVENTORY)
    assert pinged.reached() == ["default-node-1", "default-node-2"]
    played = play(user, "ansible-playbook", str(ANSIBLE / "site.yml"), inventory=INVENTORY)
    assert played.changed() == 0
    assert len(light_lab.log) == asked, "the cloud is not asked"
    user.well("down", "--yes")
    assert light_lab.left() == ()
