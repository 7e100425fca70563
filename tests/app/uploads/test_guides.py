"""app/uploads/guides.py: guides between their upload and the store."""

import tempfile
import tracemalloc

import anyio
import numpy as np
from anyio import CapacityLimiter

from app.uploads.decoder import Decoder
from app.uploads.guides import read_guides
from app.uploads.multipart import Form, UploadedFile
from tests.bad_files import disc, encode


def test_guides_to_be_cropped_wait_for_the_store_on_the_disk() -> None:
    image = encode(np.random.default_rng(0).integers(0, 256, (512, 1024), np.uint8))
    mask = encode(disc(512, 1024).astype(np.uint8) * np.uint8(255))
    decoder = Decoder(10**6)
    with tempfile.TemporaryFile() as stored:
        stored.write(image + mask)
        stored.flush()
        files = UploadedFile("a.png", 0, len(image), stored), UploadedFile("b.png", len(image), len(mask), stored)
        form = Form(files={"image": 4 * [files[0]], "mask": 4 * [files[1]]})
        tracemalloc.start()
        guides = anyio.run(read_guides, form, decoder, CapacityLimiter(1), True)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert [guide.image.size > len(image) / 2 for guide in guides] == 4 * [True]
        pngs = [file.open().read() for guide in guides for file in (guide.image, guide.mask)]
        assert held < len(image)
    decoder.close()
    assert len(set(pngs)) == 2 and pngs[:2] == pngs[2:4] and all(png.startswith(b"\x89PNG") for png in pngs)
