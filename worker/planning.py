"""Which pool images go with which guide: the index made complete, then the guides compared with it."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from app import jobs, keys, queries
from app.errors import LastingError
from app.records import NewSample
from app.tables import Guide, Job
from app.trust import REDRAWS
from models import pixels
from models.matching import COPY_SSIM, Match, latent_ssim, random_selection, top_k
from models.synthesis import sample_seed
from worker.index import PoolIndex, encode, images_without_latent, keep_shard, open_index
from worker.lease import Lease, TurnOver
from worker.networks import for_all_cores
from worker.reading import read_ahead
from worker.region import crop_guides
from worker.workplace import Workplace

LOOKED_UP = 512  # images in one go: the database looks through the whole pool for them
INDEX_BATCH = 32  # images encoded to a shard
INDEX_SECONDS = 20.0  # after which another step may have its turn
PLAN_SECONDS = 15.0  # likewise; opening the index of 100,000 images takes seconds, too
CHUNK_CPU = 8  # samples to a step, 10 to 30 s; more where there are more cores
CHUNK_CUDA = 256
COPIES = 3  # of a guide that its pool may hold without a sample the less


def index(place: Workplace, lease: Lease) -> int:
    """The step `index`: encode what the pool lacks for the job's weights; import did the default's."""
    with place.database.read() as session:
        job = queries.find_job(session, lease.claim.job_id)
    networks = place.networks.get(job.parameters["model"], job.parameters.get("model_sha256"))
    started = time.monotonic()
    while missing := images_without_latent(place, job, networks.sha256, LOOKED_UP):
        for first in range(0, len(missing), INDEX_BATCH):
            lease.check()
            some = missing[first : first + INDEX_BATCH]
            images = _images(place, partial(keys.pool_image, job.home_id), some)
            latents = keep_shard(place, lease, job.home_id, networks, images)
            with place.database.write() as session:
                jobs.indexed(session, lease.claim, latents)
            if time.monotonic() - started > INDEX_SECONDS:
                raise TurnOver
    with place.database.write() as session:
        return jobs.index_done(session, lease.claim, networks.sha256)


def _images(place: Workplace, key: Callable[[str], str], sha256s: Sequence[str]) -> list[tuple[str, NDArray[np.uint8]]]:
    """Images (256, 512) that lie under `key(sha256)`, each with its sha256."""
    stored = ((sha256, key(sha256), sha256) for sha256 in sha256s)
    return [(sha256, pixels.image_from_png(png)) for sha256, png in read_ahead(place.blobs, stored)]


def plan(place: Workplace, lease: Lease) -> int:
    """The step `plan`: for the guides first <= position < last the pool images, one sample row each."""
    with place.database.read() as session:
        job = queries.find_job(session, lease.claim.job_id)
        guides = queries.guides(session, job.id)[lease.claim.first : lease.claim.last]
    guides = crop_guides(place, lease, job, guides)
    networks = place.networks.get(job.parameters["model"], job.parameters["model_sha256"])
    found = open_index(place, job, networks.sha256, lease.check)
    lease.check()
    images = _images(place, partial(keys.guide, job.id), [guide.image_sha256 for guide in guides])
    latents = torch.from_numpy(encode(networks, [image for _, image in images], lease.check)).to(networks.device)
    if job.parameters["selection"] == "ssim":
        chosen = _most_similar(place, lease, job, latents, found)
    else:
        chosen = _drawn(job, guides, latents, found)
    samples = _samples(job, guides, found, chosen)
    chunk = for_all_cores(CHUNK_CPU, rounds=2) if networks.device.type == "cpu" else CHUNK_CUDA
    with place.database.write() as session:
        made = jobs.plan_done(session, lease.claim, samples, chunk)
    place.blobs.delete(keys.matches(job.id, lease.claim.first))
    return made


def _most_similar(
    place: Workplace, lease: Lease, job: Job, latents: torch.Tensor, found: PoolIndex
) -> list[list[Match]]:
    """For each guide its top_k pool images, what spares the pool has, and a few more, best first.

    A large pool is compared in several turns.
    """
    saved = keys.matches(job.id, lease.claim.first)
    compared = 0
    best: list[list[Match]] = []
    if place.blobs.exists(saved):
        with suppress(ValueError):  # a power cut left it short: the comparison begins anew
            compared, best = _parsed(place.blobs.get(saved))
    started = time.monotonic()
    for piece, sha256s in found.pieces(compared):
        lease.check()
        best = top_k(latents, piece, sha256s, _count(job) + COPIES, found.data_range, best)
        compared += len(sha256s)
        if time.monotonic() - started > PLAN_SECONDS and compared < len(found.entries):
            place.blobs.put(saved, json.dumps([compared, best]).encode())
            raise TurnOver
    return best


def _parsed(saved: bytes) -> tuple[int, list[list[Match]]]:
    """JSON gives every float back as it was."""
    compared, best = json.loads(saved)
    return compared, [[Match(*match) for match in matches] for matches in best]


def _drawn(job: Job, guides: Sequence[Guide], latents: torch.Tensor, found: PoolIndex) -> list[list[Match]]:
    """The same drawn by lot: the control."""
    chosen = []
    for guide, latent in zip(guides, latents, strict=True):
        sha256s = random_selection(job.parameters["seed"], guide.image_sha256, found.entries, _count(job) + COPIES)
        ssim = latent_ssim(latent[None], found.latents(sha256s), found.data_range)[0].tolist()
        chosen.append([Match(sha256, value) for sha256, value in zip(sha256s, ssim, strict=True)])
    return chosen


def _samples(job: Job, guides: Sequence[Guide], found: PoolIndex, chosen: list[list[Match]]) -> list[NewSample]:
    count = job.parameters["top_k"]
    if any(len(matches) < count for matches in chosen):
        raise LastingError(f"the pool lost images while the job ran: fewer than top_k {count} are left")
    made = []
    for guide, matches in zip(guides, chosen, strict=True):
        others = _without_copies(matches, count)[: _count(job)]
        backgrounds = [_background(job, guide, found, match, rank) for rank, match in enumerate(others, start=1)]
        for turn in range(count):
            # Every count-th one after it, so that each sample has spares of its own.
            spares = backgrounds[turn + count :: count]
            position = guide.position * count + turn
            made.append(NewSample(position, guide.position, **backgrounds[turn], spares=spares or None))
    return made


def _without_copies(matches: list[Match], count: int) -> list[Match]:
    """Leave out the guide itself, as it is or saved anew, unless too few are left: the sample would be the guide."""
    others = [match for match in matches if match.ssim < COPY_SSIM]
    return others if len(others) >= count else matches


def _background(job: Job, guide: Guide, found: PoolIndex, match: Match, rank: int) -> dict[str, Any]:
    """What a sample's row says of its pool image, and the seed that follows from it."""
    entry = found.entries[match.sha256]
    return {
        "pool_image_id": entry.image_id,
        "pool_image_name": entry.name,
        "pool_image_sha256": match.sha256,
        "rank": rank,
        "ssim": match.ssim,
        "seed": sample_seed(job.parameters["seed"], guide.image_sha256, match.sha256),
    }


def _count(job: Job) -> int:
    """How many pool images a guide needs: its top_k, and spares where failed samples are redrawn."""
    return int(job.parameters["top_k"]) * (1 + (REDRAWS if job.parameters.get("on_fail") == "redraw" else 0))
