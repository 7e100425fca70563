import csv
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from torch import nn

from models.duplicates import known
from models.phantoms import phantoms
from models.pixels import from_unit
from models.schedule import Schedule
from models.tensors import to_images
from models.training import loop, watch
from models.training.curve import Curve
from models.training.denoiser import train_denoiser
from models.training.images import TrainingDataError, TrainingImages, open_images
from models.training.latents import open_latents
from models.training.loop import train
from models.training.plan import Budget, Plan, Progress
from models.training.vae import draw_crop, split, train_vae
from models.weights import load_networks, load_vae, save_denoiser, save_vae
from tests.full_disk import no_file_above
from tests.models.training.line import Line, fit, silent
from tests.tiny import make_tiny_weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("radiographs")
    for index, phantom in enumerate(phantoms(31, 12)):
        Image.fromarray(phantom.image).save(folder / f"{index:02d}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_a_folder_of_radiographs_becomes_networks_that_the_service_loads(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    images = open_images(folder, tmp_path / "cache", silent, said.append)
    assert images.pixels.shape == (12, 256, 512)
    assert said[0].startswith("broken.png is left out")

    plan = Plan(Budget(steps=2), batch=2, learning_rate=1e-4, warmup_steps=1)
    vae, facts = train_vae(images.pixels, plan, tmp_path / "vae", CPU, silent)
    held_out = images.pixels[split(12)[0]]
    with torch.inference_mode():
        restored = from_unit(vae.decode(vae.encode(to_images(held_out, CPU)))[:, 0].numpy())
    of_each = [peak_signal_noise_ratio(*pair) for pair in zip(held_out, restored, strict=True)]
    assert facts["psnr"] == pytest.approx(np.median(of_each), abs=0.3), "nearly: where it can it trains in bfloat16"
    save_vae(tmp_path / "own", vae, facts)
    latents = open_latents(vae, images, tmp_path / "cache", CPU, silent)
    assert latents.shape == (24, 16, 32, 64)
    assert latents.float().mean().abs() < 0.2
    assert 0.8 < latents.float().std() < 1.2
    denoiser, facts = train_denoiser(latents, Schedule.linear(), plan, tmp_path / "denoiser", CPU, silent)
    save_denoiser(tmp_path / "own", denoiser, facts)

    networks = load_networks(tmp_path / "own", CPU)
    assert networks.vae.mean.shape[1] == 16
    assert facts["steps"] == 2


def test_a_folder_with_too_few_radiographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="holds 0 readable radiographs"):
        open_images(tmp_path, tmp_path / "cache", silent, silent)


def test_a_folder_that_is_not_there_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="nowhere: there is no such folder"):
        open_images(tmp_path / "nowhere", tmp_path / "cache", silent, silent)


def test_the_cache_is_made_anew_when_the_folder_changes(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for path in sorted(folder.glob("0*.png")):
        (mine / path.name).write_bytes(path.read_bytes())
    assert len(open_images(mine, tmp_path / "cache", silent, silent).pixels) == 10
    (mine / "09.png").unlink()
    assert len(open_images(mine, tmp_path / "cache", silent, silent).pixels) == 9


def test_latents_are_mapped_in_a_way_that_takes_no_memory(tmp_path: Path) -> None:
    vae, _ = load_vae(make_tiny_weights(tmp_path / "tiny"))
    image = np.zeros((1, 256, 512), np.uint8)
    latents = open_latents(vae, TrainingImages(image, (known("black", image[0]),)), tmp_path, CPU, silent)
    assert latents.shape == (2, 4, 32, 64)
    # A private mapping that may be written counts as memory, and one larger than the machine's is refused.
    maps = Path("/proc/self/maps").read_text().splitlines()
    (mapped,) = [line.split()[1] for line in maps if f"{tmp_path}/latents-" in line]
    assert mapped.endswith("s")


def test_crops_are_images_of_128_pixels_in_range() -> None:
    image = next(phantoms(5, 1)).image
    for seed in range(20):
        crop = draw_crop(image, np.random.default_rng(seed))
        assert crop.shape == (128, 128)
        assert crop.dtype == np.float32
        assert crop.min() >= -1
        assert crop.max() <= 1


def test_a_crop_is_not_sharpened_by_what_lies_at_its_other_side() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 512, axis=1)
    crops = [draw_crop(ramp, np.random.default_rng(seed)) for seed in range(40)]
    assert all(abs(float((crop[0] - crop[1]).mean())) < 0.1 for crop in crops)


class Stopped(Exception):
    """The step at which it stopped."""


def stop(progress: Progress) -> None:
    raise Stopped(progress.step)


def test_training_reaches_the_optimum_and_leaves_a_curve(tmp_path: Path) -> None:
    weight, facts = fit(tmp_path, 300)
    assert weight == pytest.approx(3, abs=0.1)
    assert facts["steps"] == 300
    with (tmp_path / "curve.csv").open() as file:
        assert list(csv.DictReader(file))[-1]["step"] == "300"


