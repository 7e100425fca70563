"""Network calls whose bits do not depend on company or cores."""

import threading

import pytest
import torch
from torch import nn

from models.batches import FixedBatches


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(4, 32, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(32 * 64, 5))
    return layers.requires_grad_(False)


def rows(count: int) -> torch.Tensor:
    return torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(1))[:count]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_row_has_the_same_bits_in_whatever_company_and_on_however_many_cores(
    network: nn.Module, batch_size: int
) -> None:
    results = []
    for threads in (1, 2, 3):
        with FixedBatches(batch_size, threads) as batches:
            results.append(batches.run(network, rows(8)))
            results.append(batches.run(network, rows(8).flip(0)).flip(0))
            results.append(torch.cat([batches.run(network, row[None]) for row in rows(8)]))
    assert all(torch.equal(result, results[0]) for result in results)


def test_every_call_has_the_same_shape_and_padding_is_dropped(network: nn.Module) -> None:
    shapes = []

    def watched(values: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        shapes.append((tuple(values.shape), tuple(levels.shape)))
        return network(values) + levels[:, None]

    levels = torch.arange(5)
    with FixedBatches(batch_size=4) as batches:
        found = batches.run(watched, rows(5), levels)
    assert shapes == [((4, 4, 8, 8), (4,))] * 2
    torch.testing.assert_close(found, network(rows(5)) + levels[:, None])


def test_networks_run_on_one_thread_each_and_the_callers_setting_stays(network: nn.Module) -> None:
    seen = []
    torch.set_num_threads(2)

    def watched(values: torch.Tensor) -> torch.Tensor:
        seen.append((torch.get_num_threads(), threading.current_thread() is threading.main_thread()))
        return network(values)

    with FixedBatches() as batches:
        batches.run(watched, rows(4))
    assert seen == [(1, False)] * 4
    assert torch.get_num_threads() == 2


def test_what_is_raised_before_a_call_ends_the_run(network: nn.Module) -> None:
    asked, made = [], []

    def third_time() -> None:
        asked.append(1)
        if len(asked) >= 3:
            raise InterruptedError("enough")

    def watched(values: torch.Tensor) -> torch.Tensor:
        made.append(1)
        return network(values)

    with FixedBatches(threads=1, before_call=third_time) as batches, pytest.raises(InterruptedError):
        batches.run(watched, rows(8))
    assert len(made) == 2


def test_an_empty_batch_size_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        FixedBatches(0)
    with pytest.raises(ValueError, match="threads 0"):
        FixedBatches(threads=0)
