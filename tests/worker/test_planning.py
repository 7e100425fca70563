"""worker/planning.py and worker/index.py: which pool images, in which order."""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import structural_similarity
from sqlalchemy import func, select

from app import keys
from app.tables import PoolImage, PoolLatent, Sample
from models import pixels
from models.phantoms import Phantom
from models.synthesis import sample_seed
from tests.full_disk import no_file_above
from tests.tiny import make_tiny_weights
from tests.worker_service import (
    claim,
    dataset,
    failure,
    look,
    send_files,
    submit,
    work_off,
    work_until,
)
from worker import index, planning
from worker.cache import remove_unused
from worker.index import encode, images_without_latent, open_index
from worker.tasks import work
from worker.workplace import Workplace


@pytest.fixture(scope="module")
def beginning(filled: Callable[[int], Path]) -> Path:
    return filled(12)


def planned(place: Workplace, job_id: str) -> Sequence[Sample]:
    work_until(place, job_id, "sampling")
    return planned_rows(place, job_id)


def planned_rows(place: Workplace, job_id: str) -> Sequence[Sample]:
    with place.database.read() as session:
        return session.scalars(select(Sample).where(Sample.job_id == job_id).order_by(Sample.position)).all()


def latents_of(place: Workplace, phantoms: Sequence[Phantom]) -> torch.Tensor:
    networks = place.networks.get("default")
    return torch.from_numpy(encode(networks, [phantom.image for phantom in phantoms], lambda: None))


