import pytest
import torch
from diffusers import AutoencoderKL
from torch.nn.functional import avg_pool2d, interpolate, pixel_unshuffle

from models.phantoms import phantom
from models.vae import Vae, build_autoencoder


def radiograph() -> torch.Tensor:
    return torch.from_numpy(phantom(7, "plain").image).float()[None, None] / 127.5 - 1


def test_an_untrained_autoencoder_is_a_codec_that_halves_the_resolution() -> None:
    image = radiograph()
    vae = Vae(build_autoencoder(), 8, torch.zeros(16), torch.ones(16)).eval()
    halved = avg_pool2d(image, 2)
    with torch.inference_mode():
        latent = vae.encode(image)
        restored = vae.decode(latent)
    assert latent.shape == (1, 16, 32, 64)
    assert (latent - pixel_unshuffle(halved, 4)).abs().mean() < 0.05
    assert (restored - interpolate(halved, scale_factor=2)).abs().mean() < 0.05


def test_latents_are_standardised_by_the_mean_and_scale_that_travel_with_the_weights() -> None:
    torch.manual_seed(0)
    autoencoder = build_autoencoder(4, width=64).eval()
    mean, scale = torch.tensor([0.1, -0.2, 0.3, 0.0]), torch.tensor([0.5, 2.0, 1.0, 0.25])
    plain = Vae(autoencoder, 8, torch.zeros(4), torch.ones(4))
    standardised = Vae(autoencoder, 8, mean, scale)
    with torch.inference_mode():
        raw, latent = plain.encode(radiograph()), standardised.encode(radiograph())
        torch.testing.assert_close(latent, (raw - mean.view(1, -1, 1, 1)) / scale.view(1, -1, 1, 1))
        torch.testing.assert_close(standardised.decode(latent), plain.decode(raw), atol=1e-5, rtol=1e-5)


def test_a_plain_autoencoder_kl_is_a_vae_of_patch_size_one() -> None:
    autoencoder = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
    )
    vae = Vae(autoencoder, 1, torch.zeros(4), torch.ones(4)).eval()
    with torch.inference_mode():
        latent = vae.encode(radiograph())
        assert latent.shape == (1, 4, 32, 64)
        assert vae.decode(latent).shape == (1, 1, 256, 512)


@pytest.mark.parametrize(("colours", "blocks", "patch_size"), [(3, 4, 1), (1, 3, 1), (1, 4, 8)])
def test_networks_that_would_fail_at_the_first_radiograph_become_no_weights(
    colours: int, blocks: int, patch_size: int
) -> None:
    autoencoder = AutoencoderKL(
        in_channels=colours,
        out_channels=colours,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=(8,) * blocks,
        norm_num_groups=4,
    )
    with pytest.raises(ValueError, match=f"takes {colours} channels, and its latents have 1/"):
        Vae(autoencoder, patch_size, torch.zeros(4), torch.ones(4))


@pytest.mark.parametrize("scale", [0.0, float("nan")])
def test_latents_that_cannot_be_standardised_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=f"the scale of the latents is .*{scale}"):
        Vae(build_autoencoder(2, width=64), 8, torch.zeros(2), torch.tensor([1.0, scale]))


def test_encoding_twice_gives_the_same_latent() -> None:
    vae = Vae(build_autoencoder(4, width=64), 8, torch.zeros(4), torch.ones(4)).eval()
    with torch.inference_mode():
        assert torch.equal(vae.encode(radiograph()), vae.encode(radiograph()))
