"""`pansynth serve` or `worker` with the named points: python -m benchmarks.faults.process worker NAME."""

import os
import sys
from pathlib import Path

import typer

from benchmarks.faults import clocks

CHUNK = 2  # samples or files to a step: a small job has several
TURN_SECONDS = 0.3  # of an arm's training: it changes hands, by a checkpoint


def main() -> None:
    data_dir = Path(os.environ["PANSYNTH_DATA_DIR"])
    name = "api" if sys.argv[1] == "serve" else sys.argv[2]
    clocks.install_for_all(data_dir, name)

    from benchmarks.faults import points, versions
    from cli import fleet

    if sys.argv[1] == "serve":
        points.install_in_api(data_dir)
        clocks.install_for_the_service(data_dir, name)
        fleet.serve(host="127.0.0.1", port=int(sys.argv[2]), data_dir=None, fd=None)
    else:
        from app import imports
        from worker import evaluating, planning, sampling, tasks  # before the fork: a process killed is back at once

        assert tasks
        planning.CHUNK_CPU = imports.CHUNK = CHUNK
        sampling.TURN_CPU, evaluating.TURN_SECONDS = 1, TURN_SECONDS
        points.install_in_worker(data_dir)
        clocks.install_for_the_service(data_dir, name)
        if os.environ["PANSYNTH_FAULTS_NEXT_VERSION"]:
            versions.install()
        try:
            fleet.worker(name=name, data_dir=None)
        except typer.Exit as left:  # a command's, which its application turns into a status
            sys.exit(left.exit_code)


if __name__ == "__main__":
    main()
