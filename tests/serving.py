"""The real API on a real socket, and jobs brought to any point of their life by the workers' own verbs."""

import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from sqlalchemy import event, func, select

from app import jobs, keys, pools
from app.main import create_app
from app.records import Claim, MadeSample, NewSample
from app.service import Service
from app.settings import Settings
from app.tables import Base, PoolImage, Worker
from models import pixels
from tests.bad_files import disc, encode, gradient

WORKER = "worker-of-the-test"


@dataclass(frozen=True)
class Served:
    """A running API: its client, and the stores behind it."""

    client: httpx.Client
    service: Service
    port: int


@contextmanager
def serving(settings: Settings) -> Iterator[Served]:
    app = create_app(settings)
    config = uvicorn.Config(app, port=0, log_level="warning", ws="none", http="h11", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            yield Served(client, app.state.service, port)
    finally:
        server.should_exit = True
        thread.join()


def write_weights(root: Path, name: str = "default", networks: Sequence[str] = ("vae", "denoiser")) -> str:
    """A folder with a manifest, which is all the API reads of weights. Returns their sha256."""
    folder = root / name
    folder.mkdir(parents=True)
    content = {
        "name": name,
        "created": "2024-05-01T00:00:00Z",
        "latent": {"channels": 4, "mean": [0.0] * 4, "scale": [1.0] * 4},
        "files": {f"{network}/config.json": {"sha256": "0" * 64, "bytes": 123} for network in networks},
    }
    raw = json.dumps(content).encode()
    (folder / "manifest.json").write_bytes(raw)
    (folder / "card.md").write_text("# Weights for tests\n")
    return hashlib.sha256(raw).hexdigest()


def fill_pool(service: Service, name: str, count: int) -> list[str]:
    """A pool with `count` different images. Returns their sha256 in order."""
    digests = []
    with service.database.write() as session:
        pool = pools.create(session, name)
        for n in range(count):
            png = pool_png(n)
            digests.append(pixels.sha256(png))
            service.blobs.put(keys.pool_image(pool.id, digests[-1]), png)
            row = {"name": f"pan-{n}.png", "width": 600, "height": 300, "sha256": digests[-1]}
            session.add(PoolImage(pool_id=pool.id, created_at=datetime.now(UTC), **row))
            session.flush()
    return digests


@cache
def pool_png(number: int) -> bytes:
    picture = np.full((256, 512), number, np.uint8)
    picture[:64] += np.arange(64, dtype=np.uint8)[:, None]  # a plain one is no radiograph
    return pixels.image_png(picture)


def give_sign_of_life(service: Service, models: list[str], figures: dict[str, Any] | None = None) -> None:
    sign = Worker(id=WORKER, device="cpu", models=models, seen_at=datetime.now(UTC), figures=figures)
    with service.database.write() as session:
        session.add(sign)


def guide_files(count: int = 1) -> list[tuple[str, tuple[str, bytes, str]]]:
    """Multipart parts of `count` good guides, each another picture."""
    parts = []
    for n in range(count):
        image = encode((gradient(96 + n, 160)).astype(np.uint8))
        mask = encode(disc(96 + n, 160).astype(np.uint8) * np.uint8(255))
        parts.append(("image", (f"guide-{n}.png", image, "image/png")))
        parts.append(("mask", (f"guide-{n}-mask.png", mask, "image/png")))
    return parts


def submit(client: httpx.Client, pool: str, top_k: int = 2, guides: int = 1, **fields: Any) -> dict[str, Any]:
    data = {"pool": pool, "top_k": str(top_k)} | fields
    response = client.post("/synthesize", data=data, files=guide_files(guides))
    assert response.status_code == 202, response.text
    body: dict[str, Any] = response.json()
    return body


def refused(answer: httpx.Response) -> dict[str, str]:
    """What was wrong, by field."""
    assert answer.status_code == 422, answer.text
    return {error["field"]: error["detail"] for error in answer.json()["errors"]}


def claim(service: Service) -> Claim:
    with service.database.write() as session:
        found = jobs.claim(session, worker=WORKER, now=datetime.now(UTC), lease_seconds=60.0, max_attempts=5)
    assert found is not None
    return found


def plan(service: Service, pool: str, top_k: int) -> None:
    """Bring the oldest job, of one guide, to its samples."""
    indexing = claim(service)
    with service.database.write() as session:
        jobs.index_done(session, indexing, "0" * 64)
    planning = claim(service)
    with service.database.write() as session:
        images, _ = pools.images(session, pool, limit=top_k)
        samples = [
            NewSample(n, 0, image.id, image.name, image.sha256, rank=n + 1, ssim=0.5 - n / 100, seed=2**62 + n)
            for n, image in enumerate(images)
        ]
        jobs.plan_done(session, planning, samples, top_k)


def make_sample(service: Service, sampling: Claim, position: int, mask: bytes | None = None) -> str:
    """One sample of a claimed step, with a mask of its own if one is given. Returns its image's sha256."""
    png = pixels.image_png(np.full((256, 512), 100 + position, np.uint8))
    sha256 = pixels.sha256(png)
    service.blobs.put(keys.sample(sampling.job_id, sha256), png)
    own = None if mask is None else pixels.sha256(mask)
    if mask is not None and own is not None:
        service.blobs.put(keys.sample(sampling.job_id, own), mask)
    with service.database.write() as session:
        jobs.finish_samples(session, sampling, [MadeSample(position, sha256, {"canal_retention": 0.9}, own)])
    return sha256


def finish(service: Service, pool: str, top_k: int, dataset: bytes, failed: int = 0) -> str:
    """Bring the oldest job, of one guide, to its end; its first `failed` samples cannot be made. Returns its id."""
    plan(service, pool, top_k)
    sampling = claim(service)
    for position in range(failed, top_k):
        make_sample(service, sampling, position)
    with service.database.write() as session:
        for position in range(failed):
            jobs.fail_sample(session, sampling, position=position, detail="no numbers")
        jobs.sampled(session, sampling)
    packaging = claim(service)
    service.blobs.put(keys.dataset(packaging.job_id), dataset)
    with service.database.write() as session:
        jobs.packaged(session, packaging, sha256=pixels.sha256(dataset), size=len(dataset))
    return packaging.job_id


def figures(client: httpx.Client) -> dict[str, float]:
    """What /metrics tells, by name and labels."""
    lines = [line for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def stored(service: Service) -> tuple[dict[str, int], set[str]]:
    """Everything there is: rows by table, and the blobs' keys."""
    with service.database.read() as session:
        rows = {
            name: session.scalar(select(func.count()).select_from(table)) or 0
            for name, table in Base.metadata.tables.items()
        }
    return rows, set(service.blobs.list())


def empty(service: Service) -> None:
    """Remove everything but what the first start makes."""
    with service.database.write() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())
        pools.create(session, "default")
    service.blobs.delete_prefix("")


def head(length: str, path: str = "/synthesize") -> bytes:
    """The head of an upload, for a client that goes its own ways."""
    kind = "Content-Type: multipart/form-data; boundary=xyz"
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n{length}\r\n\r\n".encode()


def answer_of(connection: socket.socket) -> str:
    """The whole answer, which may come in pieces."""
    response = HTTPResponse(connection)
    response.begin()
    with response:
        body = response.read().decode()
        return f"HTTP/1.1 {response.status} {response.reason}\n{response.headers}\n{body}"


@contextmanager
def statements_of(service: Service, part: str) -> Iterator[list[tuple[str, Any]]]:
    """The statements with this part sent in the block, with their parameters."""
    found: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if part in statement:
            found.append((statement, parameters))

    event.listen(service.database.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(service.database.engine, "before_cursor_execute", note)
