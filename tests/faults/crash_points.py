"""Commands killed at a chosen API call, and what has to be true after the next command."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.faults.account import CLUSTER, Account, Home
from tests.faults.commands import HASTE
from tests.faults.crash_adapter import AT_REST, Kill, When

OPERATOR = "127.0.0.1/32"
"""From where the lab is asked."""
OTHERS = "203.0.113.0/24"
LATE_S, SETTLE_S = 0.4, 2.0
"""How late a request is obeyed, and after how long a command no longer expects that."""
PATIENT = {"api_s": 10.0, "operation_s": 20.0, "source_ip_s": 5.0}
"""Of commands, in seconds of this machine: nothing ends here because the machine is busy."""


class Series(enum.StrEnum):
    """What is typed after the kill."""

    UP = "up"
    """``up`` converges, then ``down`` leaves nothing."""
    DOWN = "down"
    """``down`` leaves nothing."""
    GC = "gc"
    """The state file is lost; ``gc --delete -c NAME`` leaves nothing."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A command that will be killed."""

    name: str
    before: int
    """Nodes of the living cluster that it finds; 0: none."""
    words: tuple[str, ...]
    after: int
    """Nodes that it shall leave."""
    off: bool = False
    """The machines of the living cluster have powered themselves off."""
    opens_to: str = OPERATOR
    """From where SSH shall be open."""
    like_up: bool = False
    """But for what it changes it makes the same calls as ``up``."""


SCENES = {
    scene.name: scene
    for scene in (
        Scene("up", 0, ("up", "--nodes", "2", "--anti-affinity"), 2),
        Scene("open to others", 1, ("up", "--allow-ip", OTHERS), 1, opens_to=OTHERS, like_up=True),
        Scene("wake", 1, ("up",), 1, off=True, like_up=True),
        Scene("grow", 1, ("scale", "2"), 2),
        Scene("shrink", 2, ("scale", "1"), 1),
        Scene("down", 2, ("down",), 0),
    )
}


@dataclass
class Score:
    """What was tried, and what did not hold."""

    tried: int = 0
    passed_by: int = 0
    """Points that a command did not come by this time: polling differs from run to run."""
    failed: list[str] = field(default_factory=list)

    def add(self, point: str, wrong: list[str] | None) -> None:
        """Count a point; None: it was not met."""
        if wrong is None:
            self.passed_by += 1
            return
        self.tried += 1
        if wrong:
            self.failed.append("\n  ".join([point, *wrong]))

    def __add__(self, other: Score) -> Score:
        return Score(
            self.tried + other.tried, self.passed_by + other.passed_by, [*self.failed, *other.failed]
        )

    def __str__(self) -> str:
        return f"{self.tried} points tried, {len(self.failed)} failed, {self.passed_by} not met"


def calls_of(cloud: Account, scene: Scene) -> Counter[str]:
    """How often the command calls each operation when nothing happens to it."""
    home = _prepared(cloud, scene)
    cloud.lab.log.clear()
    _well(home, *scene.words)
    calls = Counter(request.operation for request in cloud.lab.log)
    _well(home, "down")
    return calls


def distinct(scene: Scene, calls: Counter[str]) -> Iterator[Kill]:
    """The first call of each operation, at every moment; of what changes something also the last."""
    for operation, count in sorted(calls.items()):
        reads = operation.startswith(("get-", "list-"))
        if reads and scene.like_up:
            continue
        for nth in sorted({1} if reads else {1, count}):
            yield from (Kill(operation, nth, when) for when in AT_REST)


def every(calls: Counter[str]) -> Iterator[Kill]:
    """Every single call, at every moment."""
    for operation, count in sorted(calls.items()):
        for nth in range(1, count + 1):
            yield from (Kill(operation, nth, when) for when in AT_REST)


def try_points(cloud: Account, scene: Scene, kills: Iterable[Kill], series: Iterable[Series]) -> Score:
    """All of them, one after the other.  What a series meets is brought back for the next one."""
    score, many = Score(), tuple(series)
    home = _prepared(cloud, scene)
    begin_again = home.kept()
    for kill in kills:
        killed = home.run(*scene.words, kill=kill)
        go_on_again = home.kept() if killed.status else None
        for each in many:
            point = f"{scene.name} killed at {kill.operation} {kill.nth} {kill.when}, then {each}"
            wrong = None
            if go_on_again:
                go_on_again()
                wrong = [] if killed.status == -9 else [f"it was not killed but {killed}"]
                wrong += _after(home, scene, each)
            score.add(point, wrong)
        begin_again()
    _well(home, *(("down",) if scene.before else ("gc",)))
    return score


