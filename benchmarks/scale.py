"""Does memory stay flat, does time grow no faster than the work, and do two workers make twice as much as one?

python -m benchmarks.scale package --samples 100 10500
python -m benchmarks.scale match --pool 1000 100000
python -m benchmarks.scale import --pool 1000 10000 100000
python -m benchmarks.scale workers --samples 96 --rounds 3

Packaging with download, matching and importing run at the sizes you name, each in a process of its own. `workers` is
told in `benchmarks.workers`.
"""

import argparse
import multiprocessing
import os
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from app import database, imports, jobs, keys, pools
from app.leases import PLAN
from app.presets import PRESETS
from app.records import Claim, NewImage, Outcome
from app.settings import Settings
from app.tables import Guide, Job, PoolImage, PoolLatent, Sample, Step
from app.uploads.multipart import MAX_FILES
from models import pixels
from models.phantoms import phantoms
from tests.tiny import make_tiny_weights
from worker.index import write_shard
from worker.lease import Lease, TurnOver
from worker.workplace import Workplace, open_workplace

CHANNELS = 4  # of the tiny weights
SHARD = imports.CHUNK
NOW = datetime(2026, 1, 1, tzinfo=UTC)
QUALITY = {name: 0.123456 for name in ("canal_contrast", "canal_retention", "background_ssim", "seam")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measures: list[tuple[str, Callable[[int], None], str, list[int]]] = [
        ("package", measure_package, "--samples", [100, 10_500]),
        ("match", measure_match, "--pool", [1_000, 100_000]),
        ("import", measure_import, "--pool", [1_000, 10_000, 100_000]),
    ]
    for name, measure, option, sizes in measures:
        command = commands.add_parser(name)
        command.add_argument(option, dest="sizes", type=int, nargs="+", default=sizes)
        command.set_defaults(measure=measure)
    workers = commands.add_parser("workers")
    workers.add_argument("--samples", type=int, default=96, help="of a job")
    workers.add_argument("--rounds", type=int, default=3)
    workers.add_argument("--weights", choices=["shipped", "tiny"], default="shipped")
    arguments = parser.parse_args()
    if arguments.command == "workers":
        compare_workers(arguments)
        return

    context = multiprocessing.get_context("fork")  # before torch has computed anything
    for size in arguments.sizes:
        process = context.Process(target=arguments.measure, args=(size,))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{arguments.command} {size}: status {process.exitcode}")


def compare_workers(arguments: argparse.Namespace) -> None:
    from benchmarks.workers import measure_workers

    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("two workers need two cores; this process may use one")
    measure_workers(arguments.samples, arguments.rounds, arguments.weights == "tiny", cores[:2])


def measure_package(samples: int) -> None:
    from worker.packaging import package

    with workplace() as place:
        claim = job_to_package(place, samples)
        with Memory() as memory, Lease(place.database, claim, 300) as lease:
            begun = time.monotonic()
            package(place, lease)
            seconds = time.monotonic() - begun
        size = place.blobs.size(keys.dataset(claim.job_id))
        print(f"package  {samples:>7,} samples  {size / 1e6:>7.1f} MB  {seconds:>6.1f} s  {memory}", flush=True)
        measure_download(place, claim.job_id, size)


def measure_download(place: Workplace, job_id: str, size: int) -> None:
    """The API's memory, which runs in this process, while a client elsewhere would read as fast as it can."""
    import httpx

    from tests.serving import serving

    with serving(place.settings) as served, Memory() as memory:
        begun, got = time.monotonic(), 0
        with httpx.stream("GET", f"http://127.0.0.1:{served.port}/jobs/{job_id}/dataset") as answer:
            for block in answer.iter_raw():
                got += len(block)
        seconds = time.monotonic() - begun
    assert got == size
    print(f"download {size / 1e6:>10.1f} MB  {size / 1e6 / seconds:>6.0f} MB/s  {memory}", flush=True)


def measure_match(size: int) -> None:
    from worker.planning import plan

    with workplace() as place:
        job_to_plan(place, size)
        turns: list[float] = []
        with Memory() as memory:
            while (found := next_claim(place)) is not None and found.kind == PLAN:
                with Lease(place.database, found, 300) as lease:
                    begun = time.monotonic()
                    try:
                        plan(place, lease)
                    except TurnOver:
                        with place.database.write() as session:
                            jobs.hand_back(session, found)
                    turns.append(time.monotonic() - begun)
        words = f"{sum(turns):.1f} s in {len(turns)} turns, the longest {max(turns):.1f} s"
        print(f"match    {size:>7,} images  {words}, {1000 * sum(turns) / size:.2f} ms an image  {memory}", flush=True)


def measure_import(size: int) -> None:
    """What an import does beside decoding and encoding, whose time and memory are each file's own.

    Jobs are taken in with as many files as a request may have, and their steps claimed one after the other; latents of
    noise are written as a shard, rows for images and latents committed.
    """
    noise = np.random.default_rng(0).standard_normal((SHARD, CHANNELS, 32, 64), dtype=np.float32)
    with workplace() as place:
        with place.database.write() as session:
            pool_id = pools.create(session, "p").id
        with Memory() as memory:
            begun = time.monotonic()
            steps: list[float] = []
            for first in range(0, size, MAX_FILES):
                take_in(place, min(MAX_FILES, size - first))
                started = time.monotonic()
                while (found := next_claim(place)) is not None:
                    import_noise(place, found, pool_id, first, noise)
                    steps.append(time.monotonic() - started)
                    started = time.monotonic()
            seconds = time.monotonic() - begun
        tenth = max(1, len(steps) // 10)
        early, late = (1000 * statistics.mean(some) for some in (steps[:tenth], steps[-tenth:]))
        words = f"{seconds:.1f} s, {1000 * seconds / size:.2f} ms an image"
        words += f"; a step of the first tenth took {early:.0f} ms, of the last {late:.0f} ms"
        print(f"import   {size:>7,} images  {words}  {memory}", flush=True)


def take_in(place: Workplace, count: int) -> None:
    names = [f"radiograph-{n:06d}.png" for n in range(count)]
    with place.database.write() as session:
        imports.submit_import(session, job_id=uuid4().hex, pool="p", names=names)


def import_noise(place: Workplace, found: Claim, pool_id: str, first: int, noise: NDArray[np.float32]) -> None:
    """An import step, after `first` images that other jobs imported."""
    images = {
        position: NewImage(f"radiograph-{position:06d}.png", 2900, 1300, pixels.sha256(str(first + position).encode()))
        for position in range(found.first, found.last)
    }
    latents = noise[: len(images)].copy()
    latents[0, 0, 0, 0] = first + found.first  # no two shards are the same
    model = place.networks.weights("default").sha256
    with Lease(place.database, found, 300) as lease:
        rows = write_shard(place, pool_id, model, [image.sha256 for image in images.values()], latents)
        outcomes = [Outcome(position, image) for position, image in images.items()]
        with place.database.write() as session:
            imports.imported(session, lease.claim, outcomes, rows)


# --- What is measured on ---


@contextmanager
def workplace() -> Iterator[Workplace]:
    with tempfile.TemporaryDirectory(prefix="pansynth-scale-") as folder:
        make_tiny_weights(Path(folder) / "weights" / "default")
        settings = Settings(
            data_dir=Path(folder) / "data",
            weights_dir=Path(folder) / "weights",
            device="cpu",
            broker_url=f"redis+socket://{folder}/nobody",
        )
        database.migrate(settings.database())
        place = open_workplace(settings, "scale")
        place.networks.get("default", None)
        yield place
        place.database.dispose()


def job_to_package(place: Workplace, samples: int) -> Claim:
    """A job whose samples are all made; a few different images stand for all of them."""
    guides = 7
    job_id, pool_id = new_job(place, guides, -(-samples // guides), samples)
    made = [pixels.image_png(phantom.image) for phantom in phantoms(seed=1, count=8)]
    digests = [pixels.sha256(png) for png in made]
    for digest, png in zip(digests, made, strict=True):
        place.blobs.put(keys.sample(job_id, digest), png)
        place.blobs.put(keys.pool_image(pool_id, digest), png)
    rows = [
        {
            "job_id": job_id,
            "position": n,
            "guide": n % guides,
            "pool_image_id": n,
            "pool_image_name": f"radiograph-{n:06d}.png",
            "pool_image_sha256": digests[n % 8],
            "rank": n + 1,
            "ssim": 0.5,
            "seed": n,
            "image_sha256": digests[n % 8],
            "quality": QUALITY,
        }
        for n in range(samples)
    ]
    with place.database.write() as session:
        session.execute(Sample.__table__.insert(), rows)
        session.add(Step(job_id=job_id, kind="package", position=0, first=0, last=samples, status="ready"))
    found = next_claim(place)
    assert found is not None
    return found


def job_to_plan(place: Workplace, size: int) -> None:
    """A job with one guide, and a pool whose latents are noise, in shards as an import writes them."""
    job_id, pool_id = new_job(place, 1, 5, 5)
    model = place.networks.weights("default").sha256
    noise = np.random.default_rng(0)
    for first in range(0, size, SHARD):
        count = min(SHARD, size - first)
        images = [
            {
                "id": n + 1,
                "pool_id": pool_id,
                "name": f"radiograph-{n:06d}.png",
                "width": 2900,
                "height": 1300,
                "sha256": pixels.sha256(str(n).encode()),
                "created_at": NOW,
            }
            for n in range(first, first + count)
        ]
        values = noise.standard_normal((count, CHANNELS, 32, 64), dtype=np.float32)
        shard = write_shard(place, pool_id, model, [str(row["sha256"]) for row in images], values)[0].shard
        latents = [
            {"pool_image_id": row["id"], "model_sha256": model, "shard": shard, "row": n, "low": -5.0, "high": 5.0}
            for n, row in enumerate(images)
        ]
        with place.database.write() as session:
            session.execute(PoolImage.__table__.insert(), images)
            session.execute(PoolLatent.__table__.insert(), latents)
    with place.database.write() as session:
        job = session.get_one(Job, job_id)
        job.pool_high_water, job.parameters = size, {**job.parameters, "model_sha256": model}
        session.add(Step(job_id=job_id, kind=PLAN, position=0, first=0, last=1, status="ready"))


def new_job(place: Workplace, guides: int, top_k: int, total: int) -> tuple[str, str]:
    """A job that runs, with its guides -> (its id, its pool's)."""
    job_id = uuid4().hex
    model = place.networks.weights("default").sha256
    parameters: dict[str, Any] = {"pool": "p", "top_k": top_k, "preset": "paper", "selection": "ssim"}
    parameters |= {"method": "diffusion", "seed": 0, "model": "default", "model_sha256": model}
    with place.database.write() as session:
        pool = pools.create(session, "p")
        job = Job(id=job_id, kind="synthesis", status="running", pool_id=pool.id, total=total, created_at=NOW)
        job.parameters = parameters | vars(PRESETS["paper"])
        session.add(job)
        session.flush()
        for position, phantom in enumerate(phantoms(seed=2, count=guides)):
            image, mask = pixels.image_png(phantom.image), pixels.mask_png(phantom.mask)
            digests = {"image_sha256": pixels.sha256(image), "mask_sha256": pixels.sha256(mask)}
            for png in (image, mask):
                place.blobs.put(keys.guide(job_id, pixels.sha256(png)), png)
            session.add(Guide(job_id=job_id, position=position, name="g.png", width=512, height=256, **digests))
        return job_id, pool.id


def next_claim(place: Workplace) -> Claim | None:
    with place.database.write() as session:
        return jobs.claim(session, worker="scale", now=datetime.now(UTC), lease_seconds=300, max_attempts=5)


class Memory:
    """The most anonymous memory that this process held in the block beyond what it held before, in MB.

    Files mapped into memory are left out: the kernel takes them back when it needs to.
    """

    def __enter__(self) -> "Memory":
        self.before = self.most = anonymous()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def watch(self) -> None:
        while not self.over.wait(0.02):
            self.most = max(self.most, anonymous())

    def __str__(self) -> str:
        return f"memory +{self.most - self.before:.0f} MB on {self.before:.0f}"


def anonymous() -> float:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


if __name__ == "__main__":
    main()
