"""benchmarks/scale.py: its measurements run, at sizes that show nothing but that."""

import os
import re
import subprocess
import sys

from benchmarks.workers import verdict


def test_an_import_is_measured() -> None:
    command = [sys.executable, "-m", "benchmarks.scale", "import", "--pool", "40"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    form = r"^import +(\d+) images +[\d.]+ s, .* memory \+\d+ MB on \d+$"
    assert re.findall(form, done.stdout, re.MULTILINE) == ["40"]


def test_two_workers_are_compared_with_one_round_by_round() -> None:
    assert verdict([(1.0, 1.9), (0.5, 0.98), (1.0, 1.85)]) == (
        "two workers to one: median 1.900, 1.850 to 1.960 over 3 rounds; the goal 1.8 is reached"
    )
    assert verdict([(1.0, 1.7)]).endswith("is missed")
