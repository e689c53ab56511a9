"""``python -m tests.sim --steps 1000000 --seed 1``: seed after seed until so many steps were made; the first violation
ends it. ``--replay SEED``: one seed, with its story."""

import argparse
import sys
import time
from collections import Counter
from typing import get_args

from tests.sim.scenario import Kind, Scenario
from tests.sim.world import Violation


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replay", type=int, help="tell the story of this seed")
    parser.add_argument(
        "--kind", choices=get_args(Kind), default="faults", help="calm: only losses, delays, starved guards"
    )
    parser.add_argument("--go-on", action="store_true", help="count violations instead of stopping at the first")
    options = parser.parse_args()
    if options.replay is not None:
        return replay(options.replay, options.kind)
    return march(options)


def replay(seed: int, kind: Kind) -> int:
    scenario = Scenario(seed, story=True, kind=kind)
    print(f"seed {seed}: {scenario.shape}")
    try:
        scenario.run()
    except Violation as violation:
        print(violation)
        return 1
    print("no violation;", dict(scenario.world.count))
    return 0


def march(options: argparse.Namespace) -> int:
    total: Counter[str] = Counter()
    steps = runs = bad = 0
    seed = options.seed
    began = shown = time.monotonic()
    while steps < options.steps:
        scenario = Scenario(seed, kind=options.kind)
        try:
            scenario.run()
        except Violation as violation:
            print(violation, scenario.shape, flush=True)
            bad += 1
            if not options.go_on:
                print(*scenario.world.tale[-40:], sep="\n")
                return 1
        steps += scenario.world.steps
        total.update(scenario.world.count)
        total["simulated seconds"] += int(scenario.world.now)
        total["writes acknowledged"] += scenario.world.acks_total
        runs += 1
        seed += 1
        if time.monotonic() > shown + 10:
            shown = time.monotonic()
            print(
                f"{steps} steps, {runs} seeds from {options.seed} on, {steps / (shown - began):.0f} steps/s", flush=True
            )
    rate = steps / (time.monotonic() - began)
    print(f"{steps} steps, seeds {options.seed} to {seed - 1}, {rate:.0f} steps/s, {bad} violations")
    for name, number in sorted(total.items()):
        print(f"  {number:8} {name}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
