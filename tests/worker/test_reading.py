"""worker/reading.py: blobs read ahead of their turn."""

from threading import Barrier
from typing import Any

import pytest

from app.blobs import Blobs
from models import pixels
from worker.reading import READ_AHEAD, read_ahead


def test_a_batch_takes_a_bucket_no_longer_than_one_blob(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [b"%d" % n for n in range(2 * READ_AHEAD)]
    for n, content in enumerate(contents):
        blobs.put(str(n), content)
    together, get = Barrier(READ_AHEAD, timeout=60), Blobs.get

    def get_with_the_others(*given: Any) -> bytes:
        together.wait()
        return get(*given)

    monkeypatch.setattr(Blobs, "get", get_with_the_others)
    wanted = ((n, str(n), pixels.sha256(content)) for n, content in enumerate(contents))
    assert list(read_ahead(blobs, wanted)) == list(enumerate(contents))