def test_a_run_that_ends_while_it_warms_up_gives_back_what_it_learned(tmp_path: Path) -> None:
    weight, facts = fit(tmp_path, 3)
    assert weight > 0.05
    assert weight == pytest.approx(facts["weight"], abs=1e-4), "the average, which was judged"


def test_a_checkpoint_of_another_subject_is_not_gone_on_with(tmp_path: Path) -> None:
    fit(tmp_path, 3, subject="latents of one VAE")
    with pytest.raises(ValueError, match="is of a run on latents of one VAE, this one is on latents of another"):
        fit(tmp_path, 3, subject="latents of another")


@pytest.mark.parametrize("left", [0, 1000])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, left: int) -> None:
    fit(tmp_path, 3)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged; delete it to begin anew"):
        fit(tmp_path, 6)


def test_the_facts_are_of_what_was_done_and_not_of_what_was_asked_for(tmp_path: Path) -> None:
    whole = fit(tmp_path, 3)[1]
    again = fit(tmp_path, 3, seed=7)[1]
    assert (again["steps"], again["seed"]) == (3, 0), "nothing was trained with seed 7"
    longer = fit(tmp_path, 5, seed=7)[1]
    assert (longer["steps"], longer["seed"]) == (5, 7)
    assert longer["before"] == {name: whole[name] for name in ("steps", "batch", "learning_rate", "seed")}
    assert fit(tmp_path, 6, seed=7)[1]["before"] == longer["before"]


def steps_in_curve(folder: Path) -> list[str]:
    with (folder / "curve.csv").open() as file:
        return [row["step"] for row in csv.DictReader(file)]


def test_a_curve_has_every_step_once_and_a_column_for_every_figure(tmp_path: Path) -> None:
    for steps in (3, 3, 5):
        fit(tmp_path, steps)
    assert steps_in_curve(tmp_path) == ["3", "5"]
    Curve(tmp_path / "curve.csv", 4).note(6, 60.0, 0.1, {"canal_retention": 0.9})
    assert steps_in_curve(tmp_path) == ["3", "6"], "row 5 is of steps that were lost"
    with (tmp_path / "curve.csv").open() as file:
        first, last = csv.DictReader(file)
    assert float(first["loss"]) >= 0, "the second call made no step, and has no loss to put there"
    assert (last["canal_retention"], last["weight"], first["canal_retention"]) == ("0.9", "", "")
    (tmp_path / "checkpoint.pt").unlink()
    fit(tmp_path, 4)
    assert steps_in_curve(tmp_path) == ["4"]


def test_a_run_goes_on_where_weights_are_laid_out_in_another_way(tmp_path: Path) -> None:
    """A GPU's are channels last, a CPU's contiguous."""

    def run(folder: Path, steps: int, layout: torch.memory_format) -> torch.Tensor:
        torch.manual_seed(0)
        network: nn.Module = nn.Conv2d(3, 4, 3).to(memory_format=layout)  # type: ignore[call-overload]

        def loss(own: nn.Module, step: int) -> torch.Tensor:
            image = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(step))
            return (own(image) - 1).square().mean()

        plan = Plan(Budget(steps, minutes=1e6), 1, 0.01, warmup_steps=1)
        train(network, loss, lambda _: {}, plan, folder, silent)
        return next(network.parameters()).detach()

    for first, then in ((torch.channels_last, torch.contiguous_format), (torch.contiguous_format, torch.channels_last)):
        run(tmp_path / str(first), 3, first)
        resumed = run(tmp_path / str(first), 4, then)
        run(tmp_path / f"{first} alone", 3, first)
        torch.testing.assert_close(resumed, run(tmp_path / f"{first} alone", 4, first), rtol=1e-4, atol=1e-5)


def test_a_run_that_was_killed_continues_to_the_same_weights(tmp_path: Path) -> None:
    def stop_at_40(progress: Progress) -> None:
        if progress.step == 40:
            stop(progress)

    with pytest.raises(Stopped):
        fit(tmp_path / "killed", 80, stop_at_40)
    resumed, _ = fit(tmp_path / "killed", 80)
    undisturbed, _ = fit(tmp_path / "undisturbed", 80)
    assert resumed == pytest.approx(undisturbed, abs=1e-6)


def test_one_step_of_an_enormous_gradient_does_not_stall_those_after_it(tmp_path: Path) -> None:
    """AdamW divides by the size of what it has seen, so an unclipped one would."""

    def loss(network: nn.Module, step: int) -> torch.Tensor:
        return (1e6 if step == 10 else 1.0) * (network.weight - 3).abs().sum()

    plan = Plan(Budget(60), 1, 0.1, warmup_steps=1, ema_decay=0.5)
    _, facts = train(Line(), loss, lambda network: {"weight": network.weight.item()}, plan, tmp_path, silent)
    assert facts["weight"] == pytest.approx(3, abs=0.2)


