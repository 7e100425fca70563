"""Network calls whose result for a row does not depend, to the last bit, on the other rows or on the cores."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

# Rows first, in every argument and in the result.
Network = Callable[..., Tensor]


def threads_of_one_core(name: str, count: int | None = None) -> ThreadPoolExecutor:
    """Threads in each of which torch computes on one core: `count`, or as many as torch has in the calling one."""
    return ThreadPoolExecutor(count or torch.get_num_threads(), name, initializer=torch.set_num_threads, initargs=(1,))


class FixedBatches:
    """Runs networks on batches of one fixed size, the last one padded.

    Convolutions and matrix products choose their order of summation by the batch size and by the number of
    threads, so both change the last bits of a result, and now and then a rounded pixel. Here a call always gets
    `batch_size` rows, and on the CPU one thread; instead the cores work on different batches at once, which
    is also faster. On the CPU leave `batch_size` at 1: larger batches gain little there.

    threads: how many batches at once, on the CPU only. before_call: runs before every network call in the
    thread that makes it; what it raises ends the run.
    """

    def __init__(
        self, batch_size: int = 1, threads: int | None = None, before_call: Callable[[], None] = lambda: None
    ) -> None:
        """`threads` None: as many as torch has in the calling thread. Raises ValueError below 1."""
        if batch_size < 1 or (threads is not None and threads < 1):
            raise ValueError(f"batch_size is {batch_size} and threads {threads}; give 1 or more")
        self._batch_size = batch_size
        self._before_call = before_call
        self._pool = threads_of_one_core("networks", threads)

    def run(self, network: Network, *rows: Tensor) -> Tensor:
        """`network(*rows)` without gradients, for any number of rows above 0: (N, ...) each -> (N, ...)."""
        starts = range(0, len(rows[0]), self._batch_size)
        batches = [
            tuple(self._padded(argument[start : start + self._batch_size]) for argument in rows) for start in starts
        ]
        if rows[0].is_cuda:
            results = [self._call(network, batch) for batch in batches]
        else:
            results = list(self._pool.map(lambda batch: self._call(network, batch), batches))
        return torch.cat(results)[: len(rows[0])]

    def _call(self, network: Network, batch: tuple[Tensor, ...]) -> Tensor:
        self._before_call()
        with torch.inference_mode():
            return network(*batch)

    def _padded(self, rows: Tensor) -> Tensor:
        missing = self._batch_size - len(rows)
        return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows

    def __enter__(self) -> "FixedBatches":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
