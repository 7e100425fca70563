"""models/memory.py: less at once where memory runs out, and the same rows in the same order."""

from collections.abc import Sequence

import pytest
import torch

from models.memory import in_halves, is_out_of_memory

OUT_OF_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: out of memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("room", [1, 3, 100])
def test_rows_that_do_not_fit_are_made_in_parts_and_stay_in_order(error: Exception, room: int) -> None:
    """`room`: as many rows or samples of a batch as fit."""
    made: list[tuple[int, int]] = []

    def make(rows: Sequence[int], batch_size: int) -> list[int]:
        if max(len(rows), batch_size) > room:
            raise error
        made.append((len(rows), batch_size))
        return [row * 10 for row in rows]

    assert in_halves(make, range(11), 8) == [row * 10 for row in range(11)]
    assert sum(rows for rows, _ in made) == 11
    assert all(max(sizes) <= room for sizes in made)


def test_what_cannot_be_made_smaller_is_told() -> None:
    def make(*_: object) -> list[int]:
        raise MemoryError

    with pytest.raises(MemoryError):
        in_halves(make, range(3), 4)


def test_another_error_is_not_tried_again() -> None:
    tries: list[int] = []

    def make(rows: Sequence[int], _batch_size: int) -> list[int]:
        tries.append(len(rows))
        raise RuntimeError("the weights are broken")

    with pytest.raises(RuntimeError, match="broken"):
        in_halves(make, range(8), 4)
    assert tries == [8]
    assert not is_out_of_memory(ValueError("CUDA error: out of memory"))
