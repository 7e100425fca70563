import json
import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DModel

from models.batches import FixedBatches
from models.denoiser import Denoiser, build_unet
from models.memorisation import describe_training
from models.pixels import sha256
from models.precision import has_bfloat16, memory_format
from models.synthesis import predict_noise
from models.vae import Vae, build_autoencoder
from models.weights import WeightsError, load_networks, load_vae, save_denoiser, save_vae
from tests.tiny import make_tiny_weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return make_tiny_weights(tmp_path / "tiny")


def test_weights_come_back_as_they_were_saved(weights: Path) -> None:
    networks = load_networks(weights, "cpu")
    again = load_networks(weights, "cpu")
    image = torch.rand(1, 1, 256, 512) * 2 - 1
    with torch.inference_mode():
        latent = networks.vae.encode(image)
        assert torch.equal(latent, again.vae.encode(image))
        noise = predict_noise(networks, latent, torch.tensor([25]))
    assert noise.shape == latent.shape == (1, 4, 32, 64)
    assert (networks.name, networks.sha256) == ("tiny", again.sha256)
    assert networks.schedule.timesteps == 1000


@pytest.mark.parametrize("bfloat16", [True, False])
def test_weights_made_ready_when_they_are_loaded_predict_as_those_that_torch_makes_ready_at_each_call(
    weights: Path, monkeypatch: pytest.MonkeyPatch, bfloat16: bool
) -> None:
    if not bfloat16:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    networks = load_networks(weights, "cpu")
    unet = networks.denoiser.unet
    assert (unet.time_embedding.linear_1.weight.dtype == torch.bfloat16) == has_bfloat16(networks.device)
    assert unet.conv_norm_out.weight.dtype == torch.float32
    read = Denoiser(UNet2DModel.from_pretrained(weights / "denoiser").to(memory_format=memory_format(networks.device)))
    latent, timestep = torch.randn(1, 4, 32, 64), torch.tensor([25])
    with torch.inference_mode():
        own = predict_noise(networks, latent, timestep)
        at_each_call = predict_noise(replace(networks, denoiser=read), latent, timestep)
    of_rounding = 1 / 64 if has_bfloat16(networks.device) else 1e-5  # of the precision, a few times
    assert float((own - at_each_call).abs().max()) <= of_rounding * float(at_each_call.abs().max())


def test_bits_do_not_depend_on_the_threads_with_which_weights_were_loaded(weights: Path) -> None:
    latent, timestep, threads = torch.randn(1, 4, 32, 64), torch.tensor([25]), torch.get_num_threads()
    noises = []
    for count in (1, 4):
        torch.set_num_threads(count)
        networks = load_networks(weights, "cpu")
        torch.set_num_threads(threads)
        with FixedBatches() as batches:
            noises.append(batches.run(partial(predict_noise, networks), latent, timestep))
    assert torch.equal(*noises)


@pytest.mark.parametrize("amx", [False, True])
def test_a_cpu_with_matrix_units_has_its_channels_last(
    weights: Path, monkeypatch: pytest.MonkeyPatch, amx: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)  # with it a kernel chooses the layout
    layout = torch.channels_last if amx else torch.contiguous_format
    networks = load_networks(weights, "cpu")
    assert networks.denoiser.unet.conv_in.weight.is_contiguous(memory_format=layout)
    assert memory_format(networks.device) == layout


def test_the_folders_are_those_of_diffusers(weights: Path) -> None:
    AutoencoderKL.from_pretrained(weights / "vae")
    UNet2DModel.from_pretrained(weights / "denoiser")


def test_whoever_reads_the_manifest_can_read_the_weights(weights: Path) -> None:
    modes = {path.stat().st_mode for path in weights.rglob("*") if path.is_file() and path.name != "card.md"}
    assert len(modes) == 1


def test_a_changed_file_is_refused_by_name(weights: Path) -> None:
    path = weights / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"diffusion_pytorch_model\.safetensors has sha256"):
        load_networks(weights, "cpu")


def test_a_missing_file_is_refused_by_name(weights: Path) -> None:
    (weights / "denoiser" / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"denoiser/config\.json"):
        load_networks(weights, "cpu")


def test_a_pickle_is_refused_even_when_the_manifest_names_it(weights: Path) -> None:
    (weights / "vae" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps({}))
    manifest = json.loads((weights / "manifest.json").read_text())
    manifest["files"]["vae/diffusion_pytorch_model.bin"] = {"sha256": "0" * 64, "bytes": 1}
    (weights / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match=r"only \.safetensors and \.json"):
        load_networks(weights, "cpu")


