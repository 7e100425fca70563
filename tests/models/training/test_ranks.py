"""models/training/ranks.py: two real processes train as one does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.training.ranks import Batches
from tests.models.training import on_ranks

CPU = torch.device("cpu")


def load(path: Path) -> dict[str, Tensor]:
    loaded: dict[str, Tensor] = torch.load(path, weights_only=True)
    return loaded


@pytest.fixture(scope="module")
def killed_and_resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes, of which the first was killed at step 3 of 6; then both again.

    The second began again with a copy of the checkpoint, from which the last test tells its files.
    """
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.models.training.on_ranks", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_gradient_of_two_processes_is_that_of_one_over_the_same_batch(killed_and_resumed: Path) -> None:
    alone = on_ranks.gradients()
    assert max(float(gradient.abs().max()) for gradient in alone.values()) > 0.01
    for rank in (0, 1):
        found = load(killed_and_resumed / f"gradients-{rank}.pt")
        assert found.keys() == alone.keys()
        for name, gradient in alone.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_both_processes_end_with_the_same_weights(killed_and_resumed: Path) -> None:
    first, second = (load(killed_and_resumed / f"weights-{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_killed_and_resumed_on_two_they_are_those_of_one_undisturbed(killed_and_resumed: Path, tmp_path: Path) -> None:
    found, alone = load(killed_and_resumed / "weights-0.pt"), on_ranks.run(tmp_path)
    start = on_ranks.tiny_network().state_dict()
    moved = torch.cat([(alone[name] - start[name]).flatten() for name in start])
    apart = torch.cat([(alone[name] - found[name]).flatten() for name in start])
    assert float(apart.norm() / moved.norm()) < 0.01


def test_the_first_process_alone_writes_curve_and_checkpoint(killed_and_resumed: Path) -> None:
    assert (killed_and_resumed / "0" / "curve.csv").exists()
    assert not (killed_and_resumed / "1" / "curve.csv").exists()
    assert load(killed_and_resumed / "0" / "checkpoint.pt")["step"] == 6
    assert load(killed_and_resumed / "1" / "checkpoint.pt")["step"] == 2  # before a step, once its loss is known


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # more than cores, on a machine of one
def test_rows_drawn_ahead_by_other_processes_are_the_same_rows() -> None:
    here, ahead = Batches(on_ranks.draw, 4), Batches(on_ranks.draw, 4, workers=2)
    for step in (5, 6, 9):
        for column, other in zip(here(step, CPU), ahead(step, CPU), strict=True):
            assert torch.equal(column, other)
