"""`pansynth serve` or `worker` with the named points: python -m benchmarks.faults.process worker NAME."""

import sys

from app.settings import Settings
from benchmarks.faults import points
from cli import fleet

CHUNK = 2  # samples to a step: a small job has several


def main() -> None:
    data_dir = Settings().data_dir
    if sys.argv[1] == "serve":
        points.install_in_api(data_dir)
        fleet.serve(host="127.0.0.1", port=int(sys.argv[2]), data_dir=None, fd=None)
    else:
        from worker import planning, sampling, tasks  # before the fork: a process killed is back at once

        assert tasks
        planning.CHUNK_CPU, sampling.TURN_CPU = CHUNK, 1
        points.install_in_worker(data_dir)
        fleet.worker(name=sys.argv[2], data_dir=None)


if __name__ == "__main__":
    main()