@pytest.mark.parametrize("folder", ["..", "vae/../..", "/"])
def test_a_file_outside_the_folder_is_refused(weights: Path, folder: str) -> None:
    outside = weights.parent / "outside.json"
    outside.write_text("{}")
    name = str(outside) if folder == "/" else f"{folder}/{outside.name}"
    manifest = json.loads((weights / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": sha256(b"{}"), "bytes": 2}
    (weights / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match=r"only \.safetensors and \.json inside the folder"):
        load_networks(weights, "cpu")


def test_a_noise_schedule_that_is_not_known_is_refused(weights: Path) -> None:
    manifest = json.loads((weights / "manifest.json").read_text())
    manifest["schedule"]["kind"] = "cosine"
    (weights / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match="noise schedule 'cosine' is not known"):
        load_networks(weights, "cpu")


def test_a_new_denoiser_that_knows_no_training_images_removes_those_of_the_old_one(weights: Path) -> None:
    denoiser = Denoiser(build_unet(4, channels=(16, 32), norm_groups=8))
    save_denoiser(weights, denoiser, {}, describe_training([torch.randn(3, 4, 32, 64)]))
    assert load_networks(weights, "cpu").training_latents is not None
    save_denoiser(weights, denoiser, {})
    assert load_networks(weights, "cpu").training_latents is None
    assert not list(weights.glob("training_latents*"))


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no manifest\.json"):
        load_networks(tmp_path, "cpu")


@pytest.mark.parametrize("text", ["not json", "[]", '{"name": "x"}'])
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(WeightsError, match=r"manifest\.json"):
        load_networks(tmp_path, "cpu")


@pytest.mark.parametrize("entry", ["latent.patch_size", "latent.mean", "schedule.beta_end", "schedule"])
def test_what_a_manifest_lacks_is_named(weights: Path, entry: str) -> None:
    manifest = json.loads((weights / "manifest.json").read_text())
    *outer, key = entry.split(".")
    del (manifest[outer[0]] if outer else manifest)[key]
    (weights / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match=f"lacks {entry}"):
        load_networks(weights, "cpu")


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("latent.channels", "4"),
        ("latent.patch_size", "8"),
        ("latent.patch_size", 4),
        ("latent.mean", "0, 0, 0, 0"),
        ("latent.mean", [None] * 4),
        ("latent.mean", [0.0] * 3),
        ("latent.scale", [0.0] * 4),
        ("schedule.timesteps", "1000"),
        ("schedule.timesteps", 0),
        ("schedule.beta_end", None),
        ("files", None),
        ("files", ["vae/config.json"]),
        ("files", {"vae/config.json": "0123"}),
    ],
)
def test_what_a_hand_has_made_of_a_manifest_is_refused_in_words(weights: Path, entry: str, value: object) -> None:
    manifest = json.loads((weights / "manifest.json").read_text())
    *outer, key = entry.split(".")
    (manifest[outer[0]] if outer else manifest)[key] = value
    (weights / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match=key if outer else "`files` is to hold an object for every file"):
        load_networks(weights, "cpu")


def test_weights_without_a_denoiser_say_how_to_train_it(tmp_path: Path) -> None:
    save_vae(tmp_path / "half made", Vae(build_autoencoder(4, width=64), 8, torch.zeros(4), torch.ones(4)), {})
    with pytest.raises(WeightsError, match=r"pansynth train denoiser --data FOLDER --out '.*half made'"):
        load_networks(tmp_path / "half made", "cpu")
    vae, schedule = load_vae(tmp_path / "half made")
    assert (vae.mean.shape, schedule.timesteps) == ((1, 4, 1, 1), 1000)


def test_a_new_vae_removes_the_denoiser_of_the_old_one(weights: Path) -> None:
    save_vae(weights, Vae(build_autoencoder(4, width=64), 8, torch.zeros(4), torch.ones(4)), {})
    with pytest.raises(WeightsError, match="lack denoiser"):
        load_networks(weights, "cpu")


def test_the_same_vae_again_changes_nothing(weights: Path) -> None:
    before = load_networks(weights, "cpu")
    autoencoder = before.vae.autoencoder
    save_vae(weights, Vae(autoencoder, 8, torch.zeros(4), torch.full((4,), 0.5)), {"steps": 9})
    assert load_networks(weights, "cpu").sha256 == before.sha256
    save_vae(weights, Vae(autoencoder, 8, torch.zeros(4), torch.ones(4)), {})  # other latents
    with pytest.raises(WeightsError, match="lack denoiser"):
        load_networks(weights, "cpu")


def test_a_denoiser_for_other_latents_is_refused(weights: Path) -> None:
    save_denoiser(weights, Denoiser(build_unet(8, channels=(16, 32), norm_groups=8)), {})
    with pytest.raises(WeightsError, match="takes 8 latent channels"):
        load_networks(weights, "cpu")
