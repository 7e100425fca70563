"""models/segmenter.py: the networks and what they predict."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.segmenter import BACKBONES, Labeled, build_segmenter, predict

CPU = torch.device("cpu")


def test_logits_have_the_size_of_the_image_and_two_classes() -> None:
    logits = build_segmenter("tiny").eval()(torch.zeros(2, 1, 64, 128))
    assert logits.shape == (2, 2, 64, 128)


def test_logits_and_gradients_are_those_of_the_published_forward_pass() -> None:
    segmenter = build_segmenter("tiny").eval()
    images = torch.randn(2, 1, 64, 128, generator=torch.Generator().manual_seed(0))
    ours = segmenter(images)
    ours.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in segmenter.network.named_parameters()}
    segmenter.zero_grad(set_to_none=True)
    quarter = segmenter.network(pixel_values=images).logits
    published = torch.nn.functional.interpolate(quarter, (64, 128), mode="bilinear", align_corners=False)
    published.square().mean().backward()
    torch.testing.assert_close(ours, published)
    for name, parameter in segmenter.network.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, msg=name)


def test_b0_is_the_published_network_but_for_its_one_channel() -> None:
    count = sum(parameter.numel() for parameter in build_segmenter("b0").parameters())
    published = 3_714_658  # transformers' SegformerConfig() with two labels
    assert published - count == 2 * 7 * 7 * 32  # the two channels of colour that a radiograph has not


def test_every_backbone_of_the_paper_has_its_name() -> None:
    assert set(BACKBONES) == {"tiny", "mini", *(f"b{n}" for n in range(6))}


def test_the_seed_decides_the_first_weights_and_nothing_else_does() -> None:
    first, again, other = (build_segmenter("tiny", seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_building_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    build_segmenter("tiny", 3)
    assert torch.equal(before, torch.random.get_rng_state())


def test_pretrained_weights_of_three_channels_come_from_a_folder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    config = SegformerConfig(depths=(1, 1, 1, 1), hidden_sizes=(8, 16, 40, 64), decoder_hidden_size=16, num_labels=5)
    pretrained = SegformerForSemanticSegmentation(config)
    pretrained.save_pretrained(tmp_path)
    capfd.readouterr()
    loaded = build_segmenter(str(tmp_path))
    assert "Loading weights" not in capfd.readouterr().err, "a progress bar of somebody else's in the middle of ours"
    assert loaded.eval()(torch.zeros(1, 1, 32, 64)).shape == (1, 2, 32, 64)
    own = loaded.network.segformer.state_dict()
    assert all(torch.equal(own[name], value) for name, value in pretrained.segformer.state_dict().items())


def test_pretrained_weights_of_half_precision_are_trained_in_full(tmp_path: Path) -> None:
    build_segmenter("tiny").network.half().save_pretrained(tmp_path)
    loaded = build_segmenter(str(tmp_path))
    assert loaded(torch.zeros(1, 1, 32, 64)).dtype == torch.float32


def test_what_is_neither_a_name_nor_a_folder_is_refused() -> None:
    with pytest.raises(ValueError, match="'b9' is neither one of tiny, mini, b0"):
        build_segmenter("b9")


@pytest.mark.parametrize("weights", [None, b"no safetensors"])
def test_a_folder_whose_weights_cannot_be_read_is_named(tmp_path: Path, weights: bytes | None) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "segformer"}')
    if weights is not None:
        (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match=f"backbone '{tmp_path}' cannot be read: "):
        build_segmenter(str(tmp_path))


def test_a_folder_of_another_network_is_refused_and_not_trained_from_random_weights(tmp_path: Path) -> None:
    pretrained = build_segmenter("tiny").network
    own = {f"model.{name}": value for name, value in pretrained.state_dict().items()}  # as Lightning names them
    pretrained.save_pretrained(tmp_path)
    save_file(own, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"backbone '{tmp_path}' lacks weights of a SegFormer's encoder"):
        build_segmenter(str(tmp_path))


def test_an_encoder_alone_gets_a_new_head(tmp_path: Path) -> None:
    pretrained = build_segmenter("tiny", 1).network.segformer
    pretrained.save_pretrained(tmp_path)
    own = build_segmenter(str(tmp_path)).network.segformer.state_dict()
    assert all(torch.equal(own[name], value) for name, value in pretrained.state_dict().items())


def test_a_prediction_does_not_depend_on_the_images_beside_it() -> None:
    segmenter = build_segmenter("tiny")
    images = np.random.default_rng(0).integers(0, 256, (11, 32, 64), np.uint8)
    together = predict(segmenter, images, CPU)
    assert together.shape == images.shape and together.dtype == bool
    alone = np.concatenate([predict(segmenter, image[None], CPU) for image in images])
    assert (together == alone).mean() > 0.999


def test_unequal_counts_are_refused() -> None:
    images, masks = np.zeros((2, 4, 8), np.uint8), np.zeros((2, 4, 8), bool)
    with pytest.raises(ValueError, match="as many of each"):
        Labeled(images, masks, ("a",))
