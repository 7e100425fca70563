"""Which pool images go with which guide: the index made complete, then the guides compared with it."""

import time
from collections.abc import Sequence

import torch

from app import jobs, keys, queries
from app.errors import LastingError
from app.records import NewSample
from app.tables import Guide, Job
from models import pixels
from models.matching import Match, latent_ssim, random_selection, top_k
from models.synthesis import sample_seed
from worker.index import PoolIndex, encode, images_without_latent, keep_shard, open_index
from worker.lease import Lease
from worker.workplace import Workplace

INDEX_BATCH = 32  # images encoded to a shard
INDEX_SECONDS = 20.0  # after which another step may have its turn
CHUNK_CPU = 8  # samples to a step: 10 to 30 s
CHUNK_CUDA = 256


def index(place: Workplace, lease: Lease) -> int:
    """The step `index`: encode what the pool lacks for the job's weights; import did the default's."""
    with place.database.read() as session:
        job = queries.find_job(session, lease.claim.job_id)
    networks = place.networks.get(job.parameters["model"], job.parameters.get("model_sha256"))
    started = time.monotonic()
    while missing := images_without_latent(place, job, networks.sha256, INDEX_BATCH):
        lease.check()
        pngs = [place.blobs.get(keys.pool_image(job.pool_id or "", sha256)) for sha256 in missing]
        images = [pixels.image_from_png(png) for png in pngs]
        named = list(zip(missing, images, strict=True))
        latents = keep_shard(place, lease, job.pool_id or "", networks, named)
        with place.database.write() as session:
            jobs.indexed(session, lease.claim, latents)
            if turn_over := time.monotonic() - started > INDEX_SECONDS:
                jobs.hand_back(session, lease.claim)
        if turn_over:
            return 1
    with place.database.write() as session:
        return jobs.index_done(session, lease.claim, networks.sha256)


def plan(place: Workplace, lease: Lease) -> int:
    """The step `plan`: for the guides first <= position < last the pool images, one sample row each."""
    with place.database.read() as session:
        job = queries.find_job(session, lease.claim.job_id)
        guides = queries.guides(session, job.id)[lease.claim.first : lease.claim.last]
    networks = place.networks.get(job.parameters["model"], job.parameters["model_sha256"])
    found = open_index(place, job, networks.sha256)
    lease.check()
    images = [pixels.image_from_png(place.blobs.get(keys.guide(job.id, g.image_sha256))) for g in guides]
    latents = torch.from_numpy(encode(networks, images, lease.check)).to(networks.device)
    samples = _samples(job, guides, found, _choose(job, guides, latents, found))
    chunk = CHUNK_CPU if networks.device.type == "cpu" else CHUNK_CUDA
    with place.database.write() as session:
        return jobs.plan_done(session, lease.claim, samples, chunk)


def _choose(job: Job, guides: Sequence[Guide], latents: torch.Tensor, found: PoolIndex) -> list[list[Match]]:
    """For each guide its top_k pool images, the best first (or drawn by lot: the control)."""
    count = job.parameters["top_k"]
    if job.parameters["selection"] == "ssim":
        return top_k(latents, found.pieces(), count, found.data_range)
    chosen = []
    for guide, latent in zip(guides, latents, strict=True):
        sha256s = random_selection(job.parameters["seed"], guide.image_sha256, found.entries, count)
        ssim = latent_ssim(latent[None], found.latents(sha256s), found.data_range)[0].tolist()
        chosen.append([Match(sha256, value) for sha256, value in zip(sha256s, ssim, strict=True)])
    return chosen


def _samples(job: Job, guides: Sequence[Guide], found: PoolIndex, chosen: list[list[Match]]) -> list[NewSample]:
    count = job.parameters["top_k"]
    if any(len(matches) != count for matches in chosen):
        raise LastingError(f"the pool lost images while the job ran: fewer than top_k {count} are left")
    return [
        NewSample(
            position=guide.position * count + rank - 1,
            guide=guide.position,
            pool_image_id=found.entries[match.sha256].image_id,
            pool_image_name=found.entries[match.sha256].name,
            pool_image_sha256=match.sha256,
            rank=rank,
            ssim=match.ssim,
            seed=sample_seed(job.parameters["seed"], guide.image_sha256, match.sha256),
        )
        for guide, matches in zip(guides, chosen, strict=True)
        for rank, match in enumerate(matches, start=1)
    ]
