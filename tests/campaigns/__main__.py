"""``python -m tests.campaigns NAME [--seed S] [--rounds N]``: see scripts/campaign."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.campaigns import crash_points, sequences

CAMPAIGNS = {"crash-points": crash_points.play, "sequences": sequences.play}


def main() -> int:
    """Play the campaign; its exit code."""
    parser = argparse.ArgumentParser(prog="scripts/campaign", description=__doc__)
    parser.add_argument("name", choices=CAMPAIGNS, metavar="NAME", help=", ".join(CAMPAIGNS))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), metavar="S")
    parser.add_argument("--rounds", type=int, default=1, metavar="N")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="campaign-") as place:
        score = CAMPAIGNS[asked.name](Path(place), random.Random(asked.seed), asked.rounds)  # noqa: S311
    for said in score.failed:
        print(f"FAILED: {said}")
    seconds = time.monotonic() - began_s
    print(f"{asked.name}: seed {asked.seed}, {asked.rounds} rounds: {score}, {seconds:.0f} s")
    return 1 if score.failed else 0


if __name__ == "__main__":
    sys.exit(main())
