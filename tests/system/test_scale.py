"""benchmarks/scale.py: its measurements run, at sizes that show nothing but that."""

import re

import pytest

from benchmarks.scale import measure_import
from benchmarks.workers import verdict


def test_an_import_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    measure_import(40)
    form = r"^import +(\d+) images +[\d.]+ s, .* memory \+\d+ MB on \d+$"
    assert re.findall(form, capsys.readouterr().out, re.MULTILINE) == ["40"]


def test_two_workers_are_compared_with_one_round_by_round() -> None:
    assert verdict([(1.0, 1.9), (0.5, 0.98), (1.0, 1.85)]) == (
        "two workers to one: median 1.900, 1.850 to 1.960 over 3 rounds; the goal 1.8 is reached"
    )
    assert verdict([(1.0, 1.7)]).endswith("is missed")
