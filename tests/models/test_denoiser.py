import torch

from models.denoiser import Denoiser, build_unet


def test_an_untrained_denoiser_predicts_no_noise() -> None:
    denoiser = Denoiser(build_unet(4, channels=(16, 32), norm_groups=8)).eval()
    with torch.inference_mode():
        predicted = denoiser(torch.randn(2, 4, 32, 64), torch.tensor([1, 1000]))
    assert predicted.shape == (2, 4, 32, 64)
    assert torch.count_nonzero(predicted) == 0


def test_noise_level_one_is_the_first_level_of_diffusers() -> None:
    torch.manual_seed(0)
    unet = build_unet(4, channels=(16, 32), norm_groups=8).eval()
    torch.nn.init.normal_(unet.conv_out.weight)
    noisy = torch.randn(1, 4, 32, 64)
    with torch.inference_mode():
        assert torch.equal(Denoiser(unet)(noisy, torch.tensor([1])), unet(noisy, torch.tensor([0])).sample)
