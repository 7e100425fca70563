"""Whatever computes keeps to its device: every network's training and all that makes a sample.

On the machine's GPU; without one see tests/pretended_gpu.py for what it can tell.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from app.presets import PRESETS
from models.matching import top_k
from models.moved_guides import move_guides
from models.schedule import Schedule
from models.segmenter import Labeled, predict
from models.synthesis import Recipe
from models.training import denoiser, vae
from models.training.plan import Budget, Plan
from models.training.segmenter import SegmenterPlan, SegmenterTraining
from models.ways import synthesized
from models.weights import load_networks, save_vae
from tests.tiny import make_tiny_weights, tiny_autoencoder, tiny_unet

pytestmark = pytest.mark.filterwarnings(
    "ignore:'pin_memory' argument is set as true:UserWarning"
)  # no GPU to pin it for
PLAN = Plan(Budget(1), batch=2, learning_rate=1e-3)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 256, 512), np.uint8)


def masks(count: int) -> np.ndarray:
    drawn = np.zeros((count, 256, 512), bool)
    drawn[:, 100:104, 100:300] = True
    return drawn


def nothing(*_: object) -> None:
    pass


def test_the_pretended_gpu_notices_what_a_real_one_would(gpu: torch.device) -> None:
    here, there = torch.ones(2), torch.ones(2).to(gpu)
    assert (there * 2 + torch.tensor(1.0)).device == gpu
    assert there.cpu().device == here.device
    with pytest.raises(RuntimeError, match=r"[Ee]xpected all tensors to be on the same device"):
        there + here
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        there.numpy()
    weight = torch.nn.Linear(2, 2).to(gpu)
    with pytest.raises(RuntimeError, match=r"[Ee]xpected all tensors to be on the same device"):
        weight(here)


def test_the_vae_trains_resumes_and_is_saved(
    gpu: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vae, "build_autoencoder", tiny_autoencoder)
    labeled = Labeled(images(1), masks(1), ("one",))
    for steps in (1, 2):
        plan = replace(PLAN, budget=Budget(steps))
        trained, facts = vae.train_vae(images(8), plan, tmp_path / "run", gpu, nothing, labeled)
    assert facts["steps"] == 2
    save_vae(tmp_path / "weights", trained, facts)  # whose layout was a GPU's


def test_the_denoiser_trains_and_resumes(gpu: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoiser, "build_unet", tiny_unet)
    latents = torch.randn(16, 4, 32, 64).half()
    for steps in (1, 2):
        plan = replace(PLAN, budget=Budget(steps))
        _, facts = denoiser.train_denoiser(latents, Schedule.linear(), plan, tmp_path, gpu, nothing)
    assert facts["steps"] == 2


def test_the_segmenter_trains_resumes_and_predicts(gpu: torch.device) -> None:
    labeled = Labeled(images(2), masks(2), ("one", "two"))
    plan = SegmenterPlan("tiny", steps=2, batch=2)
    first, second = (SegmenterTraining([labeled], plan, gpu) for _ in range(2))
    first.advance()
    second.finish(first.save(), nothing)
    assert predict(second.best(), images(1), gpu).shape == (1, 256, 512)


@pytest.mark.usefixtures("quick_alignment")
@pytest.mark.parametrize("preset", PRESETS)
def test_guides_are_ranked_moved_and_blended(gpu: torch.device, tmp_path: Path, preset: str) -> None:
    networks = load_networks(make_tiny_weights(tmp_path / "tiny"), gpu)
    guides, moved, _ = move_guides(images(2), masks(2), images(4)[2:], gpu)
    every = {"match_statistics": True, "transfer_detail": True, "restore_background": True}
    recipe = Recipe(method="diffusion", **{**PRESETS[preset].recipe(), **every, "steps": 2, "start_timestep": 5})
    assert synthesized(networks, guides, moved, images(2), recipe, [1, 2], batch_size=2).shape == (2, 256, 512)
    latents = torch.randn(3, 4, 32, 64)
    assert len(top_k(latents[:1].to(gpu), latents, ["a", "b", "c"], 2, 9.0)[0]) == 2
