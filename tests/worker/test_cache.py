"""worker/cache.py: what is in use stays, what a kill left behind goes."""

import os
import time
from pathlib import Path

from app import database
from app.settings import Settings
from worker.cache import remove_unused
from worker.workplace import open_workplace

HOUR = 3600.0


def test_leftovers_and_unused_shards_go_and_what_is_in_use_stays(tmp_path: Path) -> None:
    ages = {
        "tmpkilled/dataset.zip": 25 * HOUR,
        "tmpbusy/dataset.zip": HOUR,
        "latents/m/.aside": 25 * HOUR,
        "latents/m/.being-written": HOUR,
        "latents/m/used.npy": HOUR,
        "latents/m/unused.npy": 8 * 24 * HOUR,
    }
    for name, age in ages.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
        for path in (file, file.parent) if name.startswith("tmp") else (file,):
            os.utime(path, (time.time() - age,) * 2)
    assert remove_unused(tmp_path) == 3
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["latents/m/.being-written", "latents/m/used.npy", "tmpbusy/dataset.zip"]


def test_an_empty_cache_is_no_error(tmp_path: Path) -> None:
    assert remove_unused(tmp_path / "not there") == 0


def test_nobody_else_on_the_machine_can_read_what_is_kept(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        place = open_workplace(Settings(data_dir=tmp_path), "one@test")
        database.migrate(place.settings.database())
        kept = [place.cache, *tmp_path.iterdir()]
        place.database.dispose()
    finally:
        os.umask(before)
    assert {"blobs", "cache", "pansynth.sqlite"} <= {path.name for path in kept}
    assert [path.name for path in kept if path.stat().st_mode & 0o077] == []
