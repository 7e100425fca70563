"""Sets of a comparison that come from folders."""

from pathlib import Path

from cli.evaluate import labeled_pairs
from cli.phantoms import write_phantoms
from models.labeled_sets import folder_sets
from models.phantoms import LOOKS


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
