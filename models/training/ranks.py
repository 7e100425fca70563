"""One process or several, one for each GPU: who draws which rows, and what all agree on.

Alone, every answer is trivial. Several processes are started by `torchrun`, and joined by `cli.processes`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset


def rank() -> int:
    """This process's number; process 0 alone writes files and speaks."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def mean_over_ranks(figures: list[float], device: torch.device) -> list[float]:
    """Each figure's mean over all processes, so that all take the same decisions."""
    if ranks() == 1:
        return figures
    shared = torch.tensor(figures, dtype=torch.float64, device=device)
    dist.all_reduce(shared)
    found: list[float] = (shared / ranks()).tolist()
    return found


@contextmanager
def first_alone(device: torch.device) -> Iterator[None]:
    """What process 0 does before the others; they find what it has made.

    Where it raises, the others raise ValueError with its words: `torchrun` ends all as soon as one has ended, and shows
    what that one said.
    """
    if rank() > 0 and (words := _words_of_first("", device)):
        raise ValueError(f"the first process has ended: {words}")
    try:
        yield
    except Exception as error:
        if rank() == 0:
            _words_of_first(str(error) or type(error).__name__, device)
        raise
    if rank() == 0:
        _words_of_first("", device)


def _words_of_first(words: str, device: torch.device) -> str:
    """What process 0 gives, in all of them."""
    if ranks() == 1:
        return words
    shared = [words]
    dist.broadcast_object_list(shared, src=0, device=device)
    return shared[0]


class Objective(nn.Module):
    """`loss(network, step)` as a module, since DistributedDataParallel wraps `forward` alone."""

    def __init__(self, network: nn.Module, loss: Callable[[nn.Module, int], Tensor]) -> None:
        super().__init__()
        self.network = network
        self._loss = loss

    def forward(self, step: int) -> Tensor:
        return self._loss(self.network, step)


def shared(objective: Objective) -> nn.Module:
    """The same objective, whose gradients are the mean over all processes; all begin with process 0's weights."""
    if ranks() == 1:
        return objective
    device = next(objective.parameters()).device
    return DistributedDataParallel(objective, device_ids=[device] if device.type == "cuda" else None)


class Batches:
    """The batch of every step; each process draws its own rows of it.

    `draw(step, row)` gives one row, as a tuple of arrays, tensors or numbers. It must depend on these two alone, so
    that neither the number of processes nor a resumption changes what is trained on. `workers` processes draw ahead.
    """

    def __init__(self, draw: Callable[[int, int], tuple[Any, ...]], size: int, workers: int = 0) -> None:
        if size % ranks():
            raise ValueError(f"a batch of {size} rows cannot be shared by {ranks()} processes; give a multiple of it")
        self._draw = draw
        self._own_rows = range(rank(), size, ranks())
        self._workers = workers
        self._next = -1
        self._drawn: Iterator[list[Tensor]] = iter(())

    def __call__(self, step: int, device: torch.device) -> list[Tensor]:
        """This process's rows of a step's batch, stacked, on `device`. Steps are asked for one after the other."""
        if step != self._next:
            self._drawn = iter(self._loader(step, device))
        self._next = step + 1
        return [column.to(device, non_blocking=True) for column in next(self._drawn)]

    def _loader(self, first_step: int, device: torch.device) -> "DataLoader[Any]":
        indices = ([(step, row) for row in self._own_rows] for step in count(first_step))
        return DataLoader(
            _Rows(self._draw),
            batch_sampler=indices,
            num_workers=self._workers,
            pin_memory=device.type == "cuda",
            multiprocessing_context="fork" if self._workers else None,  # spawn would send mapped arrays
        )


class _Rows(Dataset[Any]):
    def __init__(self, draw: Callable[[int, int], tuple[Any, ...]]) -> None:
        self._draw = draw

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return self._draw(*index)
