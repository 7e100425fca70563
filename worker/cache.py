"""Keeps the worker's cache folder small: what a killed process left in it goes, and shards long unused."""

import shutil
import time
from pathlib import Path

LEFT_SECONDS = 24 * 3600.0  # far longer than any step can run, also where the clock is set an hour ahead
UNUSED_SECONDS = 7 * 24 * 3600.0  # a shard fetched again costs one read from the store


def remove_unused(cache: Path, now: float | None = None) -> int:
    """Remove temporary files older than any step can run, and shards that no step has used for a week.

    Other workers of the machine may do the same at the same time. Returns how many went.
    """
    now = time.time() if now is None else now
    temporary = [*cache.glob("tmp*"), *cache.glob("latents/*/.*")]
    leftovers = [path for path in temporary if now - _touched(path) > LEFT_SECONDS]
    shards = [path for path in cache.glob("latents/*/[!.]*") if now - _touched(path) > UNUSED_SECONDS]
    for path in (*leftovers, *shards):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)  # who has it mapped keeps it
    return len(leftovers) + len(shards)


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
