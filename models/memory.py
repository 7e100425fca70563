"""Where memory runs out: fewer rows at once."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

# Of the messages of a GPU's driver, its libraries and the CPU's allocator, which raise no error class of their own.
WORDS = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "DefaultCPUAllocator")

Row = TypeVar("Row")
Result = TypeVar("Result")


def in_halves(make: Callable[[Sequence[Row], int], list[Result]], rows: Sequence[Row], batch_size: int) -> list[Result]:
    """`make(rows, batch_size)`; wherever memory runs out, in halves, and these in halves again.

    Rows stay in order. On a GPU a smaller batch may change the last bits of a result; that is better than no result.
    Raises what `make` raises, out of memory only for a single row in a batch of one.
    """
    try:
        return make(rows, batch_size)
    except Exception as error:
        if not is_out_of_memory(error) or (len(rows) == 1 and batch_size == 1):
            raise
    # Outside of `except`: the error holds on to what was allocated.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle, smaller = len(rows) // 2, max(1, batch_size // 2)
    parts = (rows[:middle], rows[middle:])
    return [result for part in parts if part for result in in_halves(make, part, smaller)]


def is_out_of_memory(error: Exception) -> bool:
    """Whether it is Python's or torch's memory error, or one that says so in WORDS."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)
