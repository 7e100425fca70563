"""How fast training is, what share of the device's peak that is, and what holds it back.

    python -m benchmarks.training                 # one core: taskset -c 0 python -m benchmarks.training
    python -m benchmarks.training --device cuda --vae-batch 256 --denoiser-batch 256

The peak is that of a large matrix product, in bf16 or f32, whichever is faster, measured in the same run.
Floating-point operations are counted by torch (convolutions and matrix products, forward and backward). Variants of the
step take turns, so that whatever else the machine does meets all of them alike; on a CPU one core works, and its own
time is counted, not what it gives to others.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.flop_counter import FlopCounterMode

from models.denoiser import Denoiser, build_unet
from models.phantoms import phantoms
from models.precision import autocast, memory_format
from models.schedule import Schedule
from models.training.denoiser import draw_row as draw_latent
from models.training.denoiser import noise_error
from models.training.loop import average_weights
from models.training.ranks import Batches
from models.training.vae import draw_row as draw_crop
from models.training.vae import reconstruction_loss
from models.vae import build_autoencoder

PARTS = ("data", "forward", "backward", "clip", "optimiser", "average")


@dataclass(frozen=True)
class Variant:
    """How a step is made; but for the layout, which the device decides, the defaults are what `pansynth train` does."""

    channels_last: bool
    bfloat16: bool = True
    fused: bool = True

    def __str__(self) -> str:
        layout = "channels last" if self.channels_last else "channels first"
        return f"{layout}, {'bf16' if self.bfloat16 else 'f32'}, {'fused' if self.fused else 'foreach'} AdamW"


def variants(device: torch.device) -> list[Variant]:
    """As `pansynth train` does it, and with one thing changed."""
    own = Variant(memory_format(device) == torch.channels_last)
    changes: list[dict[str, bool]] = [{"channels_last": not own.channels_last}, {"bfloat16": False}, {"fused": False}]
    return [own, *(replace(own, **change) for change in changes)]


@dataclass
class Bench:
    """One network in training, timed part by part."""

    network: nn.Module
    batches: Batches
    loss: Callable[[nn.Module, Sequence[Tensor]], Tensor]
    variant: Variant
    device: torch.device
    seconds: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})
    step: int = 0

    def __post_init__(self) -> None:
        layout = torch.channels_last if self.variant.channels_last else torch.contiguous_format
        self.network = self.network.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.average = AveragedModel(self.network, multi_avg_fn=partial(average_weights, 0.999))
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4, fused=self.variant.fused)

    def precision(self) -> AbstractContextManager[object]:
        return autocast(self.device) if self.variant.bfloat16 else torch.autocast(self.device.type, enabled=False)

    def advance(self, timed: bool = True) -> None:
        """One step as `models.training.loop` makes it."""
        marks = [now(self.device)]
        batch = self.batches(self.step, self.device)
        marks.append(now(self.device))
        with self.precision():
            value = self.loss(self.network, batch)
        marks.append(now(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        marks.append(now(self.device))
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        marks.append(now(self.device))
        self.optimizer.step()
        marks.append(now(self.device))
        self.average.update_parameters(self.network)
        marks.append(now(self.device))
        self.step += 1
        if timed:
            for part, start, end in zip(PARTS, marks, marks[1:], strict=False):
                self.seconds[part].append(end - start)

    def step_seconds(self) -> float:
        return float(np.median(np.sum([self.seconds[part] for part in PARTS], axis=0)))

    def operations(self) -> int:
        with FlopCounterMode(display=False) as counter, self.precision():
            self.loss(self.network, self.batches(self.step, self.device)).backward()  # type: ignore[no-untyped-call]
        self.step += 1
        return int(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--vae-batch", type=int, default=16)
    parser.add_argument("--denoiser-batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each variant")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw batches")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    images = np.stack([phantom.image for phantom in phantoms(900_001, 16)])
    for name, size, build in (("VAE", arguments.vae_batch, vae), ("denoiser", arguments.denoiser_batch, denoiser)):
        benches = [build(images, size, arguments.workers, variant, device) for variant in variants(device)]
        report(name, size, benches, arguments.steps)


def vae(images: "np.ndarray[Any, Any]", size: int, workers: int, variant: Variant, device: torch.device) -> Bench:
    batches = Batches(partial(draw_crop, images, np.arange(len(images)), 16, 0), size, workers)
    return Bench(build_autoencoder(), batches, lambda net, batch: reconstruction_loss(net, *batch), variant, device)


def denoiser(images: "np.ndarray[Any, Any]", size: int, workers: int, variant: Variant, device: torch.device) -> Bench:
    schedule = Schedule.linear()
    latents = torch.from_numpy(np.random.default_rng(0).standard_normal((len(images), 16, 32, 64), dtype=np.float32))
    batches = Batches(partial(draw_latent, latents, np.arange(len(latents)), schedule.timesteps, 0), size, workers)

    def loss(network: nn.Module, batch: Sequence[Tensor]) -> Tensor:
        return noise_error(network, *batch, schedule).mean()

    return Bench(Denoiser(build_unet()), batches, loss, variant, device)


def report(name: str, size: int, benches: list[Bench], steps: int) -> None:
    """Let the variants take turns, the matrix product among them, and print what they reached."""
    for bench in benches:
        bench.advance(timed=False)
    peaks: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for _ in range(steps):
        for bench in benches:
            bench.advance()
        for precision, found in peaks.items():
            found.append(matmul_rate(precision, benches[0].device))
    best = {precision: float(np.median(found)) for precision, found in peaks.items()}
    operations = benches[0].operations()
    print(f"{name}, batch {size}, {operations / size / 1e9:.2f} GFLOP an image, forward and backward")
    print(f"  matrix product: f32 {best[torch.float32] / 1e9:.0f}, bf16 {best[torch.bfloat16] / 1e9:.0f} GFLOP/s")
    for bench in benches:
        seconds = bench.step_seconds()
        share = operations / seconds / max(best.values())
        print(f"  {bench.variant!s:38} {size / seconds:8.1f} images/s   {share:5.0%} of the peak")
    total = benches[0].step_seconds()
    shares = (f"{part} {np.median(benches[0].seconds[part]) / total:.1%}" for part in PARTS)
    print(f"  of a step as trained: {', '.join(shares)}")


def matmul_rate(precision: torch.dtype, device: torch.device) -> float:
    """Operations per second of a large matrix product."""
    side = 8192 if device.type == "cuda" else 1024
    factor = torch.randn(side, side, device=device).to(precision)
    torch.mm(factor, factor)
    started = now(device)
    torch.mm(factor, factor)
    return 2 * side**3 / (now(device) - started)


def now(device: torch.device) -> float:
    """Seconds: by the clock once a GPU has done its work, the process's own on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


if __name__ == "__main__":
    main()
