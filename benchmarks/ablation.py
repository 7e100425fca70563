"""What each remedy is worth to a segmenter: the ways of `benchmarks.remedies` as rows of the paper's table.

    python -m benchmarks.ablation --out FOLDER --way harmonize --way "harmonize, not aligned" [--guides 2] [--top-k 50]

Few plain guides, a pool and test images of all looks, the same optimiser steps for every row. Without --way every one
is run, which takes a CPU a night. The same command again continues a run that was stopped.
"""

import argparse
from pathlib import Path

from benchmarks.remedies import ways
from cli.progress import progress
from models.labeled_sets import phantom_sets
from models.phantoms import LOOKS
from models.reproduce import Protocol, reproduce, table1_arms
from models.training.segmenter import SegmenterPlan
from models.weights import load_networks


def main() -> None:
    known = {way.name: way for way in ways()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--way", action="append", choices=known, metavar="NAME", help=", ".join(known))
    parser.add_argument("--weights", type=Path, default=Path("models/weights/default"))
    parser.add_argument("--backbone", default="mini")
    numbers = {"guides": 2, "pool": 300, "test": 120, "top-k": 50, "steps": 600, "batch": 6, "seeds": 3}
    for name, number in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    protocol = Protocol(
        guides=given.guides,
        pool=given.pool,
        test=given.test,
        top_ks=(),
        control_top_k=given.top_k,
        seeds=tuple(range(given.seeds)),
        plan=SegmenterPlan(given.backbone, given.steps, given.batch),
    )
    arms = table1_arms(protocol, known["paper"], [known[name] for name in given.way or known])
    networks = load_networks(given.weights, given.device)
    with progress("ablation") as show:
        counts = (protocol.guides, protocol.pool, protocol.test)
        sets = phantom_sets(protocol.phantom_seed, counts, protocol.guide_looks, LOOKS, show)
        reproduce(given.out, networks, protocol, arms, sets, show)
    print((given.out / "report.md").read_text())


if __name__ == "__main__":
    main()