def _after(home: Home, scene: Scene, series: Series) -> list[str]:
    """What does not hold after the kill."""
    match series:
        case Series.UP:
            wrong = _converges(home, scene) + _opened(home.account, scene) + vanishes(home, "down")
        case Series.DOWN:
            wrong = vanishes(home, "down")
        case _:
            home.lose_state()
            wrong = vanishes(home, "gc", "--delete", "-c", CLUSTER)
    return wrong + home.account.touched()


def try_late(cloud: Account, scene: Scene, operation: str, series: Series) -> list[str]:
    """What does not hold when a request of the killed command is obeyed while the next one is at work."""
    home = _prepared(cloud, scene)
    home.deadlines["settle_s"] = SETTLE_S * HASTE
    cloud.lab.faults.hang(operation, LATE_S)
    killed = home.start(*scene.words, kill=Kill(operation, 1, When.LATE)).wait()
    wrong = [] if killed.status == -9 else [f"it was not killed but ended with {killed.status}"]
    if series is Series.UP:
        wrong += _converges(home, scene)
    wrong += vanishes(home, "down")
    return wrong + cloud.touched()


def try_fewer(cloud: Account, before: int, words: tuple[str, ...], kill: Kill, nodes: int) -> list[str]:
    """What does not hold when ``up`` is then asked for fewer nodes than the killed command has machines."""
    home = _prepared(cloud, Scene("", before, words, nodes))
    killed = home.run(*words, kill=kill)
    wrong = [] if killed.status == -9 else [f"it was not killed but ended with {killed.status}"]
    wrong += reaches(home, ("up", "--nodes", str(nodes)), {nodes})
    return wrong + vanishes(home, "down") + cloud.touched()


def patient_home(cloud: Account, settle_s: float = 0.0) -> Home:
    """A home whose commands believe lists after ``settle_s``."""
    home = cloud.home()
    home.deadlines |= {name: HASTE * seconds for name, seconds in {**PATIENT, "settle_s": settle_s}.items()}
    return home


def _prepared(cloud: Account, scene: Scene) -> Home:
    home = patient_home(cloud)
    if scene.before:
        _well(home, "up", "--nodes", str(scene.before), "--anti-affinity")
    for machine in home.machines() if scene.off else ():
        cloud.power_off(machine)
    return home


def _well(home: Home, *words: str) -> None:
    ended = home.run(*words)
    assert ended.status == 0, str(ended)


def _converges(home: Home, scene: Scene) -> list[str]:
    """The cluster that ``up`` makes of what is there; then ``scale`` to where the killed one was going."""
    if scene.words[0] == "down":
        return reaches(home, ("up", "--nodes", "2"), {2})
    if scene.words[0] == "up":
        return reaches(home, scene.words, {scene.after})
    return [
        *reaches(home, ("up",), {scene.before, scene.after}),
        *reaches(home, scene.words, {scene.after}),
    ]


def _opened(cloud: Account, scene: Scene) -> list[str]:
    """What is open of our group that is not of the group of a cluster that nobody disturbed, or not open."""
    untouched, *ours = cloud.opened()
    wanted = sorted(
        (*ports, scene.opens_to if source == OPERATOR else source) for *ports, source in untouched
    )
    return [f"open is {rules}, not {wanted}" for rules in ours if rules != wanted]


def reaches(home: Home, words: tuple[str, ...], sizes: set[int]) -> list[str]:
    """Type it; what is wrong unless it leaves so many nodes, and state and cloud agree."""
    ended = home.run(*words)
    if ended.status != 0:
        return [str(ended)]
    ours, recorded = home.account.held(), home.recorded()
    instances = {name for kind, name in ours if kind == "instance"}
    wrong = []
    if len(instances) not in sizes:
        wrong.append(f"after {' '.join(words)} there are {len(instances)} instances, not {sizes}")
    if ours != recorded:
        wrong.append(
            f"after {' '.join(words)} the cloud holds {ours - recorded}, the state {recorded - ours}"
        )
    if instances != home.machines():
        wrong.append(f"after {' '.join(words)} the nodes are {home.machines()}, the instances {instances}")
    return wrong


def vanishes(home: Home, *words: str) -> list[str]:
    """Type it; what is wrong unless it leaves nothing of ours."""
    ended = home.run(*words)
    wrong = [] if ended.status == 0 else [str(ended)]
    return wrong + [f"{' '.join(words)} left {kind} {name}" for kind, name in home.account.held()]
