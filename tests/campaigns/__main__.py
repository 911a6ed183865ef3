"""``python -m tests.campaigns NAME [--seed S] [--rounds N]``: see scripts/campaign."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.campaigns import cost, crash_points, kills, sequences, soak, trainings

CAMPAIGNS = {
    "cost": (cost.play, 5),
    "crash-points": (crash_points.play, 1),
    "kills": (kills.play, 40),
    "sequences": (sequences.play, 60),
    "soak": (soak.play, 200),
    "trainings": (trainings.play, 2),
}
"""By name, with the rounds of one that names none: five to ten minutes on two cores."""


def main() -> int:
    """Play the campaign; its exit code."""
    parser = argparse.ArgumentParser(prog="scripts/campaign", description=__doc__)
    parser.add_argument("name", choices=CAMPAIGNS, metavar="NAME", help=", ".join(CAMPAIGNS))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), metavar="S")
    parser.add_argument("--rounds", type=int, metavar="N")
    asked = parser.parse_args()
    play, rounds = CAMPAIGNS[asked.name]
    rounds = asked.rounds or rounds
    print(f"seed {asked.seed}", flush=True)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="campaign-") as place:
        score = play(Path(place), random.Random(asked.seed), rounds)  # noqa: S311
    for said in score.failed:
        print(f"FAILED: {said}")
    seconds = time.monotonic() - began_s
    print(f"{asked.name}: seed {asked.seed}, {rounds} rounds: {score}, {seconds:.0f} s")
    return 1 if score.failed else 0


if __name__ == "__main__":
    sys.exit(main())
