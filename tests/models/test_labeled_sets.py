"""Sets of a comparison that come from folders."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.labeled import labeled_pairs
from cli.phantoms import write_phantoms
from models.labeled_sets import folder_sets, phantom_sets, pixels_sha256, read_labeled
from models.phantoms import LOOKS, PLAIN
from models.pixels import sha256


def test_a_pool_image_under_a_guides_file_name_is_another_anatomy(tmp_path: Path) -> None:
    """Else the oracle would lose it whenever that guide is held out."""
    parts = []
    for name, seed in (("guides", 904), ("pool", 905), ("test", 906)):
        write_phantoms(tmp_path / name, 2, seed, LOOKS, lambda *_: None)
        for number, pair in enumerate(labeled_pairs(tmp_path / name)):
            for path in pair:
                path.rename(path.with_name(f"{number}.png"))
        parts.append(labeled_pairs(tmp_path / name))
    sets = folder_sets(*parts, lambda *_: None)
    assert not set(sets.guides.groups) & set(sets.pool.groups)


def test_a_guide_that_lies_in_the_pool_too_or_a_copy_of_it_is_no_background(tmp_path: Path) -> None:
    """It would be its own best match, and the sample the guide itself."""
    guides, pool, test = parts = [tmp_path / name for name in ("guides", "pool", "test")]
    for seed, folder in enumerate(parts, start=904):
        write_phantoms(folder, 2, seed, LOOKS, lambda *_: None)
    (first, _), second = labeled_pairs(guides)
    with Image.open(first) as image:
        image.resize((400, 220)).save(copy := tmp_path / "saved-anew.jpg", quality=60)
    backgrounds = [(copy, None), second, *labeled_pairs(pool)]
    sets = folder_sets(labeled_pairs(guides), backgrounds, labeled_pairs(test), lambda *_: None)
    assert sets.pool.groups == tuple(f"pool image {image.name}" for image, _ in labeled_pairs(pool))
    assert len(sets.guides) == 2


def test_all_wrong_files_are_named_at_once_but_no_hundreds(tmp_path: Path) -> None:
    write_phantoms(tmp_path, 3, 907, LOOKS, lambda *_: None)
    (_, first), _, (third, _) = pairs = labeled_pairs(tmp_path)
    first.write_bytes(b"")
    third.write_bytes(b"no image")
    with pytest.raises(ValueError, match=rf"^{pairs[0][0]} or its mask: the file is empty.*\n  {third} or its mask: "):
        read_labeled(pairs, "images", lambda *_: None)
    with pytest.raises(ValueError, match=r"\n  and 2 more$"):
        read_labeled(pairs * 6, "images", lambda *_: None)


def test_the_digest_is_that_of_all_images_and_then_of_all_masks(tmp_path: Path) -> None:
    """Run folders know their data by it."""
    write_phantoms(tmp_path, 3, 907, LOOKS, lambda *_: None)
    pairs = labeled_pairs(tmp_path)
    part = read_labeled([*pairs[:2], (pairs[2][0], None)], "images", lambda *_: None)
    assert part.masks[:2].any(axis=(1, 2)).all() and not part.masks[2].any()
    assert pixels_sha256(part) == sha256(part.images.tobytes() + np.packbits(part.masks).tobytes())


def test_phantoms_kept_in_a_folder_are_the_same_and_not_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(folder: Path | None) -> str:
        return phantom_sets(908, (1, 2, 1), [PLAIN], LOOKS, lambda *_: None, folder).sha256()

    drawn = draw(None)
    assert draw(tmp_path / "kept") == drawn
    monkeypatch.setattr("models.labeled_sets.nth_phantom", lambda *_, **__: pytest.fail("drawn again"))
    assert draw(tmp_path / "kept") == drawn