def test_a_loss_that_is_not_a_number_ends_the_run_with_a_remedy(tmp_path: Path) -> None:
    plan = Plan(Budget(5), 1, 0.1)
    with pytest.raises(FloatingPointError, match="lower --learning-rate"):
        train(
            Line(),
            lambda network, _: network.weight.sum() * float("nan"),
            lambda _: {},
            plan,
            tmp_path,
            silent,
        )


def test_a_gradient_that_is_not_a_number_reaches_neither_weights_nor_checkpoint(tmp_path: Path) -> None:
    def loss(network: nn.Module, step: int) -> torch.Tensor:
        apart: torch.Tensor = network.weight - 3
        return (apart.square() if step < 5 else (apart * 0).square().sqrt()).sum()  # 0, and nan for its gradient

    plan = Plan(Budget(9), 1, 0.1, checkpoint_seconds=0)
    network = Line()
    with pytest.raises(FloatingPointError, match="the gradient is nan at step 6; give the same command"):
        train(network, loss, lambda _: {}, plan, tmp_path, silent)
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert kept["step"] == 4
    assert kept["network"]["weight"].isfinite() and network.weight.isfinite()


def test_a_checkpoint_that_has_no_room_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with no_file_above(500), pytest.raises(OSError, match=r"checkpoint\.pt"):
        fit(tmp_path, 5)
    assert list(tmp_path.iterdir()) == []


def test_weights_without_a_loss_are_no_checkpoint(tmp_path: Path) -> None:
    plan = Plan(Budget(9), 1, 1e30, warmup_steps=1, checkpoint_seconds=0)  # a step so far that its square is infinite
    with pytest.raises(FloatingPointError, match="the loss is inf at step 2"):
        train(Line(), lambda network, _: (network.weight - 3).square().sum(), lambda _: {}, plan, tmp_path, silent)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 0


@pytest.mark.parametrize("rate", [0.0, -1e-3, float("nan"), float("inf")])
def test_a_learning_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=f"--learning-rate is {rate}; give a number above 0"):
        Plan(Budget(1), 1, rate)


def test_a_figure_that_cannot_be_told_is_left_out_of_the_facts(tmp_path: Path) -> None:
    def loss(network: Any, _: int) -> torch.Tensor:
        weight: torch.Tensor = network.weight.square().sum()
        return weight

    figures = {"canal_retention": float("nan"), "psnr": 33.0}
    _, facts = train(Line(), loss, lambda _: figures, Plan(Budget(1), 1, 0.1), tmp_path, silent)
    assert facts["psnr"] == 33 and "canal_retention" not in facts


def test_a_slow_validation_leaves_time_to_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock by which a step takes 1/64 s, a validation 1 s."""
    clock = 0.0
    checked: list[float] = []

    def validate(_: nn.Module) -> dict[str, float]:
        nonlocal clock
        clock += 1
        checked.append(clock)
        return {}

    def loss(network: nn.Module, _: int) -> torch.Tensor:
        nonlocal clock
        clock += 1 / 64
        return (network.weight - 3).square().sum()

    for module in (loop, watch):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock))
    train(Line(), loss, validate, Plan(Budget(80), 1, 0.1, validate_seconds=0.5), tmp_path, silent)
    assert checked == [33 / 64 + 1, 66 / 64 + 2, 80 / 64 + 3], "not after every step from the first of them on"


def test_a_time_budget_ends_the_run(tmp_path: Path) -> None:
    plan = Plan(Budget(10**9, minutes=0.005), 1, 0.1)
    spent: list[float] = []
    _, facts = train(
        Line(),
        lambda network, _: (network.weight - 3).square().sum(),
        lambda _: {},
        plan,
        tmp_path,
        lambda progress: spent.append(progress.spent),
    )
    assert spent[-1] == 1
    assert 0 < facts["steps"] < 10**9


def test_steps_grow_while_a_run_warms_up_and_shrink_to_a_hundredth(tmp_path: Path) -> None:
    """Down a slope that is the same everywhere Adam goes as far as the learning rate says."""
    weights: list[float] = []

    def loss(network: Any, _: int) -> torch.Tensor:
        weights.append(network.weight.item())
        slope: torch.Tensor = network.weight.sum()
        return slope

    train(Line(), loss, lambda _: {}, Plan(Budget(100), 1, 0.1, warmup_steps=10), tmp_path, silent)
    rates = -np.diff(weights) / 0.1
    assert rates[:3].tolist() == pytest.approx([0.1, 0.2, 0.3], abs=0.01)
    assert rates.argmax() == 9 and rates[50] == pytest.approx(0.5, abs=0.02)
    assert 0.01 < rates[-1] < 0.02


FOREVER = """
import sys
from pathlib import Path
from tests.models.training.line import fit
fit(Path(sys.argv[1]), 10**9, lambda progress: print(progress.step, flush=True))
"""


def test_a_run_killed_with_signal_9_loses_at_most_a_checkpoint_interval(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FOREVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
    with pytest.raises(Stopped) as stopped:
        fit(tmp_path, 10**9, stop)
    assert stopped.value.args[0] > seen[-2]
