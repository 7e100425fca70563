"""The soak: python -m benchmarks.faults --minutes 15 --seed 1 --out table.md"""

import argparse
import itertools
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.faults.soak import ALL_FAULTS, soak, table
from benchmarks.faults.stack import running
from benchmarks.faults.stores import fleet, home
from benchmarks.faults.work import KINDS
from tests.tiny import make_tiny_weights


def main() -> int:
    parser = argparse.ArgumentParser(description="Put faults into a running service, and count what was lost.")
    parser.add_argument("--trials", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fleet", action="store_true", help="over PostgreSQL and a bucket")
    parser.add_argument("--only", nargs="+", default=[""], help="faults whose name has one of these in it")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of the jobs; a synthesis first")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started and mounted is taken away again

    with tempfile.TemporaryDirectory(prefix="pansynth-faults-") as folder:
        weights = Path(folder) / "weights"
        make_tiny_weights(weights / "default")
        end = time.monotonic() + 60 * arguments.minutes
        names = itertools.islice(drawn(arguments.seed, arguments.only, end), arguments.trials)
        data_dir = Path(folder) / "data"
        stores = fleet(arguments.seed) if arguments.fleet else home(data_dir)
        with stores as given, running(data_dir, weights, stores=given) as stack:
            tallies = soak(stack, names, arguments.seed, lambda words: print(words, flush=True), arguments.kinds)
    print(table(tallies))
    failures = [words for tally in tallies.values() for words in tally.failures]
    print("\n".join(failures))
    if arguments.out:
        arguments.out.write_text("\n".join([table(tallies), *failures]) + "\n")
    return 1 if failures else 0


def drawn(seed: int, only: Sequence[str], end: float) -> Iterator[str]:
    """Every fault once, then every fault again in another order, until the time is over."""
    chance = random.Random(seed)
    names = [name for name in ALL_FAULTS if any(words in name for words in only)]
    while True:
        chance.shuffle(names)
        for name in names:
            if time.monotonic() > end:
                return
            yield name


if __name__ == "__main__":
    sys.exit(main())