def test_the_ranking_is_scikit_images_pair_by_pair(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    rows = planned(place, submit(place, radiographs[:2], top_k=5))
    pool_latents = latents_of(place, radiographs[2:]).numpy()
    data_range = float(pool_latents.max() - pool_latents.min())
    for guide, latent in enumerate(latents_of(place, radiographs[:2]).numpy()):
        ssim = [structural_similarity(latent, other, channel_axis=0, data_range=data_range) for other in pool_latents]
        best = sorted(range(len(ssim)), key=lambda n: -ssim[n])[:5]
        mine = [row for row in rows if row.guide == guide]
        assert [row.pool_image_name for row in mine] == [f"{n}.png" for n in best]
        assert [row.rank for row in mine] == [1, 2, 3, 4, 5]
        assert [row.ssim for row in mine] == pytest.approx([ssim[n] for n in best], abs=1e-5)


def test_a_samples_seed_comes_from_what_it_is_made_of(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    guide = pixels.sha256(pixels.image_png(radiographs[0].image))
    for row in planned(place, submit(place, radiographs[:1], seed=7)):
        assert row.seed == sample_seed(7, guide, row.pool_image_sha256)
        assert 0 <= row.seed < 1 << 63


@pytest.mark.parametrize("selection", ["ssim", "random"])
def test_a_guide_in_its_own_pool_is_not_its_own_background(
    place: Workplace, radiographs: Sequence[Phantom], selection: str
) -> None:
    guides, others = radiographs[2:4], len(radiographs[2:]) - 1
    rows = planned(place, submit(place, guides, top_k=others, selection=selection))
    for number, guide in enumerate(guides):
        mine = [row for row in rows if row.guide == number]
        assert [row.rank for row in mine] == list(range(1, others + 1))
        assert pixels.sha256(pixels.image_png(guide.image)) not in {row.pool_image_sha256 for row in mine}


def test_nor_is_a_copy_of_it_that_was_saved_anew(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    guide, others = radiographs[2], len(radiographs[2:]) - 1
    jpeg = io.BytesIO()
    Image.fromarray(guide.image).save(jpeg, "JPEG", quality=60)
    send_files(place, [("copy.png", pixels.image_png(np.asarray(Image.open(jpeg))))])
    work_off(place)
    rows = planned(place, submit(place, [guide], top_k=others))
    assert {row.pool_image_name for row in rows} == {f"{n}.png" for n in range(1, others + 1)}


def test_it_is_where_the_whole_pool_is_asked_for(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    guide = radiographs[2]
    rows = planned(place, submit(place, [guide], top_k=len(radiographs[2:])))
    assert rows[0].pool_image_sha256 == pixels.sha256(pixels.image_png(guide.image))


def test_a_random_selection_repeats_itself_and_follows_the_seed(
    place: Workplace, radiographs: Sequence[Phantom]
) -> None:
    def drawn(seed: int) -> list[tuple[str, float]]:
        rows = planned(place, submit(place, radiographs[:1], top_k=2, selection="random", seed=seed))
        return [(row.pool_image_name, row.ssim) for row in rows]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_the_ssim_of_a_random_choice_is_that_of_the_ranking(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    drawn = planned(place, submit(place, radiographs[:1], top_k=3, selection="random"))
    ranked = planned(place, submit(place, radiographs[:1], top_k=12))
    assert {(row.pool_image_sha256, row.ssim) for row in drawn} < {(row.pool_image_sha256, row.ssim) for row in ranked}


def test_an_image_is_encoded_to_the_same_bits_in_any_company(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    together = latents_of(place, radiographs[:5])
    for number, alone in enumerate(radiographs[:5]):
        assert torch.equal(latents_of(place, [alone])[0], together[number])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["torch", "driver", "library"],
)
def test_where_memory_runs_out_fewer_images_are_encoded_at_once(
    place: Workplace, radiographs: Sequence[Phantom], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    alone = latents_of(place, radiographs[:5])
    sizes = []

    def refuse(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        sizes.append(len(given[0]))
        if sizes[-1] > 2:
            raise error

    handle = place.networks.get("default").vae.autoencoder.encoder.register_forward_pre_hook(refuse)
    monkeypatch.setattr(index, "batch_size", lambda _: 8)
    torch.testing.assert_close(latents_of(place, radiographs[:5]), alone, rtol=1e-4, atol=1e-5)
    handle.remove()
    assert sizes == [8, 4, 2, 2, 4, 2, 2]


def test_the_index_holds_the_pool_as_it_was_when_the_job_came(
    place: Workplace, radiographs: Sequence[Phantom], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(place, radiographs[:1])
    send_files(place, [("late.png", pixels.image_png(radiographs[0].image))])
    work_off(place)
    job, networks = look(place, job_id), place.networks.get("default")
    with place.database.read() as session:
        assert session.scalar(select(func.count()).select_from(PoolImage)) == 13
    found = open_index(place, job, networks.sha256, lambda: None)
    assert len(found.entries) == 12
    monkeypatch.setattr(index, "PIECE_LATENTS", 5)
    pieces = list(found.pieces())
    assert [len(sha256s) for _, sha256s in pieces] == [5, 5, 2]
    for latents, sha256s in pieces:
        assert torch.equal(latents, found.latents(sha256s))
    expected = latents_of(place, radiographs[2:])
    named = sorted(found.entries.values(), key=lambda entry: entry.image_id)
    assert torch.equal(found.latents([entry.sha256 for entry in named]), expected)
    assert found.data_range == pytest.approx(float(expected.max() - expected.min()))


def test_other_weights_have_their_own_latents_made_step_by_step(
    place: Workplace, radiographs: Sequence[Phantom], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert place.settings.weights_dir is not None
    make_tiny_weights(place.settings.weights_dir / "other", seed=5)
    monkeypatch.setattr(planning, "INDEX_BATCH", 5)
    monkeypatch.setattr(planning, "INDEX_SECONDS", 0.0)  # every batch is a turn
    job_id = submit(place, radiographs[:1], model="other")
    left = []
    while look(place, job_id).stage in (None, "planning"):
        assert work(place)
        left.append(len(images_without_latent(place, look(place, job_id), sha256_of(place, "other"), 99)))
    assert left[:3] == [7, 2, 0]
    work_off(place)
    assert dataset(place, job_id)
    with place.database.read() as session:
        assert session.scalar(select(func.count()).select_from(PoolLatent)) == 24


def sha256_of(place: Workplace, name: str) -> str:
    return place.networks.weights(name).sha256


def test_unknown_weights_fail_the_job_in_words(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    job_id = submit(place, radiographs[:1], model="nobody")
    work_off(place)
    assert "'nobody'" in failure(place, job_id)


@pytest.mark.parametrize("stage", ["sampling", "packaging"])
def test_weights_that_change_while_a_job_runs_fail_it_in_words(
    place: Workplace, radiographs: Sequence[Phantom], stage: str
) -> None:
    assert place.settings.weights_dir is not None
    folder = make_tiny_weights(place.settings.weights_dir / "changing", seed=1)
    job_id = submit(place, radiographs[:1], model="changing")
    work_until(place, job_id, stage)
    make_tiny_weights(folder, seed=2)
    work_off(place)
    assert "changed while the job ran" in failure(place, job_id)


def test_a_lost_cache_is_fetched_again(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    first = planned(place, submit(place, radiographs[:1]))
    work_off(place)
    for shard in (place.cache / "latents").rglob("*.npy"):
        shard.unlink()
    again = planned(place, submit(place, radiographs[:1]))
    assert [row.ssim for row in first] == [row.ssim for row in again]
    assert np.isfinite([row.ssim for row in first]).all()
    assert claim(place).kind == "sample"


def test_a_cached_shard_that_is_used_is_kept_for_another_week(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    job_id = submit(place, radiographs[:1])
    planned(place, job_id)
    for shard in (place.cache / "latents").rglob("*.npy"):
        os.utime(shard, (0, 0))
    open_index(place, look(place, job_id), sha256_of(place, "default"), lambda: None)
    assert remove_unused(place.cache) == 0
    assert list((place.cache / "latents").rglob("*.npy"))


@pytest.mark.parametrize("left", [0, 200], ids=["empty", "cut short"])
def test_a_cached_shard_that_a_power_cut_spoiled_is_fetched_again_at_once(
    place: Workplace, radiographs: Sequence[Phantom], left: int
) -> None:
    first = planned(place, submit(place, radiographs[:1]))
    work_off(place)
    for shard in (place.cache / "latents").rglob("*.npy"):
        os.truncate(shard, left)
    again = planned(place, submit(place, radiographs[:1]))
    assert [row.ssim for row in again] == [row.ssim for row in first]


def test_a_shard_for_which_there_is_no_room_leaves_nothing(place: Workplace, pool: str, tmp_path: Path) -> None:
    model = sha256_of(place, "default")
    (key, *_) = place.blobs.list(keys.latents(pool, model, "x").removesuffix("x.npy"))
    with pytest.raises(OSError, match="File too large"), no_file_above(1000):
        index._fetch(place, key, Path(key).stem, tmp_path / "cache" / "shard.npy")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_shard_that_another_worker_removes_meanwhile_is_fetched_again(
    place: Workplace, pool: str, radiographs: Sequence[Phantom], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(place, submit(place, radiographs[:1]))
    for shard in (place.cache / "latents").rglob("*.npy"):
        content = shard.read_bytes()
        shard.unlink()
        monkeypatch.setattr(Path, "exists", lambda _: True)  # it was there a moment ago
        index._fetch(place, keys.latents(pool, sha256_of(place, "default"), shard.stem), shard.stem, shard)
        assert shard.read_bytes() == content


def test_a_large_pool_is_compared_in_turns_with_the_same_result(
    place: Workplace, second_place: Workplace, radiographs: Sequence[Phantom], monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(rows: Sequence[Sample]) -> list[tuple[str, int, float]]:
        return [(row.pool_image_sha256, row.rank, row.ssim) for row in rows]

    at_once = chosen(planned(place, submit(place, radiographs[:2], top_k=5)))
    work_off(place)
    monkeypatch.setattr(index, "PIECE_LATENTS", 5)
    monkeypatch.setattr(planning, "PLAN_SECONDS", 0.0)  # a piece to a turn
    job_id = submit(place, radiographs[:2], top_k=5)
    turns = 0
    while look(place, job_id).stage != "sampling":
        assert work(place if turns % 2 else second_place)
        turns += 1
    assert turns > 3
    assert chosen(planned(place, job_id)) == at_once
    assert list(place.blobs.list(f"jobs/{job_id}/matches")) == []


@pytest.mark.parametrize("left", [0, 10], ids=["empty", "cut short"])
def test_a_comparison_begins_anew_where_a_power_cut_spoiled_what_was_kept_of_it(
    place: Workplace, radiographs: Sequence[Phantom], monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    first = planned(place, submit(place, radiographs[:1]))
    work_off(place)
    monkeypatch.setattr(index, "PIECE_LATENTS", 5)
    job_id = submit(place, radiographs[:1])
    with monkeypatch.context() as hurried:
        hurried.setattr(planning, "PLAN_SECONDS", 0.0)  # a piece to a turn
        while not (kept := list(place.blobs.list(f"jobs/{job_id}/matches"))):
            assert work(place)
    place.blobs.put(kept[0], place.blobs.get(kept[0])[:left])
    assert [row.ssim for row in planned(place, job_id)] == [row.ssim for row in first]
