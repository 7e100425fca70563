"""The soak: python -m benchmarks.faults --minutes 15 --seed 1 --out table.md"""

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.faults import FAULTS
from benchmarks.faults.soak import soak, table
from benchmarks.faults.stack import running
from tests.tiny import make_tiny_weights


def main() -> int:
    parser = argparse.ArgumentParser(description="Put faults into a running service, and count what was lost.")
    parser.add_argument("--trials", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="faults whose name has this in it")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="pansynth-faults-") as folder:
        weights = Path(folder) / "weights"
        make_tiny_weights(weights / "default")
        end = time.monotonic() + 60 * arguments.minutes
        names = itertools.islice(drawn(arguments.seed, arguments.only, end), arguments.trials)
        with running(Path(folder) / "data", weights) as stack:
            tallies = soak(stack, names, arguments.seed, lambda words: print(words, flush=True))
    print(table(tallies))
    failures = [words for tally in tallies.values() for words in tally.failures]
    print("\n".join(failures))
    if arguments.out:
        arguments.out.write_text("\n".join([table(tallies), *failures]) + "\n")
    return 1 if failures else 0


def drawn(seed: int, only: str, end: float) -> Iterator[str]:
    """Every fault once, then every fault again in another order, until the time is over."""
    chance = random.Random(seed)
    names = [name for name in FAULTS if only in name]
    while True:
        chance.shuffle(names)
        for name in names:
            if time.monotonic() > end:
                return
            yield name


if __name__ == "__main__":
    sys.exit(main())
