"""A tiny training in two processes; process N keeps its files in FOLDER/N, as machines without a common disk would.

    python -m tests.models.training.on_ranks FOLDER

Process 0 dies of signal 9 after step 3 of 6; then both are started again and come to the end. They are forked from one
that has loaded torch, which takes longer than all that they do.
"""

import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.training.loop import train
from models.training.plan import Budget, Plan, Progress
from models.training.ranks import Batches, Objective, rank, shared
from models.training.vae import reconstruction_loss
from models.vae import build_autoencoder

PLAN = Plan(Budget(steps=6), batch=4, learning_rate=1e-3, warmup_steps=2, ema_decay=0.5, checkpoint_seconds=0)
CPU = torch.device("cpu")
PROCESSES = 2
KILLED_AFTER = 3


def tiny_network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: nn.Module = build_autoencoder(4, width=64)
    return network


def draw(step: int, row: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng([step, row])
    return random.uniform(-1, 1, (1, 32, 32)).astype("f4"), random.standard_normal((4, 4, 4), dtype="f4")


class Loss:
    """The VAE's own loss over a batch of four."""

    def __init__(self) -> None:
        self._batches = Batches(draw, PLAN.batch)

    def __call__(self, network: nn.Module, step: int) -> Tensor:
        images, noise = self._batches(step, CPU)
        return reconstruction_loss(network, images, noise)


def gradients() -> dict[str, Tensor]:
    """Of the first step, by parameter."""
    network = tiny_network()
    objective = shared(Objective(network, Loss()))
    objective(0).backward()
    return {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}


def run(folder: Path, die_after: int | None = None) -> dict[str, Tensor]:
    """Train; -> the averaged weights."""

    def show(progress: Progress) -> None:
        if progress.step == die_after:
            os.kill(os.getpid(), signal.SIGKILL)

    average, _ = train(tiny_network(), Loss(), lambda _: {"figure": 1.0}, PLAN, folder, show)
    return dict(average.state_dict())


def live(folder: Path, number: int, meeting: Path, die_after: int | None) -> None:
    """One process from its start to its end."""
    together = {"rank": number, "world_size": PROCESSES, "init_method": f"file://{meeting}"}
    torch.distributed.init_process_group("gloo", **together)
    torch.save(gradients(), folder / f"gradients-{rank()}.pt")
    torch.save(run(folder / str(rank()), die_after), folder / f"weights-{rank()}.pt")
    torch.distributed.destroy_process_group()


def live_together(folder: Path, meeting: Path, die_after: int | None = None) -> list[int | None]:
    """Both processes; -> their exit codes. Where the first dies, the other is killed, as torchrun does."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=live, args=(folder, n, meeting, die_after)) for n in range(PROCESSES)]
    for process in processes:
        process.start()
    processes[0].join()
    if processes[0].exitcode:
        processes[1].kill()
    processes[1].join()
    return [process.exitcode for process in processes]


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    assert live_together(folder, folder / "killed", KILLED_AFTER)[0] == -signal.SIGKILL
    assert not (folder / "1").exists(), "the second process wrote files"
    shutil.copytree(folder / "0", folder / "1")
    assert live_together(folder, folder / "resumed") == [0, 0]


if __name__ == "__main__":
    main()
