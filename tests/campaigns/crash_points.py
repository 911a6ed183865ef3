"""Every single API call of ``up``, ``scale`` and ``down``, killed at every moment, with every way to go on.

A round goes through all of them in an order of its own, shared by as many worlds as there are cores.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests.faults.account import populated_account
from tests.faults.crash_points import SCENES, Score, Series, calls_of, every, try_points

WORLDS = 2


def play(place: Path, chance: random.Random, rounds: int) -> Score:
    """Try all points, ``rounds`` times."""
    score = Score()
    with ExitStack() as stack:
        worlds = [stack.enter_context(populated_account(place / str(n))) for n in range(1, WORLDS + 1)]
        for number in range(1, rounds + 1):
            for scene in SCENES.values():
                kills = list(every(calls_of(worlds[0], scene)))
                chance.shuffle(kills)

                with ThreadPoolExecutor(WORLDS) as pool:
                    shares = [
                        pool.submit(try_points, each, scene, kills[n::WORLDS], Series)
                        for n, each in enumerate(worlds)
                    ]
                    found = sum((share.result() for share in shares), Score())
                print(f"round {number}, {scene.name}: {found}", flush=True)
                score += found
    return score
