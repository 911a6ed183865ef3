"""Who a machine is is known before the first connection; nobody else in its place is ever spoken to."""

from __future__ import annotations

import pytest

from rain_deploy.providers.keys import public_key
from tests.lab.conftest import FIRST_UP_S
from tests.lab.lab import Lab
from tests.lab.light import LightMachines
from tests.local.command_line import CommandLine
from tests.support.network import wait_for_port

SCRIPT = "print('here')\n"


def another_key(machines: LightMachines, lab: Lab) -> None:
    """Somebody else answers at the address of the only machine."""
    (vm,) = lab.instances()
    machine = machines.machine(vm.id)
    machines.stop(vm.id)
    for name in ("host_key", "host_key.pub"):
        (machine.directory / name).unlink(missing_ok=True)
    public_key(machine.directory / "host_key")
    machines.start(vm.id)
    wait_for_port(vm.address, lab.ssh_port)


@pytest.mark.slow
def test_an_impostor_is_refused_by_every_verb_and_down_without_results_still_works(
    light_lab: Lab, light_machines: LightMachines, user: CommandLine
) -> None:
    (user.cwd / "script.py").write_text(SCRIPT)
    user.well("up", "--nodes", "1", "--yes", timeout_s=FIRST_UP_S)
    user.well("run", "--detach", "script.py")
    another_key(light_machines, light_lab)
    verbs = (
        ("run", "script.py"),
        ("exec", "--", "true"),
        ("up", "--yes"),
        ("status",),
        ("pull",),
        ("down", "--yes"),
    )
    for words in verbs:
        told = user(*words)
        assert told.exit_code == 31, (words, told)
        assert "StrictHostKeyChecking" not in told.stderr
    assert len(light_lab.instances()) == 1
    user.well("down", "--discard-results", "--yes")
    assert light_lab.left() == ()


@pytest.mark.slow
def test_an_address_that_was_another_machines_is_no_clash(light_lab: Lab, user: CommandLine) -> None:
    addresses = []
    for _ in range(2):
        user.well("up", "--nodes", "1", "--yes", timeout_s=FIRST_UP_S)
        addresses += [vm.address for vm in light_lab.instances()]
        user.well("exec", "--", "true")
        user.well("down", "--yes")
    assert addresses[0] == addresses[1]


@pytest.mark.slow
def test_a_machine_that_was_deleted_by_hand_is_made_again_and_known(
    light_lab: Lab, user: CommandLine
) -> None:
    """The new one has the old one's address and another key."""
    user.well("up", "--nodes", "2", "--yes", timeout_s=FIRST_UP_S)
    gone = next(vm for vm in light_lab.instances() if vm.labels["rain-deploy-node"] == "node-2")
    light_lab.machines.delete(gone.id)
    with light_lab.store.lock:
        del light_lab.store.zones[gone.zone].instances[gone.id]
    assert user("status", "--check").exit_code == 3
    user.well("up", "--yes", timeout_s=FIRST_UP_S)
    assert len(light_lab.instances()) == 2
    user.well("status", "--check")
    user.well("down", "--yes")
    assert light_lab.left() == ()
