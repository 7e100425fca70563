"""worker/importing.py: files and archives into a pool."""

import io
import os
import stat
import tempfile
import tracemalloc
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace

import psutil
import pytest
from sqlalchemy import select

from app import keys, pools, queries
from app.blobs import Blobs
from app.queries import ImportOutcome
from app.tables import PoolImage, PoolLatent
from app.uploads.decoders import Decoders
from benchmarks.faults.proxy import Proxy
from models import pixels
from models.phantoms import Phantom
from tests import bad_archives
from tests.worker_service import (
    claim,
    dataset,
    failure,
    look,
    make_pool,
    send_archive,
    send_files,
    submit,
    work_off,
    work_off_impatiently,
)
from worker import archives, importing
from worker.lease import Lease
from worker.tasks import release_leases, work
from worker.workplace import Workplace


def png(phantom: Phantom) -> bytes:
    return pixels.image_png(phantom.image)


def outcome(place: Workplace, job_id: str) -> ImportOutcome:
    with place.database.read() as session:
        return queries.import_outcome(session, queries.find_job(session, job_id))


def images(place: Workplace) -> Sequence[PoolImage]:
    with place.database.read() as session:
        return session.scalars(select(PoolImage).order_by(PoolImage.id)).all()


def test_good_files_come_in_and_bad_ones_are_named(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    pool_id = make_pool(place)
    good = [(f"{n}.png", png(radiographs[n])) for n in range(2)]
    truncated = png(radiographs[3])[:1000]
    files = [good[0], ("notes.txt", b"hello"), good[1], ("cut.png", truncated), ("again.png", good[0][1])]
    job_id = send_files(place, files)
    work_off(place)
    found = outcome(place, job_id)
    assert (found.stored, found.duplicates) == (2, 1)
    assert [refusal["name"] for refusal in found.rejected] == ["notes.txt", "cut.png"]
    assert all(refusal["detail"] for refusal in found.rejected)
    assert (look(place, job_id).status, look(place, job_id).done) == ("succeeded", 5)
    for image, (name, data) in zip(images(place), good, strict=True):
        assert (image.name, image.sha256) == (name, pixels.sha256(data))
        assert place.blobs.get(keys.pool_image(pool_id, image.sha256)) == data


def test_a_good_file_of_which_the_bucket_gives_half_is_read_again(
    place: Workplace, radiographs: Sequence[Phantom], s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(os.environ["AWS_ENDPOINT_URL"], seed=1)
    monkeypatch.setattr("benchmarks.faults.proxy.SOMETIMES", 1.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    place = replace(place, blobs=Blobs(s3_url))
    make_pool(place)
    job_id = send_files(place, [("a.png", png(radiographs[0])), ("b.png", png(radiographs[1]))])
    proxy.mood = "truncated"
    assert work(place) and proxy.injected
    proxy.mood = "well"
    work_off_impatiently(place)
    proxy.close()
    assert (outcome(place, job_id).stored, outcome(place, job_id).rejected) == (2, [])


def test_uploads_leave_nothing_behind(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    make_pool(place)
    job_id = send_files(place, [("a.png", png(radiographs[0])), ("b.txt", b"no")])
    work_off(place)
    assert list(place.blobs.list(f"jobs/{job_id}")) == []


def test_an_image_that_is_there_is_not_encoded_again(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    make_pool(place)
    encoder = place.networks.get("default").vae.autoencoder.encoder
    encoded: list[int] = []
    handle = encoder.register_forward_pre_hook(lambda _, given: encoded.append(len(given[0])))
    for _ in range(2):
        job_id = send_files(place, [("a.png", png(radiographs[0]))])
        work_off(place)
    handle.remove()
    assert (outcome(place, job_id).stored, outcome(place, job_id).duplicates) == (0, 1)
    assert encoded == [1]


@pytest.mark.parametrize(("killed", "at_once"), [(False, 3), (True, 1)])
def test_files_are_decoded_at_once_unless_that_was_too_much_and_come_in_their_order(
    place: Workplace, radiographs: Sequence[Phantom], killed: bool, at_once: int
) -> None:
    make_pool(place)
    files = [(f"{n}.png", png(radiographs[n])) for n in range(6)]
    job_id = send_files(place, [*files[:2], ("cut.png", files[2][1][:1000]), *files[2:]])
    if killed:
        claim(place)
        release_leases(place)
    place = replace(place, decoders=Decoders(place.settings.max_pixels, 3))
    before = psutil.Process().children()
    work_off(place)
    assert len(psutil.Process().children()) - len(before) == at_once
    place.decoders.close()
    assert [image.name for image in images(place)] == [name for name, _ in files]
    assert [refusal["name"] for refusal in outcome(place, job_id).rejected] == ["cut.png"]


def test_files_that_take_long_come_in_by_turns(
    place: Workplace, radiographs: Sequence[Phantom], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "TURN_SECONDS", 0.0)
    make_pool(place)
    files = [("0.png", png(radiographs[0])), ("1.txt", b"hello"), ("2.png", png(radiographs[1]))]
    large, small = send_files(place, files), send_files(place, files[2:])
    seen = []
    while work(place):
        seen.append((look(place, large).done, look(place, small).status))
    assert seen == [(1, "queued"), (1, "succeeded"), (2, "succeeded"), (3, "succeeded")]
    assert outcome(place, large).duplicates == 1 and outcome(place, large).stored == 1
    assert [image.name for image in images(place)] == ["0.png", "2.png"]
    assert list(place.blobs.list(f"jobs/{large}")) == []


def archive(entries: Sequence[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry, data in entries:
            packed.writestr(entry, data)
    return out.getvalue()


def test_an_archive_brings_its_images_and_nothing_else(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    make_pool(place)
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    image = png(radiographs[0])
    entries: list[tuple[str | zipfile.ZipInfo, bytes]] = [
        ("set/", b""),
        ("set/a.png", image),
        ("__MACOSX/set/._a.png", b"clutter"),
        (".DS_Store", b"clutter"),
        ("../../escape.png", image),
        ("/etc/absolute.png", image),
        (link, b"/etc/passwd"),
        ("notes.txt", b"hello"),
    ]
    job_id = send_archive(place, archive(entries))
    work_off(place)
    found = outcome(place, job_id)
    assert found.stored == 1
    refused = {refusal["name"]: refusal["detail"] for refusal in found.rejected}
    assert refused.keys() == {"../../escape.png", "/etc/absolute.png", "link.png", "notes.txt"}
    assert "leads out" in refused["../../escape.png"]
    assert "link" in refused["link.png"]
    assert look(place, job_id).total == 5
    assert list(place.blobs.list(f"jobs/{job_id}")) == []


def test_an_archive_whose_folders_end_with_backslashes_brings_its_images(
    place: Workplace, radiographs: Sequence[Phantom]
) -> None:
    make_pool(place)
    entries: list[tuple[str | zipfile.ZipInfo, bytes]] = [
        ("set\\deep\\", b""),
        ("set\\deep\\a.png", png(radiographs[0])),
        ("set\\.DS_Store", b"clutter"),
        ("set\\Thumbs.db", b"clutter"),
        ("desktop.ini", b"clutter"),
    ]
    job_id = send_archive(place, archive(entries))
    work_off(place)
    found = outcome(place, job_id)
    assert (found.stored, found.rejected) == (1, [])


def test_an_odd_name_keeps_no_image_of_an_archive_out(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    make_pool(place)
    job_id = send_archive(place, archive([("line\nbreak\x1b.png", png(radiographs[0]))]))
    work_off(place)
    assert outcome(place, job_id).rejected == []
    assert [image.name for image in images(place)] == ["line\ufffdbreak\ufffd.png"]


def failed(place: Workplace, job_id: str) -> str:
    work_off(place)
    return failure(place, job_id)


def test_an_archive_that_swells_a_thousandfold_is_refused(place: Workplace) -> None:
    place = replace(place, settings=place.settings.model_copy(update={"max_upload_bytes": 1_000_000}))
    make_pool(place)
    bomb = archive([(f"{n}.bmp", bytes(800_000)) for n in range(4)])
    assert "unpacks to 3,200,000 bytes" in failed(place, send_archive(place, bomb))
    assert images(place) == []


def test_a_bad_archive_is_told_in_words_also_if_the_worker_is_killed_meanwhile(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pool(place)
    job_id = send_archive(place, b"no zip")

    delete = place.blobs.delete

    def delete_and_die(*keys: str) -> None:
        delete(*keys)
        raise SystemExit

    with monkeypatch.context() as killing:
        killing.setattr(place.blobs, "delete", delete_and_die)
        with pytest.raises(SystemExit):
            work(place)
    release_leases(place)
    assert "not a readable zip file" in failed(place, job_id)


def test_an_archive_that_comes_slowly_is_no_step_that_hangs(
    place: Workplace, radiographs: Sequence[Phantom], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pool(place)
    send_archive(place, archive([("a.png", png(radiographs[0]))]))
    checked: list[int] = []
    stream = Blobs.stream

    class Counted(Lease):
        def check(self) -> None:
            checked[-1] += 1
            super().check()

    def in_pieces(blobs: Blobs, key: str) -> Iterator[bytes]:
        data = b"".join(stream(blobs, key))
        for start in range(0, len(data), len(data) // 10 + 1):
            checked.append(0)
            yield data[start : start + len(data) // 10 + 1]

    monkeypatch.setattr(Blobs, "stream", in_pieces)
    with Counted(place.database, claim(place), 9) as held:
        importing.unpack(place, held)
    assert len(checked) == 10 and all(checked), "each piece is a sign that the step moves"


def test_an_archive_of_too_many_files_is_refused(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pool(place)
    monkeypatch.setattr(archives, "MAX_FILES", 2)
    assert "holds 3 files" in failed(place, send_archive(place, archive([(str(n), b"x") for n in range(3)])))


@pytest.mark.parametrize("name", bad_archives.READ)
def test_a_bad_archive_is_refused_in_words_and_brings_nothing(place: Workplace, name: str) -> None:
    make_pool(place)
    bad = bad_archives.archives()[name]
    job_id = send_archive(place, bad.data)
    work_off(place)
    job, found = look(place, job_id), outcome(place, job_id)
    if bad.fails:
        assert bad.words in failure(place, job_id)
        assert job.error is not None and job.error["status"] == 422
    else:
        assert job.status == "succeeded"
        assert [refusal["detail"] for refusal in found.rejected if bad.words in refusal["detail"]]
    assert images(place) == []
    assert list(place.blobs.list(f"jobs/{job_id}")) == []


def test_a_file_damaged_inside_an_archive_leaves_the_others(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    make_pool(place)
    files: list[tuple[str | zipfile.ZipInfo, bytes]] = [(f"{n}.png", png(radiographs[n])) for n in range(2)]
    packed = bytearray(archive(files))
    packed[2000] ^= 255
    job_id = send_archive(place, bytes(packed))
    work_off(place)
    found = outcome(place, job_id)
    assert found.stored == 1
    assert [refusal["name"] for refusal in found.rejected] == ["0.png"]


def test_unpacking_takes_no_more_memory_than_the_archive_claims() -> None:
    """100 MB of zeros that say they are 10 bytes."""
    with tempfile.TemporaryFile() as file:
        file.write(bad_archives.claiming(10, bytes(100_000_000)))
        file.flush()
        with archives.open_archive(file, 1 << 20) as (opened, (entry,)):
            tracemalloc.start()
            with pytest.raises(archives.DamagedEntry):
                archives.contents(opened, entry)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert peak < 10_000_000


def test_without_weights_images_come_in_and_are_encoded_when_a_job_needs_them(
    place: Workplace, radiographs: Sequence[Phantom], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "MODEL", "not on this worker")
    make_pool(place)
    send_files(place, [(f"{n}.png", png(radiographs[n])) for n in range(2, 6)])
    work_off(place)
    with place.database.read() as session:
        assert session.scalars(select(PoolLatent)).all() == []
    job_id = submit(place, radiographs[:1], top_k=2)
    work_off(place)
    assert dataset(place, job_id)
    with place.database.read() as session:
        assert len(session.scalars(select(PoolLatent)).all()) == len(pools.images(session, "p")[0]) == 4
