"""Random sequences of commands, kills and faults of the API; after each, nothing is lost from sight.

A1 of the fault matrix: every instance that the cloud ever accepted is deleted, or ``gc`` lists it.  Nothing
foreign changes; a command that nothing disturbed ends as it must; no command ever ends as a bug or too late.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from rain_deploy.errors import RainDeployError
from tests.faults.account import CLUSTER, LATENCY_S, Account, populated_account
from tests.faults.commands import Done
from tests.faults.crash_adapter import AT_REST, Kill
from tests.faults.crash_points import Score, patient_home, reaches, vanishes

EXIT_CODES = {0, 129, 130, 143} | {error.exit_code for error in RainDeployError.__subclasses__()}
"""Of all but a bug."""
STEPS = 8
"""Of one sequence, before the end that deletes all."""
MOST_NODES = 3
SETTLE_S = 0.3
LAG_S = 0.1
"""Of lists, in some sequences; shorter than what the commands take them for settled after."""
READS = ("get-operation", "get-instance", "list-instances", "list-security-groups")
CREATES = (
    "create-instance",
    "create-security-group",
    "add-rule-to-security-group",
    "register-ssh-key",
)
DELETES = ("delete-instance", "delete-security-group", "delete-ssh-key")


def play(place: Path, chance: random.Random, rounds: int) -> Score:
    """Play ``rounds`` sequences in one world; each step is a point."""
    score = Score()
    with populated_account(place / "account") as made:
        for _ in range(rounds):
            sequence = Sequence(made, chance)
            score += sequence.play()
    return score


class Sequence:
    """One home that is maltreated."""

    def __init__(self, made: Account, chance: random.Random) -> None:
        self._account = made
        self._chance = chance
        self._home = patient_home(made, SETTLE_S)
        self._said: list[str] = []
        self._lag_s = lag_s = chance.choice((0.0, LAG_S))
        made.lab.faults.list_lag_s = {"list-instances": lag_s, "list-security-groups": lag_s}
        self._said.append(f"lists lag {lag_s} s")

    def play(self) -> Score:
        """All steps, until one shows what must not be; then everything goes."""
        score = Score()
        steps: tuple[Callable[[], list[str]], ...] = (
            *(self._undisturbed,) * 3,
            *(self._killed,) * 3,
            *(self._disturbed,) * 3,
            self._collected,
            self._bereft,
        )
        for _ in range(STEPS):
            wrong = [*self._chance.choice(steps)(), *self._lost(), *self._account.touched()]
            score.add("; ".join(self._said), wrong)
            if wrong:
                self._account.clean()
                return score
        self._said.append("the end")
        score.add("; ".join(self._said), [*self._end(), *self._account.touched()])
        return score

    def _words(self) -> tuple[str, ...]:
        """A command that has something to do, mostly."""
        nodes = str(self._chance.randint(1, MOST_NODES))
        up, scale, down = ("up", "--nodes", nodes), ("scale", nodes), ("down",)
        if not self._home.recorded():
            return self._chance.choice((up, up, up, scale, down))
        return self._chance.choice((up, scale, scale, scale, down))

    def _operation(self, words: tuple[str, ...], *, changes: bool = False) -> str:
        """One that the command probably calls."""
        living = len(self._home.machines())
        deletes = words == ("down",) or (words[0] == "scale" and int(words[-1]) < living)
        likely = DELETES if deletes else CREATES
        operation: str = self._chance.choice(likely if changes else (*likely, *likely, *READS))
        return operation

    def _undisturbed(self) -> list[str]:
        words = self._words()
        self._said.append(" ".join(words))
        if words == ("down",):
            return vanishes(self._home, *words)
        wanted, cluster = int(words[-1]), self._home.store.cluster(self._home.cluster)
        living = len(cluster.nodes) if cluster and cluster.up else 0  # one that is half down does not live
        refused = wanted < living if words[0] == "up" else not (cluster and cluster.up)
        if not refused:
            return reaches(self._home, words, {wanted})
        ended = self._home.run(*words)
        return [] if ended.status == 10 else [str(ended)]

    def _killed(self) -> list[str]:
        words = self._words()
        kill = Kill(self._operation(words), self._chance.choice((1, 1, 1, 2)), self._chance.choice(AT_REST))
        self._said.append(f"{' '.join(words)} killed at {kill.operation} {kill.nth} {kill.when}")
        return self._tolerated(self._home.run(*words, kill=kill))

    def _disturbed(self) -> list[str]:
        words = self._words()
        self._said.append(f"{' '.join(words)} with {self._plant(words)}")
        ended = self._home.run(*words)
        self._account.lab.faults.clear()
        return self._tolerated(ended)

    def _plant(self, words: tuple[str, ...]) -> str:
        faults, chance = self._account.lab.faults, self._chance
        times, skip = chance.randint(1, 3), chance.choice((0, 0, 0, 1, 2))
        operation, change = self._operation(words), self._operation(words, changes=True)
        match chance.choice(("status", "html", "cut", "truncate", "outcome")):
            case "status":
                status, committed = chance.choice((429, 500, 503)), chance.random() < 1 / 2
                committed = committed and status != 429
                after = "1" if status == 429 else None
                faults.status(
                    operation, status, retry_after=after, committed=committed, times=times, skip=skip
                )
                return f"{times} x {status} of {operation} after {skip}, committed: {committed}"
            case "html":
                faults.html(operation, times=times, skip=skip)
                return f"{times} x HTML of {operation} after {skip}"
            case "cut":
                committed = chance.random() < 1 / 2
                faults.cut(operation, committed=committed, times=times, skip=skip)
                return f"{times} x a cut of {operation} after {skip}, committed: {committed}"
            case "truncate":
                faults.truncate(operation, times=times, skip=skip)
                return f"{times} x half an answer of {operation} after {skip}"
            case _:
                state = chance.choice(("failure", "timeout"))
                reason = chance.choice(("busy", "conflict", "fault", "unknown", None))
                faults.outcome(change, state, reason=reason, times=times, skip=skip)
                return f"{times} x {state} ({reason}) of {change} after {skip}"

    def _collected(self) -> list[str]:
        """Without -c: a living cluster is none of what is left over."""
        self._said.append("gc --delete")
        time.sleep(2 * LATENCY_S)  # what a killed command had begun comes to its end
        before = self._home.recorded() & self._account.held()
        ended = self._home.run("gc", "--delete")
        wrong = [] if ended.status == 0 else [str(ended)]
        gone = before - self._account.held()
        return wrong + [f"gc deleted {kind} {name} of a living cluster" for kind, name in gone]

    def _bereft(self) -> list[str]:
        """A machine of a living cluster is off or gone; ``up`` brings back what there was."""
        cluster = self._home.store.cluster(self._home.cluster)
        there = {name for kind, name in self._account.held() if kind == "instance"}
        if cluster is None or not cluster.up or not there or not self._home.machines() <= there:
            return []
        instance, count = self._chance.choice(sorted(self._home.machines())), str(len(cluster.nodes))
        gone = self._chance.random() < 1 / 2
        self._said.append(f"up when a machine is {'gone' if gone else 'off'}")
        if gone:
            self._account.vanish(instance)
        else:
            self._account.power_off(instance)
        return reaches(self._home, ("up", "--nodes", count), {int(count)})

    def _tolerated(self, ended: Done) -> list[str]:
        known = ended.status == -9 or ended.status in EXIT_CODES
        return [] if known else [str(ended)]

    def _lost(self) -> list[str]:
        """Instances of ours that exist and that nobody is told of; lists have had the time that they need."""
        time.sleep(self._lag_s)
        ended = self._home.run("gc", "--json", "--quiet")
        if ended.status:
            return [str(ended)]
        lines = json.loads(ended.out)["result"]["lines"]
        told = Counter((line["id"], name) for line in lines for name in line["resources"])
        exist = Counter(
            (vm.labels["rain-deploy-id"].removeprefix("i-"), f"instance {vm.labels['rain-deploy-node']}")
            for vm in self._account.lab.instances()
            if ("instance", vm.id) in self._account.held()
        )
        return [f"gc does not list {name} of {identity}" for identity, name in (exist - told).elements()]

    def _end(self) -> list[str]:
        if self._chance.random() < 1 / 2:
            return vanishes(self._home, "down")
        self._home.lose_state()
        return vanishes(self._home, "gc", "--delete", "-c", CLUSTER)
